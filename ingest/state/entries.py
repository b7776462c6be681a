"""The entries of the topic ``flows.exporters``: what a key and a value say, written and read.

A key is ``exporter/domain/kind/id``, and of a template ``/layout hash`` behind it, so that compaction never lets one
layout delete another. A value is a small JSON object. Entries come from whoever may write to the topic: what is not as
it has to be is told as :class:`UnfitEntry`, and nothing else is raised.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

import orjson
import xxhash

from ingest.decoders.enrich import OF_A_DOMAIN, Kind
from ingest.decoders.layout import FIRST_DATA_SET, V9_SCOPE, Field, Layout, Template
from ingest.decoders.templates import DOMAIN_BYTES
from ingest.exporters import address_text
from ingest.state.order import AHEAD_MS, Order, capped
from shared.errors import SluicewayError

FORMAT: Final = 1
"""Stands in each value as ``v``."""

PROTOCOLS: Final = {9: "v9", 10: "ipfix"}
TEMPLATE: Final = "template"
TEMPLATE_KINDS: Final = {f"{TEMPLATE}-{name}": version for version, name in PROTOCOLS.items()}
ALL_DOMAINS: Final = "-"
"""Stands for the domain in keys of what an exporter told of itself as a whole."""

LAYOUTS: Final = 4096
"""Layouts that are remembered while entries are read."""

PAGE_ROWS: Final = 256
"""Rows of a table in one entry."""
MOST_PAGES: Final = 256
NAME_BYTES: Final = 1024
"""The longest name that is passed on, as JSON."""
SHORT_NAME: Final = NAME_BYTES // 6
"""Characters of a name that is no longer than that, whatever they are."""
TEMPLATE_BYTES: Final = 64 << 10
PAGE_BYTES: Final = PAGE_ROWS * (2 * NAME_BYTES + 64)
"""The longest values that are read at all."""
KEY_BYTES: Final = 512
"""The longest key. What of one is told in the log is cut to less."""

NUMBERS: Final = frozenset(
    {Kind.DOMAIN_RATE, Kind.SAMPLER_RATE, Kind.TEMPLATE_RATE, Kind.INTERFACE_RATE, Kind.BOOTED_MS}
)
"""Kinds of facts that tell a number; the others tell a name."""
TABLE_KINDS: Final[Mapping[str, tuple[Kind, int]]] = {
    kind.name.lower().replace("_", "-") + (f"-{protocol}" if kind in OF_A_DOMAIN else ""): (kind, version)
    for kind in Kind
    if kind is not Kind.CONFIGURED_SGT_NAME
    for version, protocol in (PROTOCOLS.items() if kind in OF_A_DOMAIN else [(0, "")])
}
_KIND_NAMES: Final = {of: name for name, of in TABLE_KINDS.items()}

About = int | str
Value = int | str


class Skip(StrEnum):
    """Why an entry of the topic was not taken in; a closed list."""

    NOT_OURS = "not_ours"
    """Its key is none that we write."""
    CORRUPT = "corrupt"
    """Its value is not what belongs to its key."""
    OTHER_VERSION = "other_version"
    """Its value is of another version than this program knows."""
    TOO_LARGE = "too_large"
    """Its key or value is longer than any that we write."""
    DELETED = "deleted"
    """It has no value: somebody deleted it. What is known stays known until nobody tells it any more."""
    NO_ROOM = "no_room"
    """One more than the bounds allow, of its exporter or of all."""


class UnfitEntry(SluicewayError):
    """An entry is not as it has to be; ``skip`` says in which way."""

    def __init__(self, skip: Skip, what: str) -> None:
        super().__init__(what)
        self.skip = skip


class TableKey(NamedTuple):
    """A table: one kind of facts of an exporter, and of an observation domain where the kind belongs to one, else 0."""

    kind: Kind
    source: bytes
    version: int
    domain: int


Row = tuple[About, Value, int]
"""One line of a table: about what, what is told, and when, in milliseconds by the clock of whoever heard it."""


@dataclass(frozen=True, slots=True)
class TemplateEntry:
    """A version of a template."""

    key: bytes
    template: Template
    order: Order


@dataclass(frozen=True, slots=True)
class TableEntry:
    """A page of a table."""

    table: TableKey
    page: int
    rows: tuple[Row, ...]


Entry = TemplateEntry | TableEntry
Message = tuple[bytes, bytes]
"""Key and value."""


def layout_hash(layout: Layout) -> str:
    """The name of a layout: equal for equal ones, whoever computes it."""
    return xxhash.xxh3_64_hexdigest(
        orjson.dumps([layout.version, layout.options, layout.scopes, [list(field) for field in layout.fields]])
    )


def wire_bytes(layout: Layout) -> int:
    """Bytes of a template with this layout as it comes over the wire."""
    enterprises = sum(field.enterprise not in {0, V9_SCOPE} for field in layout.fields)
    return 4 + 2 * layout.options + 4 * len(layout.fields) + 4 * enterprises


def template_entry(key: bytes, template: Template, order: Order) -> Message:
    """The message of a template."""
    layout = template.layout
    name = "/".join(
        (
            address_text(key[:16]),
            str(int.from_bytes(key[18:DOMAIN_BYTES])),
            f"{TEMPLATE}-{PROTOCOLS[layout.version]}",
            str(template.template_id),
            layout_hash(layout),
        )
    )
    value = {
        "v": FORMAT,
        "boot": order.boot_ms,
        "told": order.told_ms,
        "options": layout.options,
        "scopes": layout.scopes,
        "fields": [
            [element, length] if enterprise == 0 else [element, length, enterprise]
            for enterprise, element, length in layout.fields
        ],
    }
    return name.encode(), orjson.dumps(value)


def table_entry(table: TableKey, page: int, rows: Iterable[Row]) -> Message:
    """The message of a page of a table."""
    domain = str(table.domain) if table.kind in OF_A_DOMAIN else ALL_DOMAINS
    name = f"{address_text(table.source)}/{domain}/{_KIND_NAMES[table.kind, table.version]}/{page}"
    return name.encode(), orjson.dumps({"v": FORMAT, "rows": list(rows)})


def passed_on(table: TableKey, about: About, value: Value) -> bool:
    """Whether a row may be published: some are longer or of another kind than what we read."""
    return (table.kind, table.version) in _KIND_NAMES and _fits(table.kind, about, value)


class Layouts:
    """Layouts that were read lately: thousands of templates have the same, which then is read once and shared."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, Layout, int]] = {}

    def find(self, digest: str, version: int, value: Mapping[str, object]) -> tuple[Layout, int]:
        """The layout that a value tells, whose hash stands in its key, and its bytes on the wire; raises UnfitEntry."""
        told = (version, value.get("options"), value.get("scopes"), value.get("fields"))
        known = self._known.get(digest)
        if known is None or known[0] != told:
            layout = _layout(digest, *told)
            if len(self._known) >= LAYOUTS:
                self._known.clear()
            known = self._known[digest] = (told, layout, wire_bytes(layout))
        return known[1:]


def read(key: bytes | None, value: bytes | None, appended_ms: int, layouts: Layouts | None = None) -> Entry:
    """Read an entry that came into the topic at ``appended_ms``, by the broker's clock.

    Raises:
        UnfitEntry: it is not as it has to be.
    """
    if key is None or len(key) > KEY_BYTES:
        raise UnfitEntry(Skip.NOT_OURS if key is None else Skip.TOO_LARGE, "the key")
    try:
        parts = key.decode("ascii").split("/")
    except UnicodeDecodeError:
        raise UnfitEntry(Skip.NOT_OURS, "the key") from None
    if len(parts) == 5 and parts[2] in TEMPLATE_KINDS:
        name = _template_name(parts)
        return _template(name, parts[4], _loaded(value, TEMPLATE_BYTES), appended_ms, layouts or Layouts())
    if len(parts) == 4 and parts[2] in TABLE_KINDS:
        table, page = _table_name(parts)
        return _page(table, page, _loaded(value, PAGE_BYTES), appended_ms)
    raise UnfitEntry(Skip.NOT_OURS, "the key")


def _loaded(value: bytes | None, most: int) -> dict[str, object]:
    if value is None:
        raise UnfitEntry(Skip.DELETED, "there is no value")
    if len(value) > most:
        raise UnfitEntry(Skip.TOO_LARGE, "the value")
    try:
        loaded = orjson.loads(value)
    except orjson.JSONDecodeError:
        raise UnfitEntry(Skip.CORRUPT, "the value is no JSON") from None
    if not isinstance(loaded, dict):
        raise UnfitEntry(Skip.CORRUPT, "the value is no object")
    if loaded.get("v") != FORMAT:
        raise UnfitEntry(Skip.OTHER_VERSION if isinstance(loaded.get("v"), int) else Skip.CORRUPT, "v")
    return loaded


def _template_name(parts: list[str]) -> bytes:
    version = TEMPLATE_KINDS[parts[2]]
    source, domain = _address(parts[0]), _number(parts[1], 0, 2**32 - 1)
    template_id = _number(parts[3], FIRST_DATA_SET, 2**16 - 1)
    return source + version.to_bytes(2) + domain.to_bytes(4) + template_id.to_bytes(2)


def _table_name(parts: list[str]) -> tuple[TableKey, int]:
    kind, version = TABLE_KINDS[parts[2]]
    source, page = _address(parts[0]), _number(parts[3], 0, MOST_PAGES - 1)
    if kind in OF_A_DOMAIN:
        return TableKey(kind, source, version, _number(parts[1], 0, 2**32 - 1)), page
    if parts[1] != ALL_DOMAINS:
        raise UnfitEntry(Skip.NOT_OURS, "the key")
    return TableKey(kind, source, 0, 0), page


def _template(key: bytes, digest: str, value: dict[str, object], appended_ms: int, layouts: Layouts) -> TemplateEntry:
    layout, size = layouts.find(digest, int.from_bytes(key[16:18]), value)
    order = Order(_time(value.get("boot")), _time(value.get("told")))
    template = Template(int.from_bytes(key[DOMAIN_BYTES:]), layout, size)
    return TemplateEntry(key, template, capped(order, appended_ms))


def _layout(digest: str, version: int, options: object, scopes: object, fields: object) -> Layout:
    if not isinstance(options, bool) or not _whole(scopes, 2**16 if options else 1):
        raise UnfitEntry(Skip.CORRUPT, "options or scopes")
    assert isinstance(scopes, int)
    layout = Layout(version, _fields(fields, version, scopes), options, scopes)
    if layout.shortest_record == 0:
        raise UnfitEntry(Skip.CORRUPT, "its records are empty")
    if layout_hash(layout) != digest:
        raise UnfitEntry(Skip.CORRUPT, "the hash in the key is of another layout")
    return layout


def _fields(told: object, version: int, scopes: int) -> tuple[Field, ...]:
    if not isinstance(told, list) or scopes > len(told):
        raise UnfitEntry(Skip.CORRUPT, "fields")
    fields = []
    for place, one in enumerate(told):
        if not isinstance(one, list) or len(one) not in {2, 3} or not all(_whole(number, 2**33) for number in one):
            raise UnfitEntry(Skip.CORRUPT, "a field")
        element, length, *rest = one
        enterprise = rest[0] if rest else 0
        scope = version == 9 and place < scopes
        sane = enterprise == V9_SCOPE if scope else enterprise == 0 if version == 9 else enterprise < V9_SCOPE
        if not sane or element >= (2**16 if version == 9 else 2**15) or length >= 2**16:
            raise UnfitEntry(Skip.CORRUPT, "a field")
        fields.append(Field(enterprise, element, length))
    return tuple(fields)


def _page(table: TableKey, page: int, value: dict[str, object], appended_ms: int) -> TableEntry:
    told = value.get("rows")
    if not isinstance(told, list) or len(told) > PAGE_ROWS:
        raise UnfitEntry(Skip.CORRUPT, "rows")
    if not all(type(one) is list and len(one) == 3 for one in told):
        raise UnfitEntry(Skip.CORRUPT, "a row")
    if not told:
        return TableEntry(table, page, ())
    # By the column: there may be millions of rows to read before an instance is ready.
    about, values, times = zip(*told, strict=True)
    if not (_all_fit(table.kind, about, values) and _all_whole(times, 2**63)) or len(set(about)) < len(about):
        raise UnfitEntry(Skip.CORRUPT, "a row")
    latest_ms = appended_ms + AHEAD_MS
    if max(times) > latest_ms:
        times = tuple(min(one, latest_ms) for one in times)
    return TableEntry(table, page, tuple(zip(about, values, times, strict=True)))


def _all_fit(kind: Kind, about: Sequence[object], values: Sequence[object]) -> bool:
    """Whether all rows are such as a table of this kind may have."""
    if kind is Kind.APPLICATION_NAME or kind in NUMBERS or not _all_short(values):
        return all(_fits(kind, *row) for row in zip(about, values, strict=True))
    return _all_whole(about, 2**64)


def _all_short(values: Sequence[object]) -> bool:
    """Whether all of these are texts that are not too long for a name, however they are written."""
    return set(map(type, values)) == {str} and max(map(len, values)) <= SHORT_NAME  # type: ignore[arg-type]  # all are texts


def _all_whole(values: Sequence[object], limit: int) -> bool:
    """Whether all of these are whole numbers from 0 to below the limit."""
    return set(map(type, values)) == {int} and min(values) >= 0 and max(values) < limit  # type: ignore[type-var, operator]  # all are numbers


def _fits(kind: Kind, about: object, value: object) -> bool:
    """Whether a row is one that a table of this kind may have."""
    if kind is Kind.APPLICATION_NAME:
        if not _name(about):
            return False
    elif not _whole(about, 2**64):
        return False
    if kind is Kind.BOOTED_MS:
        return _whole(value, 2**62)
    if kind in NUMBERS:
        return _whole(value, 2**32) and value != 0
    return _name(value)


def _name(value: object) -> bool:
    """Whether this is a text that takes no more bytes in JSON than a name may; what UTF-8 cannot write is none."""
    try:
        return isinstance(value, str) and len(orjson.dumps(value)) - 2 <= NAME_BYTES
    except orjson.JSONEncodeError:
        return False


def _whole(value: object, limit: int) -> bool:
    """Whether this is a whole number from 0 to below the limit."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit


def _time(value: object) -> int:
    if not _whole(value, 2**63):
        raise UnfitEntry(Skip.CORRUPT, "a time")
    assert isinstance(value, int)
    return value


def _number(text: str, least: int, most: int) -> int:
    """A number of a key, written in the one way that we write it."""
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or str(int(text)) != text:
        raise UnfitEntry(Skip.NOT_OURS, "the key")
    number = int(text)
    if not least <= number <= most:
        raise UnfitEntry(Skip.NOT_OURS, "the key")
    return number


def _address(text: str) -> bytes:
    """An address of a key as 16 bytes, written in the one way that we write it."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise UnfitEntry(Skip.NOT_OURS, "the key") from None
    octets = bytes(10) + b"\xff\xff" + address.packed if address.version == 4 else address.packed
    if address_text(octets) != text:
        raise UnfitEntry(Skip.NOT_OURS, "the key")
    return octets
