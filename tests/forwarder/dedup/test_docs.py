from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from forwarder.config import ForwarderSettings
from forwarder.dedup.marking import mark
from forwarder.dedup.observation import Metering, ObservationPoint, ObservationRule
from shared.record import SCHEMA

PAGE = (Path(__file__).parents[3] / "docs" / "dedup.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code that the page shows in a language."""
    return re.findall(rf"```{language}\n(.+?)```", PAGE, re.DOTALL)


def test_the_query_tells_how_each_exporter_meters(tmp_path: Path) -> None:
    """Of two routers that meter both ways at external interfaces, the one without its override has a wrong row."""
    networks = {ipaddress.ip_network("::2/128"): Metering.EXTERNAL}
    content = {
        "sampler_address": [bytes(15) + b"\1", bytes(15) + b"\1", bytes(15) + b"\2", bytes(15) + b"\2"],
        "in_if_boundary": ["external", "internal"] * 2,
        "out_if_boundary": ["internal", "external"] * 2,
        "flow_direction": [0, 1] * 2,
        "bytes": [100, 200, 300, 400],
        "sampling_rate": [None, None, 10, 10],
    }
    table = pa.table({name: pa.array(values, SCHEMA.field(name).type) for name, values in content.items()})
    judged = mark(table, ObservationPoint(ObservationRule(overrides=networks)).judge(table).duplicate)
    (tmp_path / "lake" / "hour").mkdir(parents=True)
    pq.write_table(judged, tmp_path / "lake" / "hour" / "part-1.parquet")
    (query,) = blocks("sql")
    with duckdb.connect(":memory:") as database:
        rows = database.execute(query.replace("'lake/", f"'{tmp_path}/lake/")).fetchall()
    assert [(row[0][-1], *row[1:]) for row in rows] == [
        (1, 0, "external", "internal", False, 1, 100),
        (1, 1, "internal", "external", True, 1, 200),
        (2, 0, "external", "internal", False, 1, 3000),
        (2, 1, "internal", "external", False, 1, 4000),
    ]


def test_the_settings_that_the_page_shows_are_settings() -> None:
    """Each is taken as it stands there, and its values are the defaults where the page says nothing else."""
    shown = [yaml.safe_load(block) for block in blocks("yaml")]
    flows = [one["forwarder"]["dedup"]["flow"] for one in shown if "flow" in one.get("forwarder", {}).get("dedup", {})]
    assert [one["policy"] for one in flows] == ["observation_point", "lease"]
    default = ForwarderSettings().forwarder.dedup
    for one in shown:
        settings = ForwarderSettings.model_validate(
            one if "forwarder" in one else {"forwarder": {"dedup": {"flow": one}}}
        )
        dedup = settings.forwarder.dedup
        assert dedup.exact == default.exact
        assert (
            dedup.flow.model_copy(update={"policy": "none", "metering_overrides": default.flow.metering_overrides})
            == default.flow
        )
