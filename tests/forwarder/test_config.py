from pathlib import Path

import pytest

from forwarder.config import CutConfig, ForwarderSettings, load_settings
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
  of: {a: later, version: 1}
forwarder:
  http: {listen: "0.0.0.0:8082", token_file: null}
  group_id: sluiceway-forwarder
  batch: {interval_ms: 5000, max_records: 200000, max_bytes: 67108864}
  dedup: {exact: {window_seconds: 600, max_records: 16000000}, flow: {policy: none, action: mark}}
  aggregate: null
  sinks:
    lake: {type: parquet, path: ./lake, batch: {interval_ms: 60000}}
"""
"""Every key of stage two with its default, as users have it in their files."""


def load(tmp_path: Path, text: str) -> ForwarderSettings:
    """The settings of a file with this text."""
    path = tmp_path / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path, {})


def test_the_contract_is_the_default(tmp_path: Path) -> None:
    """Each key of the contract is there, and its default is the one that was promised."""
    assert load(tmp_path, CONTRACT) == ForwarderSettings()


def test_a_sink_with_all_its_keys(tmp_path: Path) -> None:
    """The keys of a Parquet sink, with their defaults."""
    text = "forwarder: {sinks: {lake: {type: parquet, path: ./lake, addresses: text, retention_hours: null}}}"
    assert load(tmp_path, text) == load(tmp_path, "forwarder: {sinks: {lake: {type: parquet, path: ./lake}}}")


def test_a_sink_overrides_parts_of_the_cut(tmp_path: Path) -> None:
    """What a sink does not say of its batches is that of all sinks."""
    text = """\
forwarder:
  batch: {interval_ms: 1000, max_records: 7}
  sinks:
    own: {type: parquet, path: a, batch: {interval_ms: 60000}}
    plain: {type: parquet, path: b}
"""
    forwarder = load(tmp_path, text).forwarder
    assert forwarder.cut("own") == CutConfig(interval_ms=60000, max_records=7)
    assert forwarder.cut("plain") == CutConfig(interval_ms=1000, max_records=7)


def test_a_variable_reaches_into_a_sink(tmp_path: Path) -> None:
    """A sink's keys are set by its name, whether the sink is in the file or there by default."""
    environ = {"SLUICEWAY_FORWARDER__SINKS__LAKE__PATH": "/data"}
    lake = load_settings(None, environ).forwarder.sinks["lake"]
    assert (lake.path, lake.batch.interval_ms) == ("/data", 60000)
    path = tmp_path / "my.yaml"
    path.write_text("forwarder: {sinks: {lake: {type: parquet, path: x, addresses: binary}}}", encoding="utf-8")
    lake = load_settings(path, environ).forwarder.sinks["lake"]
    assert (lake.path, lake.addresses, lake.batch.interval_ms) == ("/data", "binary", None)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        pytest.param("sinks: {}", "forwarder.sinks: is empty; it needs at least one entry", id="no sink"),
        pytest.param(
            "sinks: {a: {path: x}}", "sinks.a.type: is missing, and has no default; it needs parquet", id="type"
        ),
        pytest.param("sinks: {a: {type: parquet}}", "sinks.a.path: is missing, and has no default", id="no path"),
        pytest.param("sinks: {a: {type: parquet, path: ''}}", "is empty, where a directory is needed", id="empty path"),
        pytest.param(
            "sinks: {a: {type: clickhouse, url: x}}",
            "forwarder.sinks.a: has the type clickhouse, which does not work yet; there is: parquet",
            id="clickhouse",
        ),
        pytest.param("sinks: {a: {type: http}}", "has the type http, which does not work yet", id="http"),
        pytest.param("sinks: {a: {type: kafka}}", "has the type kafka, which does not work yet", id="kafka"),
        pytest.param("sinks: {a: {type: parket}}", "not known (meant: parquet?); there is: parquet", id="typo in type"),
        pytest.param(
            "sinks: {a: {type: [x]}}",
            "sinks.a.type: a list is not allowed here; it needs parquet",
            id="type of the wrong form",
        ),
        pytest.param("sinks: {a: 5}", "forwarder.sinks.a: ", id="no section"),
        pytest.param(
            "sinks: {a: {type: parquet, path: 's3://bucket/x'}}",
            'forwarder.sinks.a.path: "s3://bucket/x" is on an object store, but only a directory of this machine',
            id="object store",
        ),
        pytest.param(
            "sinks: {a: {type: parquet, path: x, pth: y}}", "the nearest known one is forwarder.sinks.a.path", id="key"
        ),
        pytest.param("sinks: {A: {type: parquet, path: x}}", "a sink is named", id="capital"),
        pytest.param("sinks: {a__b: {type: parquet, path: x}}", "a sink is named", id="two underscores"),
        pytest.param(
            "sinks: {a: {type: parquet, path: x}, b: {type: parquet, path: ./x/}}",
            "have the same path",
            id="path twice",
        ),
        pytest.param("batch: {interval_ms: 0}", "a whole number of at least 1", id="no interval"),
        pytest.param(
            "sinks: {a: {type: parquet, path: x, batch: {interval_ms: 259200000}}}",
            "they would expire before they are delivered",
            id="over retention",
        ),
        pytest.param("group_id: 'a b'", "it needs letters, digits, dots, dashes and underscores", id="group"),
        pytest.param(
            "dedup: {exact: {window_seconds: 5}}", "exact.window_seconds: cannot be set yet", id="exact dedup"
        ),
        pytest.param("dedup: {flow: {policy: lease}}", "flow.policy: cannot be set yet", id="flow dedup"),
        pytest.param("aggregate: {keys: [src_as]}", "forwarder.aggregate: cannot be set yet", id="aggregate"),
        pytest.param(
            "sinks: {a: {type: parquet, path: x, dedup: {}}}", "sinks.a.dedup: cannot be set yet", id="sink's dedup"
        ),
    ],
)
def test_refuses(tmp_path: Path, section: str, says: str) -> None:
    """What cannot be, or does not work yet, stops the start."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"forwarder:\n  {section}\n")
    assert says in str(caught.value)
    assert f"{tmp_path / 'my.yaml'}:" in str(caught.value)


def test_the_other_stage_is_left_alone(tmp_path: Path) -> None:
    """One file serves both stages, and the faults of the other section are the other stage's."""
    assert load(tmp_path, "ingest: {listen: 5, bogus: 1}") == ForwarderSettings()
    assert load_settings(None, {"SLUICEWAY_INGEST__LISTEN": "5"}) == ForwarderSettings()
