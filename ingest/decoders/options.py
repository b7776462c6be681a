"""Options data as columns: what a device tells of itself. Never flows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.decoders import columns
from ingest.decoders.fields import Fields
from ingest.decoders.layout import V9_SCOPE, VARIABLE, Layout
from ingest.decoders.origin import Origin
from ingest.decoders.values import applications
from shared.record import ADDRESS, TIME

APPLICATION_ID: Final = (0, 95)
SAMPLING_PROBABILITY: Final = (0, 311)

TEXT_ELEMENTS: Final = frozenset(
    {(0, element) for element in (82, 83, 84, 94, 96, 147, 236, 335, 340, 341, 372, 373, 374, 34002, 34003)}
    | {(9, element) for element in (1234, 1235, 34002, 34003)}
)
"""Elements of options data that are strings; others are numbers up to 8 bytes, and octets beyond."""


def column_name(layout: Layout, at: int) -> str:
    """The column of a field: ``0:34`` by enterprise and element, ``scope 0:149``, and ``scope v9:1`` by scope type."""
    field = layout.fields[at]
    scope = "scope " if at < layout.scopes else ""
    enterprise = "v9" if field.enterprise == V9_SCOPE else str(field.enterprise)
    return f"{scope}{enterprise}:{field.element}"


@dataclass(frozen=True, slots=True, eq=False)
class OptionsData:
    """Options records of one layout."""

    layout: Layout
    batch: pa.RecordBatch
    """A column a field, named by :func:`column_name`, beside who sent them and when."""
    hashes: npt.NDArray[np.uint64] | None = None
    """Of the bytes of each record; None where records differ in length."""


def decode_options(layout: Layout, fields: Fields, origin: Origin) -> OptionsData:
    """Options records of one layout: a column a field, beside who sent them and when."""
    made: dict[str, pa.Array] = {
        "sampler_address": columns.primitive(origin.source, ADDRESS),
        "observation_domain_id": columns.primitive(origin.domain, pa.uint32()),
        "time_received": columns.primitive(origin.received_ns, TIME),
    }
    for at, field in enumerate(layout.fields):
        if field.length == 0:
            continue
        if (field.enterprise, field.element) == APPLICATION_ID:
            made[column_name(layout, at)] = applications(fields, at)
        elif (field.enterprise, field.element) == SAMPLING_PROBABILITY and field.length in {4, 8}:
            share = fields.octets(at, field.length)
            if share is not None:
                # What is no number stays none; numpy would warn of it.
                with np.errstate(invalid="ignore"):
                    values = np.ascontiguousarray(share).view(f">f{field.length}")[:, 0].astype(np.float64)
                made[column_name(layout, at)] = columns.primitive(values, pa.float64())
        elif (field.enterprise, field.element) in TEXT_ELEMENTS:
            made[column_name(layout, at)] = fields.text(at)
        elif field.length <= 8 or field.length == VARIABLE:
            # Of variable length, what has no number's length is null.
            values = fields.uint(at).astype(np.uint64)
            made[column_name(layout, at)] = columns.primitive(values, pa.uint64(), fields.told(at))
        else:
            octets = fields.octets(at, field.length)
            if octets is not None:
                made[column_name(layout, at)] = columns.primitive(octets, pa.binary(field.length))
    return OptionsData(layout, pa.RecordBatch.from_pydict(made), fields.hashes())
