from pathlib import Path

import pyarrow as pa
import pytest

from shared.counters import COLUMNS as COUNTER_COLUMNS
from shared.record import COLUMNS
from shared.reference import FOLDER, main, pages, stale, type_text


def test_pages_are_what_the_code_says() -> None:
    """docs/ is not stale: when this fails, run `make docs`."""
    assert stale(FOLDER) == []


def test_a_stale_page_is_found_and_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--check answers 1 and names what is missing or differs; --write mends it."""
    assert main(["--check", "--folder", str(tmp_path)]) == 1
    assert main(["--write", "--folder", str(tmp_path)]) == 0
    assert main(["--check", "--folder", str(tmp_path)]) == 0
    (tmp_path / "record.md").write_text("old", encoding="utf-8")
    capsys.readouterr()
    assert main(["--check", "--folder", str(tmp_path)]) == 1
    assert "record.md is stale: run `make docs`" in capsys.readouterr().err


def test_every_column_is_on_its_page() -> None:
    """The page on the record has a row for each column, and then for each of counter samples, in their order."""
    rows = [line.split("`")[1] for line in pages()["record.md"].splitlines() if line.startswith("| `")]
    assert rows == [column.name for column in (*COLUMNS, *COUNTER_COLUMNS)]


def test_tables_are_whole() -> None:
    """Every row has as many cells as its head, whatever is written in them."""
    for name, text in pages().items():
        width = 0
        for line in text.splitlines():
            cells = line.replace("\\|", "").count("|")
            width = (width or cells) if line.startswith("|") else 0
            assert cells == width or not line.startswith("|"), f"{name}: {line}"


@pytest.mark.parametrize(
    ("variable", "default"),
    [
        pytest.param("SLUICEWAY_KAFKA__BOOTSTRAP_SERVERS", "localhost:9092", id="common"),
        pytest.param("SLUICEWAY_INGEST__MESSAGE__MAX_BYTES", "262144", id="ingest"),
        pytest.param("SLUICEWAY_FORWARDER__BATCH__INTERVAL_MS", "5000", id="forwarder"),
        pytest.param("SLUICEWAY_FORWARDER__SINKS__<NAME>__ADDRESSES", "text", id="sink"),
    ],
)
def test_a_key_has_its_row(variable: str, default: str) -> None:
    """The page on the configuration tells each key once, with its variable and default."""
    rows = [line for line in pages()["configuration.md"].splitlines() if f"`{variable}`" in line]
    assert len(rows) == 1
    assert f"| `{default}` |" in rows[0]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        pytest.param(pa.uint16(), "uint16", id="number"),
        pytest.param(pa.binary(16), "fixed 16 B", id="address"),
        pytest.param(pa.dictionary(pa.int32(), pa.utf8()), "dictionary of utf8", id="name"),
        pytest.param(pa.timestamp("ns", tz="UTC"), "timestamp[ns, UTC]", id="time"),
        pytest.param(pa.list_(pa.uint32()), "list of uint32", id="list"),
        pytest.param(pa.map_(pa.utf8(), pa.utf8()), "map of utf8 to utf8", id="map"),
    ],
)
def test_types_are_readable(kind: pa.DataType, text: str) -> None:
    """A type stands on the page as people say it."""
    assert type_text(kind) == text
