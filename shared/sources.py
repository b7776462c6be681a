"""Where settings are written: a YAML file and the environment, put together into one tree that is not yet checked.

Each value keeps its :class:`Origin`, so that an error and ``check-config`` can say where it came from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel

from shared.errors import ConfigError
from shared.keys import PREFIX, SEPARATOR, KeyPath, Slot, dotted, nearest, variable, walk

FILE_VARIABLE: Final = "SLUICEWAY_CONFIG"
DEFAULT_FILE: Final = "sluiceway.yaml"
STAGES: Final = ("ingest", "forwarder")
"""Sections that belong to one stage; the other stage leaves their content alone."""

_KEYS: Final = frozenset({"tag:yaml.org,2002:str"})
_NUMBER_KEYS: Final = frozenset({"tag:yaml.org,2002:int"})

_FLAGS: Final[Mapping[str, bool]] = {
    "true": True, "yes": True, "on": True, "1": True,
    "false": False, "no": False, "off": False, "0": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Origin:
    """The line of a file, or the environment variable, that a value was written in."""

    name: str
    line: int | None = None

    def __str__(self) -> str:
        return self.name if self.line is None else f"{self.name}:{self.line}"


@dataclass(slots=True)
class Written:
    """What was written: ``tree`` as YAML has it, and where each of its values came from."""

    file: Path | None = None
    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, Origin] = field(default_factory=dict)

    def origin(self, path: KeyPath) -> Origin | None:
        """Where the value at ``path`` was written, or else the nearest section around it, or a part of that."""
        for end in range(len(path), 0, -1):
            around = path[:end]
            if around in self.origins:
                return self.origins[around]
            for known, origin in self.origins.items():
                if known[:end] == around:
                    return origin
        return Origin(str(self.file)) if self.file else None

    def forget(self, path: KeyPath) -> None:
        """Drop the origins of ``path`` and of all that it holds."""
        for known in [known for known in self.origins if known[: len(path)] == path]:
            del self.origins[known]

    def note(self, path: KeyPath, value: object, origin: Origin) -> None:
        """Say that ``value`` and all that it holds came from ``origin``."""
        self.origins[path] = origin
        if isinstance(value, Mapping):
            for name, inner in value.items():
                self.note((*path, str(name)), inner, origin)
        elif isinstance(value, list):
            for position, inner in enumerate(value):
                self.note((*path, position), inner, origin)


def read(model: type[BaseModel], section: str, path: Path | None, environ: Mapping[str, str]) -> Written:
    """Put together what the file and the environment say to the stage whose section is ``section``.

    The file is ``path``, else what ``SLUICEWAY_CONFIG`` names, else ``sluiceway.yaml`` where there is one.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or a variable is not the name of any key.
    """
    file = _find(path, environ)
    written = Written() if file is None else read_file(file)
    for stage in STAGES:
        if stage != section and stage not in model.model_fields:
            written.tree.pop(stage, None)
            written.forget((stage,))
    root = Slot(model)
    _drop_empty_sections(written.tree, root)
    faults: list[str] = []
    for name in sorted(environ, key=lambda name: (name.count(SEPARATOR), name)):
        if _is_ours(name, root):
            fault = _override(written, root, name, environ[name])
            if fault:
                faults.append(f"{name}: {fault}")
    if faults:
        raise ConfigError("\n".join(faults))
    return written


def _find(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    if path is not None:
        return path
    named = environ.get(FILE_VARIABLE)
    if named:
        return Path(named)
    usual = Path(DEFAULT_FILE)
    return usual if usual.exists() else None


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a date stays the text that it is."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML wants it on the class
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_file(path: Path, *, numbers_as_keys: bool = False, list_as: str | None = None) -> Written:
    """Read a YAML file of sections, with the line of every value.

    With ``list_as`` the file holds a list instead, which becomes the section of that name.

    Raises:
        ConfigError: it cannot be read, or is no YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such configuration file") from None
    except OSError as error:
        raise ConfigError(f"{path}: the configuration file cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: the configuration file is not UTF-8 text") from None
    written = Written(path)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return written
        around = () if list_as is None else (list_as,)
        _locate(node, around, written, (), _KEYS | _NUMBER_KEYS if numbers_as_keys else _KEYS)
        tree = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        column = f" (column {mark.column + 1})" if mark else ""
        raise ConfigError(f"{place}: not valid YAML: {error.problem or error.context}{column}") from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:
        # Beside its own errors PyYAML lets through what Python says to a value that does not fit its tag.
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{path}: not usable: lists and maps are nested too deep") from None
    if list_as is not None:
        if not isinstance(tree, list):
            raise ConfigError(f"{path}:{node.start_mark.line + 1}: the file has to hold a list, each entry after a `-`")
        tree = {list_as: tree}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}:{node.start_mark.line + 1}: the file has to hold sections such as `kafka:`")
    written.tree = tree
    return written


def _locate(
    node: yaml.Node, path: KeyPath, written: Written, around: tuple[yaml.Node, ...], keys: frozenset[str]
) -> None:
    """Note the line of every value below ``node``; refuse keys that stand twice or are no text.

    Raises:
        ConfigError: such a key was found.
    """
    if node in around:
        raise ConfigError(f"{written.file}:{node.start_mark.line + 1}: {dotted(path)} holds itself")
    around = (*around, node)
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            written.origins[*path, position] = Origin(str(written.file), item.start_mark.line + 1)
            _locate(item, (*path, position), written, around, keys)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.tag == "tag:yaml.org,2002:merge":
            _locate(value, path, written, around, keys)
            continue
        if key.tag not in keys:
            shown = key.value if isinstance(key, yaml.ScalarNode) else "of a list or map"
            raise ConfigError(
                f"{written.file}:{line}: the key {shown} under {dotted(path) or 'the top'} is no text to YAML: put it in quotes"
            )
        inner = (*path, key.value)
        if key.value in seen:
            raise ConfigError(
                f"{written.file}:{line}: {dotted(inner)} stands in line {seen[key.value]} already: keep one"
            )
        seen[key.value] = line
        written.origins[inner] = Origin(str(written.file), line)
        _locate(value, inner, written, around, keys)


def _drop_empty_sections(tree: dict[str, Any], slot: Slot) -> None:
    """Take a section of which nothing is left but its name as one that is not there."""
    for name, value in list(tree.items()):
        inner = slot.inside(name)
        if inner is None:
            continue
        if value is None and inner.sections and not inner.optional:
            del tree[name]
        elif isinstance(value, dict):
            _drop_empty_sections(value, inner)


def _is_ours(name: str, root: Slot) -> bool:
    """Whether a variable is meant for us.

    Kubernetes sets SLUICEWAY_INGEST_PORT and the like in every pod, so a name without a double underscore counts only
    when it is exactly that of a key at the top.
    """
    if not name.startswith(PREFIX) or name == FILE_VARIABLE:
        return False
    first, _, _ = name.removeprefix(PREFIX).lower().partition(SEPARATOR)
    here = root.inside(first)
    if SEPARATOR not in name:
        return here is not None and not here.structured
    return here is not None or first not in STAGES


def _override(written: Written, root: Slot, name: str, text: str) -> str | None:
    """Put one variable's value into the tree; answer what is wrong with it, if anything is."""
    tree: dict[str, Any] = written.tree
    slot = root
    path: tuple[str, ...] = ()
    names = name.removeprefix(PREFIX).lower().split(SEPARATOR)
    for position, part in enumerate(names):
        inner = _key(tree, slot, part)
        below = slot.inside(inner)
        if below is None:
            return _unknown(root, name, path, slot, names[position:])
        path, slot = (*path, inner), below
        if position == len(names) - 1:
            break
        if not (slot.sections or slot.entries):
            return f"not the name of any key; the nearest is {variable(path)}"
        if tree.get(inner) is None:
            tree[inner] = _default_entries(root, path)
        if not isinstance(tree[inner], dict):
            return None  # what the file says here is wrong, and the check of the whole tree tells it
        tree = tree[inner]
    try:
        value = _parse(slot, text)
    except ValueError as error:
        return f"{dotted(path)}: {error}"
    written.forget(path)
    if value is None and slot.sections and not slot.optional:
        tree.pop(path[-1], None)
        return None
    tree[path[-1]] = value
    written.note(path, value, Origin(name))
    return None


def _key(tree: Mapping[str, Any], slot: Slot, part: str) -> str:
    """The key that a part of a variable's name means; a map's keys may hold capitals and dashes, a variable's not."""
    if slot.entries:
        for known in tree:
            if known.lower().replace("-", "_") == part.replace("-", "_"):
                return known
    return part


def _default_entries(root: Slot, path: KeyPath) -> dict[str, Any]:
    """What a map holds before the first entry is overridden: its default; a section begins with nothing."""
    *around, last = path
    slot: Slot | None = root
    for name in around:
        slot = slot.inside(name) if slot else None
    for section in slot.sections if slot else ():
        default = section.model_fields[str(last)].get_default(call_default_factory=True)
        if isinstance(default, Mapping):
            return {
                name: value.model_dump(mode="json", exclude_unset=True) if isinstance(value, BaseModel) else value
                for name, value in default.items()
            }
    return {}


def _unknown(root: Slot, name: str, path: KeyPath, slot: Slot, rest: list[str]) -> str:
    """Name the variable that is most like ``name``, of which ``path`` is known to be right, and ``rest`` is not."""
    # At the top, a section may be the other stage's, whose keys we do not know.
    here = slot.names() if path else [*dict.fromkeys([*slot.names(), *STAGES])]
    near = nearest(rest[0], here, cutoff=0.6)
    if near is not None:
        like = variable([*path, near, *rest[1:]])
    else:
        keys = [key for section in root.sections for key in walk(section)]
        like = str(nearest(name, [variable(key.path) for key in keys if len(key.path) > 1 or not key.slot.structured]))
    return f"not the name of any key; the nearest is {like}"


def _parse(slot: Slot, text: str) -> object:
    """Turn a variable's text into what YAML would have made of it.

    Raises:
        ValueError: JSON is needed here, and the text is none.
    """
    if slot.optional and text in {"", "null"}:
        return None
    kinds = {choice.annotation for choice in slot.choices}
    if slot.structured:
        try:
            value = json.loads(text)
        except ValueError as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "it cannot be read"
            raise ValueError(f"needs JSON for {slot.allowed()}, and this is none: {reason}") from None
        return value
    if bool in kinds and text.lower() in _FLAGS and str not in kinds:
        return _FLAGS[text.lower()]
    if kinds & {int, float} and str not in kinds:
        return next(_numbers(text), text)
    return text


def _numbers(text: str) -> Iterator[int | float]:
    for kind in (int, float):
        try:
            yield kind(text)
        except ValueError:
            continue
