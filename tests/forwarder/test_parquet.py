from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.aggregate import AggregateRule, Aggregation
from forwarder.config import ParquetSinkConfig
from forwarder.cut import Token
from forwarder.sinks import build
from forwarder.sinks.base import Busy, Done, Trouble
from forwarder.sinks.parquet import ParquetSink, Zeros, by_hour
from shared.errors import StartError
from shared.record import COLUMNS, SCHEMA
from tests.fakes import TOPIC_ID, FakeClock
from tests.forwarder.records import HOUR_NS, RECEIVED_NS, eventually, flows

TOKEN = Token(TOPIC_ID, 3, 10, 25)
NAME = f"part-{TOPIC_ID}-3-10-25.parquet"
FOUR = b"\0" * 10 + b"\xff\xff" + bytes([192, 0, 2, 7])
SIX = bytes.fromhex("20010db8000000000000000000000001")
Open = Callable[..., ParquetSink]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Where the lake is; the sink makes it."""
    return tmp_path / "some" / "lake"


@pytest.fixture
def opened(lake: Path) -> Iterator[Open]:
    """Opens sinks on the lake, and closes them."""
    made: list[ParquetSink] = []

    def make(now_ns: Callable[[], int] = lambda: RECEIVED_NS, **settings: object) -> ParquetSink:
        sink = ParquetSink(ParquetSinkConfig(type="parquet", path=str(lake), **settings), now_ns)
        sink.open()
        made.append(sink)
        return sink

    yield make
    for sink in made:
        sink.close()


def table(*batches: pa.RecordBatch) -> pa.Table:
    """One table of such batches."""
    return pa.Table.from_batches(batches)


def files(lake: Path) -> list[str]:
    """All files of the lake, relative to it."""
    return sorted(str(path.relative_to(lake)) for path in lake.rglob("*") if path.is_file())


def test_a_batch_is_a_file_for_each_hour_of_reception(opened: Open, lake: Path) -> None:
    """Files are named by the token, in a directory of the hour in which their records were received."""
    sink = opened()
    late = pa.concat_tables([table(flows([1, 2])), table(flows([3], RECEIVED_NS + HOUR_NS)), table(flows([4]))])
    assert sink.deliver(late, TOKEN) == Done()
    assert files(lake) == [f"date=2023-11-14/hour=22/{NAME}", f"date=2023-11-14/hour=23/{NAME}"]
    first, second = (pq.read_table(lake / name, partitioning=None) for name in files(lake))
    assert first["record_id"].to_pylist() == [1, 2, 4]
    assert second["record_id"].to_pylist() == [3]


def test_a_batch_delivered_again_finds_its_own_files(opened: Open, lake: Path) -> None:
    """The same token leaves its files as they are, not written anew, however often it is delivered."""
    sink = opened()
    records = pa.concat_tables([table(flows([1, 2])), table(flows([3], RECEIVED_NS + HOUR_NS))])
    sink.deliver(records, TOKEN)
    before = {name: ((lake / name).stat().st_ino, (lake / name).read_bytes()) for name in files(lake)}
    for again in (sink, opened()):
        assert again.deliver(records, TOKEN) == Done()
    assert {name: ((lake / name).stat().st_ino, (lake / name).read_bytes()) for name in files(lake)} == before


def test_a_batch_delivered_again_brings_back_the_files_that_are_missing(opened: Open, lake: Path) -> None:
    """What a retention or a person has removed is written again, with the same bytes; what is there stays."""
    sink = opened()
    records = pa.concat_tables([table(flows([1, 2])), table(flows([3], RECEIVED_NS + HOUR_NS))])
    sink.deliver(records, TOKEN)
    before = {name: (lake / name).read_bytes() for name in files(lake)}
    (lake / files(lake)[0]).unlink()
    assert opened().deliver(records, TOKEN) == Done()
    assert {name: (lake / name).read_bytes() for name in files(lake)} == before


def test_a_selection_of_a_batch_is_a_file_of_its_own(opened: Open, lake: Path) -> None:
    """What a replay picks out of a batch does not take the place of the batch, nor the other way round."""
    sink = opened()
    sink.deliver(table(flows([1])), replace(TOKEN, only="00ff"))
    sink.deliver(table(flows([1, 2])), TOKEN)
    hour = "date=2023-11-14/hour=22"
    assert files(lake) == [f"{hour}/{NAME.removesuffix('.parquet')}-only-00ff.parquet", f"{hour}/{NAME}"]


def test_parts_of_a_batch_are_files_of_their_own(opened: Open, lake: Path) -> None:
    """A batch that had to be divided is there in full: no part of it has the name of another."""
    sink = opened()
    for first, end in ((0, 1), (1, 3)):
        sink.deliver(table(flows(range(first, end))), replace(TOKEN, rows=(first, end)))
    stem = f"date=2023-11-14/hour=22/{NAME.removesuffix('.parquet')}"
    assert files(lake) == [f"{stem}-rows-0-1.parquet", f"{stem}-rows-1-3.parquet"]
    assert sorted(pq.read_table(lake)["record_id"].to_pylist()) == [0, 1, 2]


def test_every_file_has_every_column_with_its_description(opened: Open, lake: Path) -> None:
    """The columns of a file are those of the record, whatever the batch had, and say what they mean."""
    sink = opened()
    sink.deliver(table(flows([1])), TOKEN)
    sink.deliver(table(flows([2], src_addr=[FOUR], as_path=[[1, 2]], extra=[[("a", "b")]])), Token(TOPIC_ID, 3, 25, 30))
    for name in files(lake):
        schema = pq.read_schema(lake / name)
        assert schema.names == SCHEMA.names
        for column in COLUMNS:
            assert schema.field(column.name).metadata[b"description"].decode() == column.description
    whole = pq.read_table(lake, partitioning=None)
    assert sorted(whole["record_id"].to_pylist()) == [1, 2]
    assert whole["src_sgt"].null_count == 2


def test_a_plain_query_sees_all_columns_of_all_files(opened: Open, lake: Path) -> None:
    """DuckDB needs no options to read a lake whose files came from exporters that export different things."""
    sink = opened()
    sink.deliver(table(flows([1])), TOKEN)
    sink.deliver(table(flows([2], src_addr=[FOUR], src_sgt=[10])), Token(TOPIC_ID, 3, 25, 30))
    query = f"select record_id, src_addr, src_sgt, sum(bytes) over () from '{lake}/**/*.parquet' order by record_id"
    with duckdb.connect() as connection:
        assert connection.execute(query).fetchall() == [(1, None, None, 203), (2, "192.0.2.7", 10, 203)]
        partitions = f"select distinct date::varchar, hour::int from '{lake}/**/*.parquet'"
        assert connection.execute(partitions).fetchall() == [("2023-11-14", 22)]


def test_addresses_are_text_by_default(opened: Open, lake: Path) -> None:
    """Addresses and MACs are text, IPv4 plain; what is null stays null, and what repeats may."""
    sink = opened()
    records = flows(
        [1, 2, 3, 4],
        src_addr=[FOUR, SIX, None, FOUR],
        src_mac=[bytes(range(6)), None, None, b"\xff" * 6],
        sampler_address=[FOUR] * 4,
    )
    sink.deliver(table(records), TOKEN)
    read = pq.read_table(lake, partitioning=None)
    assert read["src_addr"].to_pylist() == ["192.0.2.7", "2001:db8::1", None, "192.0.2.7"]
    assert read["src_mac"].to_pylist() == ["00:01:02:03:04:05", None, None, "ff:ff:ff:ff:ff:ff"]
    assert read["sampler_address"].to_pylist() == ["192.0.2.7"] * 4
    assert read["dst_addr"].to_pylist() == [None] * 4


def test_addresses_are_the_bytes_of_the_record_on_request(opened: Open, lake: Path) -> None:
    """With `binary`, addresses are what the record has."""
    sink = opened(addresses="binary")
    sink.deliver(table(flows([1, 2], src_addr=[FOUR, None], src_mac=[b"\1" * 6, None])), TOKEN)
    read = pq.read_table(lake, partitioning=None)
    assert read["src_addr"].to_pylist() == [FOUR, None]
    assert read["src_mac"].to_pylist() == [b"\1" * 6, None]
    assert read["dst_addr"].to_pylist() == [None, None]


def test_values_come_back_as_they_were(opened: Open, lake: Path) -> None:
    """Every type of column survives, at the ends of its range."""
    content: dict[str, list[Any]] = {}
    for column in COLUMNS:
        kind = column.type
        if pa.types.is_integer(kind):
            content[column.name] = [0, 2**kind.bit_width - 1, None]
        elif pa.types.is_timestamp(kind):
            content[column.name] = [-(2**62), 2**63 - 1, None]
        elif pa.types.is_dictionary(kind) or pa.types.is_string(kind):
            content[column.name] = ["", "München", None]
        elif pa.types.is_boolean(kind):
            content[column.name] = [False, True, None]
        elif pa.types.is_map(kind):
            content[column.name] = [[], [("a", "b"), ("c", "d")], None]
        elif pa.types.is_list(kind):
            content[column.name] = [[], [0, 2**32 - 1], None]
        else:
            content[column.name] = [b"\0" * kind.byte_width, b"\xff" * kind.byte_width, None]
    content["time_received"] = [RECEIVED_NS] * 3
    written = pa.table([pa.array(content[name], SCHEMA.field(name).type) for name in SCHEMA.names], names=SCHEMA.names)
    sink = opened(addresses="binary")
    assert sink.deliver(written, TOKEN) == Done()
    assert pq.read_table(lake, partitioning=None).cast(written.schema).equals(written)


@pytest.mark.parametrize(
    ("records", "hours"),
    [
        pytest.param([None], ["1970-01-01 00"], id="none said"),
        pytest.param([RECEIVED_NS, None], ["1970-01-01 00", "2023-11-14 22"], id="some did not say"),
        pytest.param([-1, 0], ["1969-12-31 23", "1970-01-01 00"], id="before 1970"),
        pytest.param([HOUR_NS - 1, HOUR_NS], ["1970-01-01 00", "1970-01-01 01"], id="at the hour"),
    ],
)
def test_records_are_split_by_hour(records: list[int | None], hours: list[str]) -> None:
    """A record lies in the hour in which it was received; without that time it lies in 1970's first."""
    parts = list(by_hour(pa.table({"time_received": pa.array(records, SCHEMA.field("time_received").type)})))
    assert [f"{hour:%Y-%m-%d %H}" for hour, _ in parts] == hours
    assert sum(part.num_rows for _, part in parts) == len(records)


def test_records_without_the_column_of_reception_are_kept(opened: Open, lake: Path) -> None:
    """A batch in which no message has a reception time is written too."""
    assert opened().deliver(pa.table({"record_id": pa.array([7], pa.uint64())}), TOKEN) == Done()
    assert files(lake) == [f"date=1970-01-01/hour=00/{NAME}"]


@given(st.lists(st.integers(0, 300), min_size=1, max_size=5))
def test_columns_of_nulls_are_nulls_of_their_type(lengths: list[int]) -> None:
    """The columns that share a buffer are null in every row, and of the type that was asked for."""
    zeros = Zeros()
    for rows in lengths:
        for field in SCHEMA:
            nulls = zeros.nulls(rows, field.type)
            nulls.validate(full=True)
            assert nulls.type == field.type
            assert nulls.null_count == len(nulls) == rows


def test_a_lake_that_cannot_be_made_is_a_start_error(tmp_path: Path) -> None:
    """The message names the lake, and says what to do."""
    (tmp_path / "file").write_text("no directory")
    sink = build(ParquetSinkConfig(type="parquet", path=str(tmp_path / "file" / "lake")))
    with pytest.raises(
        StartError, match=r"the lake .*/file/lake cannot be written \(Not a directory\): give this user"
    ):
        sink.open()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_lake_without_the_right_to_write_is_a_start_error(tmp_path: Path) -> None:
    """The message names the lake, and says what to do."""
    tmp_path.chmod(0o500)
    with pytest.raises(StartError, match="cannot be written"):
        build(ParquetSinkConfig(type="parquet", path=str(tmp_path))).open()


def test_a_lake_that_cannot_be_written_later_is_busy(opened: Open, lake: Path) -> None:
    """What goes wrong while it runs is told, and over when the lake can be written again; nothing is left aside."""
    sink = opened()
    (lake / "date=2023-11-14").write_text("in the way")
    outcome = sink.deliver(table(flows([1])), TOKEN)
    assert isinstance(outcome, Busy)
    assert outcome.reason is Trouble.AWAY
    assert "cannot be written" in outcome.detail
    assert not sink.health().ok
    (lake / "date=2023-11-14").unlink()
    assert sink.deliver(table(flows([1])), TOKEN) == Done()
    assert sink.health().ok
    assert files(lake) == [f"date=2023-11-14/hour=22/{NAME}"]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, Trouble.FULL),
        (errno.EDQUOT, Trouble.FULL),
        (errno.EROFS, Trouble.FORBIDDEN),
        (errno.EIO, Trouble.AWAY),
    ],
)
def test_the_reason_of_a_failure_tells_what_to_look_at(opened: Open, lake: Path, number: int, reason: Trouble) -> None:
    """A full disk, a missing right and the rest are told apart."""
    outcome = opened().failed(OSError(number, os.strerror(number)), lake)
    assert (outcome.reason, os.strerror(number) in outcome.detail) == (reason, True)


def test_what_a_crash_left_aside_is_removed_unless_it_is_being_written(opened: Open, lake: Path) -> None:
    """A file aside that nobody holds is removed at the start; another forwarder's, and what is not ours, stays."""
    hour = lake / "date=2023-11-14" / "hour=22"
    hour.mkdir(parents=True)
    left, held, foreign = (hour / name for name in (f".{NAME}.1.aside", f".{NAME}.2.aside", ".something"))
    for path in (left, held, foreign):
        path.write_bytes(b"half")
    with held.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        opened()
    assert files(hour) == sorted([held.name, foreign.name])


def test_hours_older_than_the_retention_are_removed(opened: Open, lake: Path) -> None:
    """An hour goes when all of it is older than the retention; records without a time and foreign files stay."""
    clock = FakeClock(RECEIVED_NS / 1e9)
    sink = opened(clock.ns, retention_hours=2)
    for age in range(4):
        sink.deliver(table(flows([age], RECEIVED_NS - age * HOUR_NS)), TOKEN)
    sink.deliver(table(flows([9], 5)), TOKEN)
    (lake / "date=2023-11-14" / "hour=19" / "notes.txt").write_text("mine")
    (lake / "date=never" / "hour=19").mkdir(parents=True)
    assert sink.expire() == 1
    hours = [f"date=2023-11-14/hour={hour}/{NAME}" for hour in (20, 21, 22)]
    assert files(lake) == [f"date=1970-01-01/hour=00/{NAME}", "date=2023-11-14/hour=19/notes.txt", *hours]
    clock.advance(24 * 3600)
    assert sink.expire() == 3
    assert files(lake) == [f"date=1970-01-01/hour=00/{NAME}", "date=2023-11-14/hour=19/notes.txt"]


def test_retention_runs_by_itself_and_ends_with_the_sink(opened: Open, lake: Path) -> None:
    """With a retention set, an open sink removes what is old, and a closed one has no thread left."""
    opened().deliver(table(flows([1])), TOKEN)
    sink = opened(lambda: RECEIVED_NS + 3 * HOUR_NS, retention_hours=1)
    eventually(lambda: not files(lake), "the old hour removed")
    sink.close()


def test_without_a_retention_nothing_is_removed(opened: Open, lake: Path) -> None:
    """Files are kept for ever unless a retention is set."""
    sink = opened(lambda: RECEIVED_NS + 10_000 * HOUR_NS)
    sink.deliver(table(flows([1])), TOKEN)
    assert sink.expire() == 0
    assert len(files(lake)) == 1


def test_hours_are_those_of_utc(opened: Open, lake: Path) -> None:
    """Directories do not follow the machine's time zone."""
    opened().deliver(table(flows([1])), TOKEN)
    hour = datetime.fromtimestamp(RECEIVED_NS / 1e9, UTC)
    assert files(lake) == [f"date={hour:%Y-%m-%d}/hour={hour:%H}/{NAME}"]


# --- sums beside records, or instead of them

AGG = f"agg-{TOPIC_ID}-3-10-25.parquet"
BY_GROUP = Aggregation(AggregateRule(("src_sgt", "src_addr"), bucket_seconds=60))


def late() -> pa.Table:
    """Records of two hours."""
    groups, addresses = [10, 10, None], [FOUR, FOUR, SIX]
    first = flows([1, 2, 3], RECEIVED_NS, src_sgt=groups, src_addr=addresses, sampling_rate=[10, None, 5])
    return table(
        first, flows([4, 5, 6], RECEIVED_NS + HOUR_NS, src_sgt=groups, src_addr=addresses, sampling_rate=[1, 1, 1])
    )


def test_sums_are_files_of_the_same_token_in_a_directory_of_their_own(opened: Open, lake: Path, tmp_path: Path) -> None:
    """By the hour in which their bucket begins; a query over the lake sees the records alone."""
    sink = opened(aggregated_path=str(tmp_path / "sums"))
    records = late()
    assert sink.deliver(records, TOKEN, BY_GROUP.apply(records).table) == Done()
    hours = ("date=2023-11-14/hour=22", "date=2023-11-14/hour=23")
    assert files(lake) == [f"{hour}/{NAME}" for hour in hours]
    assert files(tmp_path / "sums") == [f"{hour}/{AGG}" for hour in hours]
    with duckdb.connect() as connection:
        assert connection.execute(f"select count(*), sum(bytes) from '{lake}/**/*.parquet'").fetchall() == [(6, 621)]
        query = f"""
            select src_sgt, src_addr, sum(bytes), sum(bytes_estimated), sum(records), sum(records_without_rate)
            from '{tmp_path}/sums/**/*.parquet' group by all order by src_sgt
        """
        assert connection.execute(query).fetchall() == [
            (10, "192.0.2.7", 101 + 102 + 104 + 105, 1010 + 102 + 104 + 105, 4, 1),
            (None, "2001:db8::1", 103 + 106, 515 + 106, 2, 0),
        ]


def test_sums_may_be_all_that_is_delivered(opened: Open, lake: Path) -> None:
    """Without records the lake is of sums alone, and each file says what its columns are."""
    sink = opened()
    records = late()
    assert sink.deliver(records.slice(0, 0), TOKEN, BY_GROUP.apply(records).table) == Done()
    assert files(lake) == [f"date=2023-11-14/hour={hour}/{AGG}" for hour in (22, 23)]
    schema = pq.read_schema(lake / files(lake)[0])
    assert schema.names == BY_GROUP.schema.names
    assert all(schema.field(name).metadata[b"description"] for name in schema.names)
    assert sink.deliver(records.slice(0, 0), Token(TOPIC_ID, 3, 25, 30), BY_GROUP.schema.empty_table()) == Done()
    assert len(files(lake)) == 2


def test_a_batch_is_done_when_records_and_sums_are_there(opened: Open, lake: Path, tmp_path: Path) -> None:
    """When the sums cannot be written, the batch is delivered again, and is then the same as at once."""
    sink = opened(aggregated_path=str(tmp_path / "sums"))
    records = late()
    sums = BY_GROUP.apply(records).table
    (tmp_path / "sums" / "date=2023-11-14").write_text("in the way")
    outcome = sink.deliver(records, TOKEN, sums)
    assert isinstance(outcome, Busy)
    assert f"the lake {tmp_path}/sums cannot be written" in outcome.detail
    (tmp_path / "sums" / "date=2023-11-14").unlink()
    assert sink.deliver(records, TOKEN, sums) == Done()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    assert len(before) == 4
    assert (
        opened(aggregated_path=str(tmp_path / "sums")).deliver(records, TOKEN, BY_GROUP.apply(records).table) == Done()
    )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == before


@pytest.mark.parametrize("records_first", [True, False])
def test_records_and_sums_are_not_mixed(opened: Open, lake: Path, records_first: bool) -> None:
    """A query over a lake that has both would count twice: the second kind waits until somebody gives it a place."""
    records = late()
    kinds = [(records, None), (records.slice(0, 0), BY_GROUP.apply(records).table)]
    first, second = kinds if records_first else kinds[::-1]
    assert opened().deliver(first[0], TOKEN, first[1]) == Done()
    before = files(lake)
    sink = opened()
    outcome = sink.deliver(second[0], Token(TOPIC_ID, 3, 25, 30), second[1])
    assert isinstance(outcome, Busy)
    assert outcome.reason is Trouble.FORBIDDEN
    assert "aggregated_path" in outcome.detail
    assert not sink.health().ok
    assert files(lake) == before


def test_sums_have_a_retention_of_their_own(opened: Open, lake: Path, tmp_path: Path) -> None:
    """Sums are kept when their records are gone, as long as is said for them."""
    clock = FakeClock(RECEIVED_NS / 1e9)
    sums = tmp_path / "sums"
    sink = opened(clock.ns, retention_hours=1, aggregated_path=str(sums), aggregated_retention_hours=48)
    records = late()
    sink.deliver(records, TOKEN, BY_GROUP.apply(records).table)
    clock.advance(24 * 3600)
    assert sink.expire() == 2
    assert (files(lake), len(files(sums))) == ([], 2)
    clock.advance(26 * 3600)
    assert sink.expire() == 2
    assert files(sums) == []
