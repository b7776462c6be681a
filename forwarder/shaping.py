"""What is delivered of a batch: what is left of its records when those that were delivered before are taken out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from forwarder.assembly import Decoded
from forwarder.shape import Shape


@dataclass(frozen=True, slots=True)
class Shaped:
    """What is delivered of a batch, and what is not."""

    table: pa.Table


class Shaper:
    """Shapes the batches of one partition, one after the other, by any of the shapes that its course has ahead."""

    def __init__(self, shapes: Sequence[Shape]) -> None:
        self._shapes = shapes

    def remember(self, decoded: Decoded) -> None:
        """Take in what was delivered before; it comes before the first batch."""

    def shape(self, shape: Shape, decoded: Decoded) -> Shaped:
        """Return what is to be delivered of the next batch."""
        return Shaped(decoded.table)
