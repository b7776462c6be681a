"""The sampling rate, as a record itself tells it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.decoders import columns
from ingest.decoders.fault import Oddity
from ingest.decoders.fields import Fields
from ingest.decoders.values import Places, count_beyond

Unsigned = npt.NDArray[np.unsignedinteger]


def sampling_rate(fields: Fields, places: Places, oddities: Counter[Oddity]) -> pa.Array | None:
    """N of 1:N as the record itself tells it, null where it tells 0; None when the layout tells nothing.

    Of 309/310, 305/306, 311, 50 and 34 the first that is there and is not 0 counts; 305 alone proves nothing.
    """
    told: list[npt.NDArray[np.float64]] = []
    if (0, 309) in places and (0, 310) in places:
        told.append(_ratio(fields.uint(places[0, 310]), fields.uint(places[0, 309])))
    if (0, 305) in places and (0, 306) in places:
        taken, skipped = fields.uint(places[0, 305]).astype(np.uint64), fields.uint(places[0, 306]).astype(np.uint64)
        told.append(_ratio(taken + skipped, taken))
    if (0, 311) in places:
        for size, dtype in ((8, ">f8"), (4, ">f4")):
            octets = fields.octets(places[0, 311], size)
            if octets is not None:
                # 1 of more than can be told is out of range, like 1 of 2^40; of what is no number numpy would warn.
                with np.errstate(over="ignore", invalid="ignore"):
                    share = np.ascontiguousarray(octets).view(dtype)[:, 0].astype(np.float64)
                    told.append(np.divide(1.0, share, out=np.zeros(fields.count), where=(share > 0) & (share <= 1)))
    told.extend(fields.uint(places[0, number]).astype(np.float64) for number in (50, 34) if (0, number) in places)
    if not told:
        return None
    rate = told[0]
    for other in told[1:]:
        rate = np.where(rate >= 1, rate, other)
    valid = (rate >= 1) & (rate <= np.iinfo(np.uint32).max)
    values = np.where(valid, np.rint(rate), 0).astype(np.uint32)
    count_beyond(oddities, rate > np.iinfo(np.uint32).max)
    return columns.primitive(values, pa.uint32(), None if valid.all() else valid)


def _ratio(whole: Unsigned, part: Unsigned) -> npt.NDArray[np.float64]:
    ratio: npt.NDArray[np.float64] = np.divide(whole, part, out=np.zeros(len(whole)), where=part != 0)
    return ratio
