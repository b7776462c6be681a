import pickle
from ipaddress import ip_network
from pathlib import Path

import pytest

from ingest.config import IngestSettings, load_settings
from shared.config import HostPort
from shared.errors import ConfigError

CONTRACT = """\
kafka:
  bootstrap_servers: localhost:9092
  topic_prefix: ""
  create_topics: true
  partitions: 12
  replication_factor: 1
  retention_hours: 72
  security: {protocol: plaintext}
  properties: {}
log: {level: info, format: auto}
exporters_file: null
ingest:
  http: {listen: "0.0.0.0:8081", token_file: null}
  listen: ["udp://[::]:2055", "udp://[::]:4739", "udp://[::]:6343"]
  workers: auto
  receive_buffer_bytes: 33554432
  batch: {max_records: 50000, max_age_ms: 200}
  message: {max_records: 1000, max_bytes: 262144, max_age_ms: 1000}
  drain_seconds: 10
  templates:
    parking: {max_bytes: 67108864, exporter_max_bytes: 8388608, max_age_seconds: 1800}
    undecoded: {scan_seconds: 60, scan_max_bytes: 134217728, max_age_seconds: 3600}
  admission: {allow: [], rate_limit: {datagrams_per_second: null, burst: null, overrides: {}}}
  sampling: {default: null, overrides: {}}
  mapping_file: null
  decapsulate: []
  spool: {directory: null, max_bytes: 10737418240}
forwarder:
  sinks: {of: {a: later, version: 1}}
"""
"""Every key of stage one with its default, as users have it in their files."""


def load(tmp_path: Path, text: str) -> IngestSettings:
    """The settings of a file with this text."""
    path = tmp_path / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path, {})


def test_the_contract_is_the_default(tmp_path: Path) -> None:
    """Each key of the contract is there, and its default is the one that was promised."""
    assert load(tmp_path, CONTRACT) == IngestSettings()


def test_settings_go_to_other_processes(tmp_path: Path) -> None:
    """Workers are spawned, and get the settings of their supervisor."""
    text = "ingest: {http: {token: hush}, sampling: {overrides: {10.0.0.0/8: 5}}}\nkafka: {properties: {a: 1}}"
    settings = load(tmp_path, text)
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_the_parts_of_listeners() -> None:
    """Sockets are made from hosts and ports, in the order of the list."""
    assert IngestSettings().ingest.listeners == (HostPort("::", 2055), HostPort("::", 4739), HostPort("::", 6343))
    assert IngestSettings().ingest.http.address == HostPort("0.0.0.0", 8081)


def test_sampling_overrides_are_networks(tmp_path: Path) -> None:
    """A rate may be given to an address or a network of either family."""
    text = "ingest: {sampling: {default: 100, overrides: {192.0.2.0/24: 1000, '2001:db8::1': 1}}}"
    sampling = load(tmp_path, text).ingest.sampling
    assert sampling.default == 100
    assert sampling.overrides == {ip_network("192.0.2.0/24"): 1000, ip_network("2001:db8::1/128"): 1}


@pytest.mark.parametrize(
    ("section", "says"),
    [
        pytest.param("listen: []", "ingest.listen: is empty; it needs at least one entry", id="no listener"),
        pytest.param("listen: ['udp://[::]:1', 'udp://[::]:1']", "names udp://[::]:1 twice", id="listener twice"),
        pytest.param("workers: 0", "it needs auto or a whole number of at least 1", id="no worker"),
        pytest.param("receive_buffer_bytes: 0", "a whole number from 4096 to", id="no buffer"),
        pytest.param("receive_buffer_bytes: 4294967296", "a whole number from 4096 to", id="buffer over the kernel's"),
        pytest.param("message: {max_bytes: 8388608}", "a whole number from 1024 to 4194304", id="too large to fetch"),
        pytest.param("batch: {max_records: 0}", "ingest.batch.max_records: 0", id="no record"),
        pytest.param("drain_seconds: -1", "a number of at least 0", id="negative time"),
        pytest.param("drain_seconds: .inf", "ingest.drain_seconds", id="endless time"),
        pytest.param("sampling: {default: 0}", "a whole number from 1 to 4294967295", id="rate 0"),
        pytest.param("sampling: {overrides: {10.0.0.1: 1, 10.0.0.1/32: 2}}", "names one network twice", id="twice"),
        pytest.param("http: {listen: '0.0.0.0'}", "needs the form host:port", id="no port"),
        pytest.param("templates: {lifetime: 1}", "ingest.templates.lifetime", id="templates"),
        pytest.param("admission: {allow: [10.0.0.0/8]}", "ingest.admission.allow: cannot be set yet", id="allow"),
        pytest.param("admission: {rate_limit: {burst: 5}}", "rate_limit.burst: cannot be set yet", id="rate limit"),
        pytest.param("spool: {max_bytes: 0}", "ingest.spool.max_bytes: 0", id="spool's size"),
    ],
)
def test_refuses(tmp_path: Path, section: str, says: str) -> None:
    """What cannot be, or does not work yet, stops the start."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"ingest:\n  {section}\n")
    assert says in str(caught.value)


def test_the_other_stage_is_left_alone(tmp_path: Path) -> None:
    """One file serves both stages, and the faults of the other section are the other stage's."""
    assert load(tmp_path, "forwarder: {sinks: {x: {type: none}}, bogus: 1}") == IngestSettings()
    assert load_settings(None, {"SLUICEWAY_FORWARDER__SINKS__X__TYPE": "none"}) == IngestSettings()
