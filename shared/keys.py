"""What the keys of a settings model are: their paths, what is allowed there, their environment variables.

Reads nothing but the models, so that the reader of files, the error messages and the reference page all say the same.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

PREFIX: Final = "SLUICEWAY_"
SEPARATOR: Final = "__"

KeyPath = tuple[str | int, ...]
"""Names of keys from the top, and positions in lists."""


@dataclass(frozen=True, slots=True)
class Planned:
    """Marks a key that is part of the contract while what it sets is not there yet: only its default is accepted."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """Marks a path that has to be a readable file when the settings are loaded."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Says in words what a value may be, where its type does not say it."""

    text: str


PLANNED: Final = Planned()
INPUT_FILE: Final = InputFile()

_WORDS: Final[Mapping[object, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    SecretStr: "a text (a secret)",
    Path: "a path",
}


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a value: the type that the value needs, and the bounds and marks that go with it."""

    annotation: Any
    metadata: tuple[object, ...] = ()

    @classmethod
    def of(cls, field: FieldInfo) -> Slot:
        """The slot of a model's field."""
        return cls(field.annotation, tuple(field.metadata))

    @property
    def optional(self) -> bool:
        """Whether null is allowed."""
        return any(slot.annotation is types.NoneType for slot in _alternatives(self))

    @property
    def choices(self) -> tuple[Slot, ...]:
        """The types that a value may have, null aside."""
        return tuple(slot for slot in _alternatives(self) if slot.annotation is not types.NoneType)

    @property
    def sections(self) -> tuple[type[BaseModel], ...]:
        """The models that a value may be."""
        return tuple(slot.annotation for slot in self.choices if _is_section(slot.annotation))

    @property
    def items(self) -> Slot | None:
        """What the list that a value may be holds."""
        for slot in self.choices:
            if get_origin(slot.annotation) in {tuple, list, Sequence}:
                return Slot(get_args(slot.annotation)[0])
        return None

    @property
    def entries(self) -> tuple[Slot, Slot] | None:
        """Keys and values of the map that a value may be."""
        for slot in self.choices:
            if get_origin(slot.annotation) in {dict, Mapping}:
                key, value = get_args(slot.annotation)
                return Slot(key), Slot(value)
        return None

    @property
    def structured(self) -> bool:
        """Whether a value may be a section, a list or a map."""
        return bool(self.sections or self.items or self.entries)

    @property
    def secret(self) -> bool:
        """Whether a value must never be shown."""
        return any(slot.annotation is SecretStr for slot in self.choices)

    def inside(self, name: str | int) -> Slot | None:
        """The slot of the key ``name``, or of that position of a list; None where there is none."""
        if isinstance(name, int) and self.entries is None:
            return self.items
        for section in self.sections:
            for key, field in section.model_fields.items():
                if name == (field.alias or key):
                    return Slot.of(field)
        return self.entries[1] if self.entries else None

    def names(self) -> list[str]:
        """The names of the keys that may stand here."""
        return list(
            dict.fromkeys(
                field.alias or name for section in self.sections for name, field in section.model_fields.items()
            )
        )

    def allowed(self) -> str:
        """Say what may stand here, as in "true or false"."""
        said = [mark.text for mark in self.metadata if isinstance(mark, Allowed)]
        words = said[:1] or list(dict.fromkeys(slot.phrase() for slot in self.choices))
        return " or ".join([*words, "null"] if self.optional else words)

    def phrase(self) -> str:
        """Say what one of the choices is, as in "a whole number of at least 1"."""
        said = [mark.text for mark in self.metadata if isinstance(mark, Allowed)]
        if said:
            return said[0]
        values = self._values()
        if values:
            return values[0] if len(values) == 1 else f"one of {', '.join(values)}"
        if self.items:
            return f"a list, each of it {self.items.allowed()}"
        if self.entries:
            key, value = self.entries
            return f"a map from {key.allowed()} to {value.allowed()}"
        if self.sections:
            return f"a section with the keys {', '.join(self.names())}" if self.names() else "an empty section"
        return _WORDS.get(self.annotation, "a value") + self._bounds()

    def _values(self) -> list[str]:
        """The values of a closed list of them."""
        if get_origin(self.annotation) is Literal:
            return [str(value) for value in get_args(self.annotation)]
        if isinstance(self.annotation, type) and issubclass(self.annotation, Enum):
            return [str(member.value) for member in self.annotation]
        return []

    def _bounds(self) -> str:
        low = next((mark.ge for mark in self._constraints() if isinstance(mark, annotated_types.Ge)), None)
        high = next((mark.le for mark in self._constraints() if isinstance(mark, annotated_types.Le)), None)
        if low is not None and high is not None:
            return f" from {low} to {high}"
        if low is not None:
            return f" of at least {low}"
        return "" if high is None else f" of at most {high}"

    def _constraints(self) -> Iterator[object]:
        """The bounds, the later ones first; a Field inside Annotated keeps its own in its metadata."""
        for mark in reversed(self.metadata):
            if isinstance(mark, FieldInfo):
                yield from mark.metadata
            else:
                yield mark


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a model, with the section that it stands in."""

    path: tuple[str, ...]
    section: type[BaseModel]
    slot: Slot

    @property
    def field(self) -> FieldInfo:
        """The field of the section."""
        return self.section.model_fields[self.path[-1]]

    @property
    def planned(self) -> bool:
        """Whether what the key sets is not there yet."""
        return PLANNED in self.slot.metadata


def walk(section: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[Key]:
    """All keys of a model, sections before what they hold; a map's entries are named by ``<name>``."""
    for name, field in section.model_fields.items():
        slot = Slot.of(field)
        yield Key((*path, name), section, slot)
        for inner in slot.sections:
            yield from walk(inner, (*path, name))
        if slot.entries:
            for inner in slot.entries[1].sections:
                yield from walk(inner, (*path, name, "<name>"))


def variable(path: Iterable[str | int]) -> str:
    """The environment variable of a key."""
    return PREFIX + SEPARATOR.join(str(name) for name in path).upper()


def dotted(path: KeyPath) -> str:
    """A path as people write it: ``ingest.listen[0]``."""
    text = ""
    for name in path:
        if isinstance(name, int):
            text += f"[{name}]"
        elif re.fullmatch(r"[\w<>-]+", name):
            text += f".{name}" if text else name
        else:
            text += f'["{name}"]'
    return text


def nearest(name: str, known: Iterable[str], cutoff: float = 0.0) -> str | None:
    """The known name that is most like ``name``; None when none is as like as ``cutoff`` (0 to 1)."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return found[0] if found else None


_SECRET_WORDS: Final = ("password", "secret", "token", ".pem", "credential")


def sounds_secret(name: str) -> bool:
    """Whether a property of this name, of some library, is likely to be a secret."""
    return any(word in name.lower() for word in _SECRET_WORDS) and not name.endswith(("_file", ".location"))


def _is_section(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _alternatives(slot: Slot) -> Iterator[Slot]:
    """The types of a union, Annotated undone; the words of Allowed go to each of them."""
    origin = get_origin(slot.annotation)
    if origin is Annotated:
        annotation, *metadata = get_args(slot.annotation)
        yield from _alternatives(Slot(annotation, (*slot.metadata, *metadata)))
    elif origin is Union or origin is types.UnionType:
        marks = tuple(mark for mark in slot.metadata if isinstance(mark, Allowed))
        for annotation in get_args(slot.annotation):
            yield from _alternatives(Slot(annotation, marks))
    else:
        yield slot
