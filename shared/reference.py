"""The reference pages ``docs/configuration.md`` and ``docs/record.md``, made from the models and the schema.

``python -m shared.reference --write`` makes the pages again; ``--check`` says which are stale, and is status 1 then.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from pydantic import BaseModel

from shared.counters import COLUMNS as COUNTER_COLUMNS
from shared.effective import flow
from shared.keys import Key, dotted, variable, walk
from shared.record import ADDRESS, COLUMNS, MAC, NAME, SCHEMA_VERSION, Column

SETTINGS: Final = ("ingest.config:IngestSettings", "forwarder.config:ForwarderSettings")
"""The stages' models by name: this module is a tool beside the stages, and shared depends on neither of them."""

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs"

CONFIGURATION_HEAD: Final = """\
# Configuration

<!-- Made by `make docs` from the settings models. Change those, not this page. -->

Both stages read one YAML file: the one that `--config` names, else the one that `SLUICEWAY_CONFIG` names, else
`sluiceway.yaml` in the working directory, else none: every key has a default. A stage reads its own section and the
common ones (`kafka`, `log`, `exporters_file`), and leaves the other stage's section alone, so that one file can serve
both. `python -m ingest check-config` and `python -m forwarder check-config` validate it, and print what is in effect
and where each value came from.

```yaml
kafka: {bootstrap_servers: "kafka-1:9092,kafka-2:9092", replication_factor: 3}
ingest: {listen: ["udp://[::]:2055"]}
forwarder:
  sinks:
    lake: {type: parquet, path: /data/lake, batch: {interval_ms: 60000}}
```

- **Environment.** Every key can be set by a variable, which goes before the file: `SLUICEWAY_` and the path in upper
  case, joined by two underscores; a list, a map or a section as JSON. A sink's keys are named by the sink:
  `SLUICEWAY_FORWARDER__SINKS__LAKE__PATH`. A variable that sets one entry of a map leaves the other entries as they
  are. An empty variable means null where null is allowed. Names without a double underscore are not ours (Kubernetes
  sets `SLUICEWAY_INGEST_PORT` and the like), except `SLUICEWAY_CONFIG` and `SLUICEWAY_EXPORTERS_FILE`.
- **Secrets.** A key that ends in `_file` beside a secret names a file that the secret is read from, at the start; a
  line break at its end is dropped. Setting both is an error. Secrets are never logged or printed.
- **Errors.** An unknown key, an unknown variable or a value that is not allowed stops the start with exit status 2; the
  message names the file and its line, or the variable, the key, and what is allowed or nearest.
- **Not yet.** Keys marked so belong to features that are not there yet. Only their default is accepted: anything else
  is an error, not a surprise.

Units end the names: `_ms`, `_seconds`, `_hours`, `_bytes`, `_records`.
"""

RECORD_HEAD: Final = """\
# The flow record

<!-- Made by `make docs` from shared/record.py and shared/counters.py. Change those, not this page. -->

One schema, version {version}, with {count} columns: the Kafka messages, the Parquet files and the JSON all have these
names. A column is absent, or null in a row, when the exporter did not say; 0 means that it said 0. Counters are as
exported: they are never multiplied by the sampling rate, so `bytes * sampling_rate` is the estimate.

Addresses are 16 bytes in Arrow, IPv4 as `::ffff:a.b.c.d`. In JSON, addresses are text (IPv4 plain), MAC addresses
`aa:bb:cc:dd:ee:ff`, times RFC 3339 with the fraction that they have, `record_id` 16 hex digits, and nulls are left out.

Numbers under "where it comes from" are information elements of IPFIX, which NetFlow v9 shares up to 127; `9:12236` is
element 12236 of enterprise 9. [mapping.md](mapping.md) tells how to give a column further ones.

What a record's own elements leave open is filled from a sampled packet in it ("frame": elements 315, 104 or 313, taken
apart like the sampled headers of sFlow; the record is then one packet), and after that from its structured data
(RFC 6313). Of a basic list (291) the first value counts, of a list of one template (292) the first record, of a list of
several (293) the first record of each entry; earlier lists and entries go before later ones. BGP communities are taken
whole. Lists in lists are read four deep. A list whose template is not known, or that lies about its length, is counted
and costs only itself.
"""


COUNTERS_HEAD: Final = """\
## Counter samples

One row each in `flows.counters`, keyed by the exporter's address, with {count} columns. A sample has the counters of all
the records that the agent put into it, so a row has the columns of an interface, or of a host, and most others are null.
Columns are named as in sFlow's structures, in snake case, with the unit at the end where sFlow's name does not say it.

Counters are as exported: they count since the agent or the interface began, and begin anew when `uptime_ms` or
`sample_sequence_num` goes back. sFlow says "unknown" of a number by setting all of its bits; such a number is null. Of
several records of one kind in a sample the last counts. Numbers in brackets are the formats of sFlow's counter records,
`4413:1` is format 1 of enterprise 4413.
"""


def configuration_page(models: Iterable[type[BaseModel]]) -> str:
    """The page on the settings: a table for each section, the common ones once."""
    sections: dict[tuple[str, ...], list[Key]] = {}
    first: dict[type[BaseModel], tuple[str, ...]] = {}
    for model in models:
        for key in walk(model):
            path = key.path[:-1]
            if not path or first.setdefault(key.section, path) == path:
                sections.setdefault(path, []).append(key)
    top = {key.path: key for key in sections.pop((), [])}
    order = [name for (name,) in top]
    parts = [CONFIGURATION_HEAD, "## Top level\n", _keys(top.values(), first)]
    for path, keys in sorted(sections.items(), key=lambda section: order.index(section[0][0])):
        known = {key.path: key for key in keys}
        parts += [f"## `{dotted(path)}`\n", f"{_about(keys[0])}\n", _keys(known.values(), first)]
    return "\n".join(parts)


def record_page(columns: Sequence[Column] = COLUMNS, counters: Sequence[Column] = COUNTER_COLUMNS) -> str:
    """The page on the record's columns, and on those of counter samples."""
    record = f"{RECORD_HEAD.format(version=SCHEMA_VERSION, count=len(columns))}\n{_columns(columns)}"
    return f"{record}\n{COUNTERS_HEAD.format(count=len(counters))}\n{_columns(counters)}"


def _columns(columns: Sequence[Column]) -> str:
    rows = [
        (
            f"`{column.name}`",
            type_text(column.type),
            column.unit or "",
            _escaped(column.description),
            _escaped(column.source),
        )
        for column in columns
    ]
    return _table(("column", "Arrow type", "unit", "meaning", "where it comes from"), rows)


def type_text(kind: pa.DataType) -> str:
    """An Arrow type as people write it."""
    if kind == NAME:
        return "dictionary of utf8"
    if kind in {ADDRESS, MAC}:
        return f"fixed {kind.byte_width} B"
    if pa.types.is_timestamp(kind):
        return f"timestamp[{kind.unit}, {kind.tz}]"
    if pa.types.is_list(kind):
        return f"list of {type_text(kind.value_type)}"
    if pa.types.is_map(kind):
        return f"map of {type_text(kind.key_type)} to {type_text(kind.item_type)}"
    return {"string": "utf8"}.get(str(kind), str(kind))


def pages() -> Mapping[str, str]:
    """The text of each page by its file's name."""
    return {"configuration.md": configuration_page(map(_model, SETTINGS)), "record.md": record_page()}


def stale(folder: Path) -> list[str]:
    """Names of the pages in ``folder`` that are missing or not what they would be if they were made now."""
    return [
        name
        for name, text in pages().items()
        if not (folder / name).exists() or (folder / name).read_text(encoding="utf-8") != text
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check the pages; the exit status is 1 when ``--check`` found a stale one."""
    parser = argparse.ArgumentParser(prog="python -m shared.reference", description=__doc__.split("\n", 1)[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="make the pages again")
    action.add_argument("--check", action="store_true", help="say which pages are stale")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the pages are (default: docs)")
    arguments = parser.parse_args(argv)
    outdated = stale(arguments.folder)
    if arguments.check:
        for name in outdated:
            sys.stderr.write(f"{arguments.folder / name} is stale: run `make docs`\n")
        return 1 if outdated else 0
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in outdated:
        (arguments.folder / name).write_text(pages()[name], encoding="utf-8")
        sys.stdout.write(f"wrote {arguments.folder / name}\n")
    return 0


def _model(name: str) -> type[BaseModel]:
    module, _, attribute = name.partition(":")
    model: type[BaseModel] = getattr(importlib.import_module(module), attribute)
    return model


def _about(key: Key) -> str:
    text = (key.section.__doc__ or "").split("\n\n", 1)[0]
    return " ".join(text.split())


def _keys(keys: Iterable[Key], first: Mapping[type[BaseModel], tuple[str, ...]]) -> str:
    rows = [(_names(key), _default(key), _allowed(key, first), _meaning(key)) for key in keys]
    return _table(("key and variable", "default", "allowed", "what it sets"), rows)


def _names(key: Key) -> str:
    name = f"`{key.path[-1]}`"
    return name if key.slot.sections and not key.slot.optional else f"{name}<br>`{variable(key.path)}`"


def _default(key: Key) -> str:
    if key.field.is_required():
        return "required"
    if key.slot.sections and not key.slot.optional:
        return ""
    return f"`{flow(_plain(key.field.get_default(call_default_factory=True)))}`"


def _plain(value: Any) -> Any:  # noqa: ANN401 - a default of any type
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _allowed(key: Key, first: Mapping[type[BaseModel], tuple[str, ...]]) -> str:
    if key.slot.sections:
        shown = [first[section] for section in key.slot.sections if section in first]
        what = "a section" if shown else "a section without keys"
        if key.path in shown:
            what = "a section, see below"
        elif shown:
            what = f"a section with the keys of `{dotted(shown[0])}`"
        return f"{what}, or null" if key.slot.optional else what
    entries = key.slot.entries
    if entries and entries[1].sections:
        return "a map from names to sections, see below"
    return _escaped(key.slot.allowed())


def _meaning(key: Key) -> str:
    said = _escaped(key.field.description or "")
    return f"**Not yet.** {said}" if key.planned else said


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;") if "`" not in text else text.replace("|", "\\|")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
