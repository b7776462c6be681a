"""What is wrong with settings, in sentences: where it is written, which key, and what is allowed there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from shared.keys import INPUT_FILE, KeyPath, Slot, dotted, nearest, sounds_secret, walk
from shared.sources import STAGES

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from shared.sources import Origin, Written


def unreadable(section: BaseModel, path: KeyPath, written: Written) -> Iterator[str]:
    """Name the input files that cannot be opened, before the work begins and trips over one."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from unreadable(value, (*path, name), written)
        elif INPUT_FILE in field.metadata and value is not None:
            try:
                with Path(value).open("rb"):
                    pass
            except (OSError, ValueError) as error:
                yield _fault((*path, name), f"{value} cannot be read: {os_reason(error)}", written)


def os_reason(error: OSError | ValueError) -> str:
    """Why a file cannot be read as text, in a few words."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _fault(path: KeyPath, text: str, written: Written) -> str:
    origin = written.origin(path)
    return ": ".join(part for part in (str(origin or ""), dotted(path), text) if part)


def explain(error: ValidationError, model: type[BaseModel], written: Written) -> list[str]:
    """Say each fault in a line of its own, in the order of the file."""
    faults: dict[KeyPath, str] = {}
    for details in error.errors(include_url=False):
        path, slot = _place(details, Slot(model))
        if path not in faults:  # else another alternative of the same value
            faults[path] = _fault(path, _say(details, path, slot, model), written)
    return [faults[path] for path in sorted(faults, key=lambda path: _line(written.origin(path)))]


def _line(origin: Origin | None) -> tuple[str, int]:
    return (origin.name, origin.line or 0) if origin else ("", 0)


def _place(details: ErrorDetails, slot: Slot) -> tuple[KeyPath, Slot]:
    """The path of a fault and what may stand there; pydantic adds names of types to it, which are no keys."""
    path: KeyPath = ()
    around = slot
    for name in details["loc"]:
        if name == "[key]" and around.entries:
            return path, around.entries[0]
        inner = slot.inside(name)
        if inner is None and details["type"] != "extra_forbidden":
            break
        # The file has the keys of a map as text, whatever they are read as.
        path = (*path, name if slot.items else str(name))
        around, slot = slot, inner or slot
    return path, slot


def _say(details: ErrorDetails, path: KeyPath, slot: Slot, model: type[BaseModel]) -> str:
    kind, value = details["type"], details["input"]
    if kind == "extra_forbidden":
        return _unknown(str(path[-1]), path[:-1], slot, model)
    if kind == "missing":
        return f"is missing, and has no default; it needs {slot.allowed()}"
    if kind == "too_short":
        return "is empty; it needs at least one entry"
    hidden = slot.secret or (len(path) > 1 and sounds_secret(str(path[-1])))
    shown = f"{_shown(value)} "
    if hidden or isinstance(value, Mapping | BaseModel):
        shown = ""
    if kind == "value_error":
        return shown + details["msg"].removeprefix("Value error, ")
    if kind == "planned":
        return details["msg"]
    if slot.sections or isinstance(value, list | Mapping):
        shown = f"a {'map' if isinstance(value, Mapping) else type(value).__name__} "
    return f"{shown}is not allowed here; it needs {slot.allowed()}".strip()


def _shown(value: object) -> str:
    """A value as YAML has it, as far as a line has room for it."""
    return json.dumps(value, default=str, ensure_ascii=False)[:80]


def _unknown(name: str, around: KeyPath, slot: Slot, model: type[BaseModel]) -> str:
    known = slot.names()
    if not around and set(STAGES) & set(known):
        # The other stage's section may stand there too; other files than the settings have neither.
        known = [*dict.fromkeys([*known, *STAGES])]
    near = nearest(name, known, cutoff=0.6)
    if near is None:
        elsewhere = [key.path for key in walk(model) if key.path[-1] == name]
        if elsewhere:
            return f"unknown key; the nearest known one is {dotted(elsewhere[0])}"
    if not known:
        return f"unknown key; {dotted(around)} has no keys yet"
    near = near or nearest(name, known)
    all_known = f" (known here: {', '.join(known)})"
    return f"unknown key; the nearest known one is {dotted((*around, near or known[0]))}{all_known}"
