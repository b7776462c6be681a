"""The exporters file: names of exporters and of their interfaces, and where these lead."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, ValidationError

from ingest.known_exporters import Boundary, KnownExporter, KnownExporters, KnownInterface, mapped
from shared.config import Network, Section
from shared.errors import ConfigError
from shared.explain import explain
from shared.keys import Allowed
from shared.sources import Written, read_file

MOST_BYTES: Final = 16 << 20
MOST_EXPORTERS: Final = 10_000
MOST_INTERFACES: Final = 50_000

LIST: Final = "exporters"
"""What the list is called in messages."""

Name = Annotated[str, Field(min_length=1, max_length=255), Allowed("a text of 1 to 255 characters")]
IfIndex = Annotated[int, Field(ge=0, le=2**32 - 1), Allowed("an ifIndex, from 0 to 4294967295")]


class InterfaceConfig(Section):
    """An interface of an exporter."""

    name: Name | None = Field(default=None, description="name of the interface, before what the exporter says")
    boundary: Boundary | None = Field(default=None, description="whether it leads out of the own network")


class ExporterConfig(Section):
    """One exporter, or all in a network."""

    match: Network = Field(description="address or network of the exporters; the longest match is all that counts")
    name: Name | None = Field(default=None, description="name of the exporter")
    interfaces: dict[IfIndex, InterfaceConfig] = Field(default_factory=dict, description="interfaces by ifIndex")


class ExportersFile(Section):
    """What an exporters file holds."""

    exporters: tuple[ExporterConfig, ...] = Field(default=(), description="exporters, in any order")


def load_exporters(path: Path | None) -> KnownExporters:
    """Read an exporters file; without one nothing is known.

    Raises:
        ConfigError: the file is not as it has to be; every fault is told with its line, one a line.
    """
    if path is None:
        return KnownExporters()
    try:
        written = _written(path)
    except ConfigError as error:
        raise ConfigError(f"{error} (it is the exporters_file)") from None
    try:
        file = ExportersFile.model_validate(written.tree)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(error, ExportersFile, written))) from None
    _require_distinct(file, written)
    return KnownExporters([_known(one) for one in file.exporters])


def _written(path: Path) -> Written:
    """What the file says, when that is not too much."""
    try:
        size = path.stat().st_size
    except OSError:
        size = 0  # told by what reads it
    if size > MOST_BYTES:
        raise ConfigError(f"{path}: has {size} bytes, and {MOST_BYTES} are the most that is read")
    written = read_file(path, numbers_as_keys=True, list_as=LIST)
    entries = written.tree.get(LIST, [])
    if len(entries) > MOST_EXPORTERS:
        raise ConfigError(
            f"{path}: has {len(entries)} entries, and {MOST_EXPORTERS} are the most: match networks where exporters"
            " have the same interfaces"
        )
    held = [one.get("interfaces") for one in entries if isinstance(one, dict)]
    interfaces = sum(len(one) for one in held if isinstance(one, dict))
    if interfaces > MOST_INTERFACES:
        raise ConfigError(
            f"{path}: has {interfaces} interfaces, and {MOST_INTERFACES} are the most: leave out those whose names"
            " devices tell by options data"
        )
    return written


def _require_distinct(file: ExportersFile, written: Written) -> None:
    seen: dict[tuple[int, int], int] = {}
    faults = []
    for at, one in enumerate(file.exporters):
        before = seen.setdefault(mapped(one.match), at)
        if before != at:
            here, there = (written.origin((LIST, number, "match")) for number in (at, before))
            faults.append(f"{here}: {LIST}[{at}].match: {one.match} stands in {there} already: keep one")
    if faults:
        raise ConfigError("\n".join(faults))


def _known(one: ExporterConfig) -> KnownExporter:
    interfaces = {index: KnownInterface(told.name, told.boundary) for index, told in one.interfaces.items()}
    return KnownExporter(one.match, one.name, interfaces)
