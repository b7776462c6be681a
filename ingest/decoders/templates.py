"""What the decoders ask of whoever keeps the templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ingest.decoders.elements import Element
from ingest.decoders.fault import Fault
from ingest.decoders.layout import Layout, Template

if TYPE_CHECKING:
    from ingest.decoders.plan import Plan

KEY_BYTES: Final = 24
"""A template is kept by exporter (16 bytes), version (2), observation domain (4) and template id (2)."""

DOMAIN_BYTES: Final = 22
"""Such a key without the template id."""

UNKNOWN: Final = -1
AMBIGUOUS: Final = -2
"""Two layouts are known, since a redefinition is not yet confirmed: which one a data set has, its length tells."""


@dataclass(frozen=True, slots=True)
class Learned:
    """A template that changed what is known."""

    key: bytes
    template: Template
    number: int
    """The layout's number with whoever keeps the templates."""
    redefined: bool


class Word(NamedTuple):
    """A template as a datagram told it, with what that datagram said of its place among others."""

    key: bytes
    template: Template
    changed: bool
    """Whether it changed what is known; else it only repeats it."""
    sequence: int
    uptime_ms: int | None
    exported_ns: int
    received_ns: int


class Templates(Protocol):
    """Layouts by template key.

    A layout has a number that stays its own as long as a template refers to it, and until the end of the batch in which
    the last one did.
    """

    def numbers(self, keys: Sequence[bytes]) -> list[int]:
        """The layout's number for each key, or UNKNOWN, or AMBIGUOUS; called once a batch."""

    def candidates(self, key: bytes) -> tuple[int, ...]:
        """The numbers of all layouts known for a key, the newest first."""

    def learn(self, key: bytes, template: Template) -> Learned | Fault | None:
        """Take a template in: what changed, why it was refused, or None when it was known."""

    def contested(self, key: bytes) -> bool:
        """Whether this template was redefined lately, so that whoever tells it again has to be noted."""

    def layout(self, number: int) -> Layout:
        """The layout with this number."""

    def variants(self, source: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Which variant of a plan each exporter gets, [n, 16] addresses; 0 where nothing is mapped for it alone."""

    def plan(self, number: int, variant: int) -> Plan:
        """What turns records of this layout, from exporters of this variant, into columns; compiled when first asked."""

    def element_plan(self, version: int, element: Element, variant: int) -> Plan | None:
        """The same for a layout of this element alone, of variable length; None when it says nothing alone."""


def template_keys(
    source: npt.NDArray[np.uint8],
    version: int,
    domain: npt.NDArray[np.uint32],
    template_id: npt.NDArray[np.uint16],
) -> list[bytes]:
    """The key of each data set: ``source`` of shape [n, 16], the rest [n]."""
    keys = np.empty((len(template_id), KEY_BYTES), np.uint8)
    keys[:, :16] = source
    keys[:, 16:18] = (version >> 8, version & 0xFF)
    keys[:, 18:22] = domain.astype(">u4")[:, None].view(np.uint8)
    keys[:, 22:24] = template_id.astype(">u2")[:, None].view(np.uint8)
    flat = keys.tobytes()
    return [flat[at : at + KEY_BYTES] for at in range(0, len(flat), KEY_BYTES)]
