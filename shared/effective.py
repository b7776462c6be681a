"""The settings in effect, as a person reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import yaml
from pydantic import BaseModel, SecretStr

from shared.config import Loaded, Section
from shared.keys import KeyPath, sounds_secret

if TYPE_CHECKING:
    from shared.sources import Written

MASK: Final = "********"


def effective(loaded: Loaded[Any]) -> str:
    """The settings as YAML, each with where it came from; secrets are masked, or left out beside their file."""
    settings, written = loaded.settings, loaded.written
    lines = list(_lines(settings, settings.model_dump(mode="json"), (), written))
    width = max((len(text) for text, origin in lines if origin and len(text) <= 64), default=0)
    return "".join(f"{text:<{width}}  # {origin}\n" if origin else f"{text}\n" for text, origin in lines)


def _lines(value: object, dumped: Mapping[str, Any], path: KeyPath, written: Written) -> Iterator[tuple[str, str]]:
    indent = "  " * len(path)
    for name, plain in dumped.items():
        here = (*path, name)
        inner = value[name] if isinstance(value, Mapping) else getattr(value, name)
        if isinstance(value, Section) and name in value.secrets() and getattr(value, f"{name}_file") is not None:
            continue
        if isinstance(plain, dict) and plain:
            keyed = inner if isinstance(inner, BaseModel) else dict(zip(plain, inner.values(), strict=True))
            yield f"{indent}{flow(name)}:", ""
            yield from _lines(keyed, plain, here, written)
            continue
        masked = plain is not None and (isinstance(inner, SecretStr) or sounds_secret(name))
        origin = written.origin(here) if isinstance(value, Mapping) else written.origins.get(here)
        yield f"{indent}{flow(name)}: {flow(MASK if masked else plain)}", str(origin or "default")


def flow(value: object) -> str:
    """A value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**9)
    return text.removesuffix("\n").removesuffix("\n...")
