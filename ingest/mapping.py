"""The mapping file: further elements to columns, and names of security groups. Profiles are files of the same form."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, Strict, ValidationError, model_validator

from ingest.decoders.mapping import MAPPABLE, As, Beside, FieldMapping, MappedField
from shared.config import Network, Section
from shared.errors import ConfigError
from shared.explain import explain
from shared.keys import Allowed, nearest
from shared.sources import Written, read_file

PROFILES: Final = Path(__file__).parent / "profiles"
DEFAULT_PROFILES: Final = ("cisco-sgt", "cisco-avc", "cisco-nsel", "palo-alto")
"""The profiles that are on when the file does not name any."""

Model = TypeVar("Model", bound=Section)

VERSIONS: Final = {"v9": 9, "ipfix": 10}
ENTERPRISE_BIT: Final = 0x8000

Number = Annotated[int, Strict(), Field(ge=1, le=65535)]
Enterprise = Annotated[int, Strict(), Field(ge=0, le=2**32 - 1)]
Tag = Annotated[int, Field(ge=0, le=65535), Allowed("a security group tag, from 0 to 65535")]


def _column(name: str) -> str:
    if name not in MAPPABLE:
        near = nearest(name, MAPPABLE)
        raise ValueError(
            f"is no column that fields can be mapped to; the nearest is {near} (all: {', '.join(MAPPABLE)})"
        )
    return name


Column = Annotated[str, AfterValidator(_column), Allowed("one of " + ", ".join(MAPPABLE))]


class BesideConfig(Section):
    """Another element that has to stand in the same template."""

    element: Number = Field(description="number of the element")
    enterprise: Enterprise = Field(default=0, description="enterprise number of the element; 0 is IANA's registry")
    length: Number | None = Field(default=None, description="length that it has to have, in bytes")


class FieldConfig(Section):
    """One element, and the column or the name in ``extra`` that its value goes to."""

    protocol: Literal["v9", "ipfix"] = Field(description="protocol whose templates have the element")
    element: Number = Field(description="number of the element, in IPFIX without the enterprise bit")
    enterprise: Enterprise = Field(default=0, description="enterprise number, in IPFIX alone; 0 is IANA's registry")
    column: Column | None = Field(default=None, description="column of the record")
    extra: Annotated[str, Field(min_length=1, max_length=64), Allowed("a name of 1 to 64 characters")] | None = Field(
        default=None, description="name in the column `extra`, for what has no column"
    )
    written_as: As | None = Field(
        default=None, alias="as", description="how the value is written in `extra`; `utf8` when it is left out"
    )
    length: Number | None = Field(default=None, description="only where the template gives the element this many bytes")
    beside: BesideConfig | None = Field(default=None, description="only where this element stands in the template too")
    exporters: tuple[Network, ...] = Field(default=(), description="only for these exporters; for all when left out")

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if (self.column is None) == (self.extra is None):
            raise ValueError("needs either `column` or `extra`, and not both")
        if self.written_as is not None and self.extra is None:
            raise ValueError("`as` goes with `extra`: a column has a type of its own")
        if self.protocol == "v9" and self.enterprise:
            raise ValueError("NetFlow v9 has no enterprise numbers: give the element's number as the template has it")
        if self.protocol == "ipfix" and self.element >= ENTERPRISE_BIT:
            raise ValueError(
                "an element of IPFIX is below 32768: the upper bit says that an enterprise number follows;"
                f" give `element: {self.element - ENTERPRISE_BIT}` with `enterprise`"
            )
        return self


def profile_names() -> list[str]:
    """The profiles that come with the product."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def _profile_name(name: str) -> str:
    names = profile_names()
    if name not in names:
        raise ValueError(f"is no profile; the nearest is {nearest(name, names)} (all: {', '.join(names)})")
    return name


Profile = Annotated[str, AfterValidator(_profile_name)]


class MappingFile(Section):
    """What a mapping file may hold."""

    fields: tuple[FieldConfig, ...] = Field(default=(), description="further elements and where they go")
    sgt_names: dict[Tag, str] = Field(
        default_factory=dict, description="names of security groups that neither records nor exporters tell"
    )
    sgt_names_file: Path | None = Field(
        default=None,
        description="file with more of these names, a YAML map from tag to name; read again when it changes",
    )
    profiles: tuple[Profile, ...] = Field(
        default=DEFAULT_PROFILES,
        description="sets of fields that come with the product; a field of the file goes first",
    )


class NamesFile(Section):
    """What a file of security group names holds."""

    sgt_names: dict[Tag, str] = Field(default_factory=dict, description="names of security groups by tag")


def load_mapping(path: Path | None) -> FieldMapping:
    """Read a mapping file, or what holds without one.

    Raises:
        ConfigError: the file is not as it has to be; every fault is told with its line, one a line.
    """
    file = MappingFile() if path is None else _read(path)
    fields = [*map(_mapped, file.fields)]
    for name in file.profiles:
        fields.extend(replace(one, fallback=True) for one in _profile(name))
    more = {} if file.sgt_names_file is None else _read_names(file.sgt_names_file, path)
    return FieldMapping(tuple(fields), {**more, **file.sgt_names})


def names_file(path: Path | None) -> Path | None:
    """The file of security group names that a mapping file points to.

    Raises:
        ConfigError: the mapping file is not as it has to be.
    """
    return None if path is None else _read(path).sgt_names_file


@cache
def _profile(name: str) -> tuple[MappedField, ...]:
    # The profiles are part of the program: their content does not change while it runs.
    return tuple(map(_mapped, _read(PROFILES / f"{name}.yaml").fields))


def _read(path: Path) -> MappingFile:
    return _validated(MappingFile, read_file(path, numbers_as_keys=True))


def _read_names(path: Path, named_by: Path | None) -> dict[int, str]:
    try:
        written = read_file(path, numbers_as_keys=True)
    except ConfigError as error:
        raise ConfigError(f"{error} (it is the sgt_names_file of {named_by})") from None
    written.tree = {"sgt_names": written.tree}
    written.origins = {("sgt_names", *place): origin for place, origin in written.origins.items()}
    return _validated(NamesFile, written).sgt_names


def _validated(model: type[Model], written: Written) -> Model:
    try:
        return model.model_validate(written.tree)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(error, model, written))) from None


def _mapped(one: FieldConfig) -> MappedField:
    beside = one.beside
    return MappedField(
        version=VERSIONS[one.protocol],
        element=(one.enterprise, one.element),
        column=one.column,
        extra=one.extra,
        written_as=one.written_as or As.UTF8,
        length=one.length,
        beside=None if beside is None else Beside((beside.enterprise, beside.element), beside.length),
        networks=one.exporters,
    )
