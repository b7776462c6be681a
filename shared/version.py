"""Which version of Sluiceway this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final


def _version() -> str:
    try:
        return version("sluiceway")
    except PackageNotFoundError:
        return "0+unknown"  # run from a checkout that was not installed


VERSION: Final = _version()
"""As the package's metadata say it."""
