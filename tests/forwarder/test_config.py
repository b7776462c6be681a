from pathlib import Path

import pytest

from forwarder.aggregate import AggregateRule, Prefixes, why_no_key
from forwarder.config import CutConfig, ForwarderSettings, load_settings
from shared.errors import ConfigError
from shared.record import COLUMN

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


def test_sums_are_wanted_by_profile_or_keys(tmp_path: Path) -> None:
    """The keys of a profile come first; only the profile by prefix cuts addresses unless `prefixes` says so."""
    text = """\
forwarder:
  sinks:
    both: {type: parquet, path: a, aggregate: {profile: as_pair, keys: [in_if_boundary, src_as], bucket_seconds: 300}}
    prefix: {type: parquet, path: b, aggregate: {profile: prefix, estimate: false}}
    fixed: {type: parquet, path: c, aggregate: {keys: [src_addr], prefixes: {ipv4: 16, of_route: false}}}
    whole: {type: parquet, path: d, aggregate: {keys: [src_addr], include_duplicates: true}}
"""
    forwarder = load(tmp_path, text).forwarder
    rules = {name: config.rule for name in forwarder.sinks if (config := forwarder.aggregation(name)) is not None}
    assert rules == {
        "both": AggregateRule(("src_as", "dst_as", "in_if_boundary"), bucket_seconds=300),
        "prefix": AggregateRule(("src_addr", "dst_addr"), estimate=False, prefixes=Prefixes(24, 48, of_route=True)),
        "fixed": AggregateRule(("src_addr",), prefixes=Prefixes(16, 48, of_route=False)),
        "whole": AggregateRule(("src_addr",), include_duplicates=True),
    }


def test_a_sink_adds_up_otherwise_than_the_others_or_not_at_all(tmp_path: Path) -> None:
    """What a sink says of sums stands for all that is said for all sinks."""
    text = """\
forwarder:
  aggregate: {keys: [src_as], bucket_seconds: 10}
  sinks:
    as_all: {type: parquet, path: a}
    own: {type: parquet, path: b, aggregate: {keys: [proto]}}
    none: {type: parquet, path: c, aggregate: {enabled: false}}
    beside: {type: parquet, path: d, aggregated_path: e, aggregate: {keys: [proto], keep_raw: true}}
"""
    forwarder = load(tmp_path, text).forwarder
    assert forwarder.aggregation("as_all") == forwarder.aggregate
    own, beside = forwarder.aggregation("own"), forwarder.aggregation("beside")
    assert own is not None
    assert (own.keys, own.bucket_seconds, own.keep_raw) == (("proto",), 60, False)
    assert beside is not None
    assert beside.keep_raw
    assert forwarder.aggregation("none") is None
    assert load(tmp_path, "{}").forwarder.aggregation("lake") is None


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
        pytest.param("dedup: {exact: {window_seconds: 0}}", "exact.window_seconds: 0", id="exact dedup"),
        pytest.param("dedup: {flow: {policy: leese}}", 'flow.policy: "leese"', id="flow dedup"),
        pytest.param("dedup: {flow: {max_flows: 1}}", "flow.max_flows: 1", id="flows that are remembered"),
        pytest.param("aggregate: {}", "forwarder.aggregate: needs `keys`, or a `profile`", id="sums by nothing"),
        pytest.param(
            "aggregate: {keys: [src_ass]}",
            'aggregate.keys[0]: "src_ass" is no column of the record; the nearest is src_as (docs/record.md',
            id="key that is no column",
        ),
        pytest.param(
            "aggregate: {keys: [as_path]}",
            'keys[0]: "as_path" cannot be a key: it holds a list in each record',
            id="list as key",
        ),
        pytest.param("aggregate: {keys: [extra]}", "cannot be a key: it holds a map in each record", id="map as key"),
        pytest.param("aggregate: {keys: [bytes]}", "cannot be a key: it is what is added up", id="counter as key"),
        pytest.param("aggregate: {keys: [time_flow_end]}", "first or last time of all flows", id="time as key"),
        pytest.param("aggregate: {keys: [time_received]}", "it is told by the bucket of time", id="bucket as key"),
        pytest.param("aggregate: {keys: [record_id]}", "it is another one in each record", id="identity as key"),
        pytest.param("aggregate: {keys: [src_as, proto, src_as]}", "names src_as twice: keep one", id="key twice"),
        pytest.param(
            f"aggregate: {{keys: {[name for name in COLUMN if why_no_key(name) is None][:17]}}}",
            "are 17 keys, and 16 are the most",
            id="many keys",
        ),
        pytest.param(
            "aggregate: {profile: sgt}",
            'aggregate.profile: "sgt" is not allowed here; it needs one of prefix, as_pair, application, sgt_pair',
            id="profile",
        ),
        pytest.param(
            "aggregate: {profile: as_pair, prefixes: {}}", "none of src_addr and dst_addr is a key", id="no address"
        ),
        pytest.param(
            "aggregate: {profile: prefix, prefixes: {ipv4: 33}}", "it needs a whole number from 1 to 32", id="too long"
        ),
        pytest.param("aggregate: {keys: [src_as], bucket_seconds: 0}", "from 1 to 86400", id="no bucket"),
        pytest.param(
            "aggregate: {keys: [src_as], keep_raw: true}",
            "the sink lake keeps the records beside their sums (keep_raw), so it needs `aggregated_path`",
            id="no place for sums",
        ),
        pytest.param(
            "sinks: {a: {type: parquet, path: x, aggregated_path: x/sums}}",
            "the sink a has its aggregated_path, x/sums, inside its path",
            id="sums inside",
        ),
        pytest.param(
            "sinks: {a: {type: parquet, path: x, aggregated_path: y}, b: {type: parquet, path: y}}",
            "the sinks a and b have the same path, y",
            id="sums of one where another's records are",
        ),
        pytest.param(
            f"dedup: {{flow: {{metering_overrides: {{{', '.join(f'10.{one}.0.0/16: egress' for one in range(70))}}}}}}}",
            "of the sink lake are made (batch, dedup, aggregate) take 2,0",
            id="more settings than fit beside an offset",
        ),
        pytest.param(
            "sinks: {a: {type: parquet, path: x, dedup: {exakt: {}}}}", "sinks.a.dedup.exakt", id="sink's dedup"
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
