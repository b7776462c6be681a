"""Names of security groups that flow records bring with their tags, which other records of the exporter lack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.decoders.enrich import TAGS, Sources, values_of
from ingest.decoders.lookup import Keys

Index = npt.NDArray[np.int64]

GROUPS: Final = (("src_sgt", "src_sgt_name"), ("dst_sgt", "dst_sgt_name"))
"""Columns of tags and their names."""


@dataclass(frozen=True, slots=True, eq=False)
class GroupNames:
    """What records call groups: u distinct triples of exporter, tag and name, those of one exporter and tag together."""

    exporters: Keys
    """[u]"""
    sets: Index
    """A set of the exporter, by which it is known who that is, [u]."""
    tags: Index
    """[u]"""
    numbers: Index
    """Which of the names, [u]."""
    names: pa.StringArray
    """As they come, one may stand there twice."""


def group_names(made: Mapping[str, pa.Array], sources: Sources) -> GroupNames | None:
    """The groups that records name, by columns of tags and of names beside them; None where there are none."""
    there = [(made[tag], made[name]) for tag, name in GROUPS if tag in made and name in made]
    names = pa.concat_arrays([named.dictionary for _, named in there]) if there else pa.array([], pa.utf8())
    if len(names) == 0:
        return None
    exporters, first, number = np.unique(sources.exporters, return_index=True, return_inverse=True)
    of = number.take(sources.of)
    coded: list[npt.NDArray[np.integer]] = []
    before = 0
    for tags, named in there:
        index = np.frombuffer(named.indices.buffers()[1], np.int32) + before
        before += len(named.dictionary)
        code = (of * TAGS + values_of(tags)) * len(names) + index
        told = [column.is_valid().to_numpy(zero_copy_only=False) for column in (tags, named) if column.null_count]
        if told:
            code = code[np.logical_and.reduce(told)]
        coded.append(code)
    codes = np.unique(np.concatenate(coded).astype(np.int64))
    pairs, numbers = np.divmod(codes, len(names))
    owners, tagged = np.divmod(pairs, TAGS)
    return GroupNames(exporters.take(owners), first.take(owners), tagged, numbers, names)
