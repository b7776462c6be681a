"""sFlow's samples of packets: what one consists of, and the numbers in it that depend on those before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ingest.generator.draws import U64, bits
from ingest.generator.flows import Conversations
from ingest.generator.frames import FCS_BYTES, Frame, fixed
from ingest.generator.layouts import (
    BYTES_LEFT,
    DROPS,
    FRAME_BYTES,
    INPUT,
    OUTPUT,
    POOL,
    RATE,
    SEQUENCE,
    SOURCE,
    UDP_BYTES_LEFT,
    Field,
    Layout,
)
from ingest.generator.packets import UDP
from ingest.generator.shapes import FlowRun, Flows, Numbers, Values, before

FLOW_SAMPLE, EXPANDED_FLOW_SAMPLE, DISCARDED_PACKET = 1, 3, 5
SAMPLED_HEADER, SWITCH, ROUTER, GATEWAY = 1, 1001, 1002, 1003
ETHERNET: Final = 1
INTERNAL, EXPANDED_INTERNAL = 0x3FFFFFFF, 0xFFFFFFFF
FAR_INTERFACES: Final = 1 << 24
"""Interface numbers beyond this do not fit compact samples: a sub-agent that has such uses the expanded ones alone."""
PATH: Final = ("as_path", "next_hop_as", "dst_as")
"""What a gateway's path tells the record."""
LARGEST_FRAME_BYTES: Final = 1518
LOST_ONE_IN: Final = 1000
"""An agent has lost a sample, it says, for so many that it took."""


class SampleLayout(Layout):
    """A sample with its records, for conversations of one address family, and of one IP protocol if `proto` says so."""

    def __init__(
        self,
        frame: Frame,
        family: int,
        fields: tuple[Field, ...],
        *,
        header_bytes: int,
        columns: tuple[str, ...],
        constants: Mapping[str, int],
        proto: int | None = None,
    ) -> None:
        super().__init__(family, fields, proto=proto)
        self.columns = (*frame.columns, *columns)
        """Conversations' columns that the record has too, though no field is one of them as it stands."""
        self.constants = {**dict(frame.constants), **constants}
        """Columns of the record that are the same in all samples."""
        self._checksums = [self._header_at() + at for at in frame.checksums]
        self.least_bytes = header_bytes + FCS_BYTES
        self.most_bytes = LARGEST_FRAME_BYTES if header_bytes >= 128 else self.least_bytes

    def _header_at(self) -> int:
        ends = np.cumsum([len(field.prefix) + field.length for field in self.fields]).tolist()
        length = next(at for at, field in enumerate(self.fields) if field.element == FRAME_BYTES)
        # After the length of the frame come what was stripped of it, and the length of the header.
        return int(ends[length]) + 8

    def fill(self, records: npt.NDArray[np.uint8], values: Mapping[int, npt.NDArray[Any]]) -> None:
        """As in every layout; then the checksums of IPv4 headers, which are of what was written."""
        super().fill(records, values)
        for at in self._checksums:
            total = records[..., at : at + 20].view(">u2").sum(axis=-1, dtype=np.int64)
            for _ in range(2):
                total = (total & 0xFFFF) + (total >> 16)
            records[..., at + 10 : at + 12].view(">u2")[..., 0] = 0xFFFF - total


def record(kind: int, *fields: Field) -> tuple[Field, ...]:
    """A structure with its number and length before it, padded to four bytes."""
    size = sum(len(field.prefix) + field.length for field in fields)
    padding = (Field(0, -size % 4),) if size % 4 else ()
    return (fixed(kind, size + -size % 4), *fields, *padding)


def sampled_header(frame: Frame, header_bytes: int) -> tuple[Field, ...]:
    """The first octets of a frame, and behind what is known of it zeros."""
    return record(
        SAMPLED_HEADER,
        fixed(ETHERNET),
        Field(FRAME_BYTES, 4),
        fixed(FCS_BYTES, header_bytes),
        *frame.fields,
        Field(0, header_bytes - frame.size),
    )


def switch() -> tuple[Field, ...]:
    """VLAN and priority of both sides."""
    return record(SWITCH, Field(0, 4, "src_vlan"), fixed(0), Field(0, 4, "dst_vlan"), fixed(0))


def _address(column: str, family: int) -> tuple[Field, Field]:
    return fixed(1 if family == 4 else 2), Field(0, 4 if family == 4 else 16, column)


def router(family: int) -> tuple[Field, ...]:
    """The next hop, and the lengths of both prefixes."""
    return record(ROUTER, *_address("next_hop", family), Field(0, 4, "src_net_len"), Field(0, 4, "dst_net_len"))


def gateway(family: int, *, segments: int = 1) -> tuple[Field, ...]:
    """The BGP next hop, AS numbers, a path of three in one segment or in two, communities, and the preference."""
    sequence, in_set = 2, 1
    path = {
        1: (fixed(1, sequence, 3), Field(0, 12, "as_path")),
        2: (fixed(2, sequence, 2), Field(0, 8, "as_path_first"), fixed(in_set, 1), Field(0, 4, "as_path_last")),
    }
    return record(
        GATEWAY,
        *_address("bgp_next_hop", family),
        fixed(64511),
        Field(0, 4, "src_as"),
        Field(0, 4, "next_hop_as", told=False),  # of whoever sent it here, which the record has no column for
        *path[segments],
        fixed(2),
        Field(0, 8, "bgp_communities"),
        fixed(100),
    )


@dataclass(frozen=True, slots=True)
class Outlet:
    """Where packets went when it was not one interface: the form of an interface, its value, and what that tells."""

    form: int
    value: int
    constants: Mapping[str, int]


SEVERAL: Final = Outlet(2, 3, {"forwarding_status": 64})
DENIED: Final = Outlet(1, 258, {"forwarding_status": 129, "drop_reason": 258})
"""Discarded by an access list."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A packet that was sampled, whose it is, and what its exporter knows of its way."""

    frame: Frame
    records: tuple[tuple[Field, ...], ...] = ()
    columns: tuple[str, ...] = ()
    """Columns of the record that the records tell, though none of their fields is one of them as it stands."""
    family: int = 4
    proto: int | None = None
    header_bytes: int = 128

    def layout(
        self, kind: int, *fields: Field, columns: tuple[str, ...] = (), constants: Mapping[str, int] | None = None
    ) -> SampleLayout:
        """A sample of some kind, whose fixed part is these fields; how many records follow is added."""
        records = (sampled_header(self.frame, self.header_bytes), *self.records)
        parts = (*fields, fixed(len(records)), *(field for each in records for field in each))
        return SampleLayout(
            self.frame,
            self.family,
            record(kind, *parts),
            header_bytes=self.header_bytes,
            columns=(*self.columns, *columns),
            constants=constants or {},
            proto=self.proto,
        )


def _constants(outlet: Outlet | None, *, internal: bool) -> dict[str, int]:
    return {**({"in_if": INTERNAL} if internal else {}), **(outlet.constants if outlet else {})}


def flow_sample(sampled: Sampled, outlet: Outlet | None = None, *, internal: bool = False) -> SampleLayout:
    """A flow sample; `internal` when the device itself sent the packet."""
    return sampled.layout(
        FLOW_SAMPLE,
        *(Field(element, 4) for element in (SEQUENCE, SOURCE, RATE, POOL, DROPS)),
        fixed(INTERNAL) if internal else Field(INPUT, 4),
        fixed(outlet.form << 30 | outlet.value) if outlet else Field(OUTPUT, 4),
        constants=_constants(outlet, internal=internal),
    )


def expanded_flow_sample(sampled: Sampled, outlet: Outlet | None = None, *, internal: bool = False) -> SampleLayout:
    """The same with room for every interface number."""
    return sampled.layout(
        EXPANDED_FLOW_SAMPLE,
        Field(SEQUENCE, 4),
        fixed(0),
        *(Field(element, 4) for element in (SOURCE, RATE, POOL, DROPS)),
        fixed(0),
        fixed(EXPANDED_INTERNAL) if internal else Field(INPUT, 4),
        fixed(outlet.form if outlet else 0),
        fixed(outlet.value) if outlet else Field(OUTPUT, 4),
        constants=_constants(outlet, internal=internal),
    )


def discarded_packet(sampled: Sampled, *, output: bool) -> SampleLayout:
    """A packet that was discarded, and why; `output` when it was known where it would have left."""
    return sampled.layout(
        DISCARDED_PACKET,
        Field(SEQUENCE, 4),
        fixed(0),
        *(Field(element, 4) for element in (SOURCE, DROPS, INPUT)),
        Field(OUTPUT, 4) if output else fixed(0),
        Field(0, 4, "drop_reason"),
        columns=("forwarding_status",),
    )


@dataclass(frozen=True, slots=True)
class SampleRun(FlowRun):
    """Samples one after the other; each is one of its data source's, by which it is numbered."""

    sub_agent: int
    sources: tuple[int, ...]
    """Data sources of the samples: the interfaces that the packets came in by, [records]."""
    counted: str
    """What kind of samples these are, for their numbers."""
    far: bool
    """Whether interfaces have the numbers that only expanded samples have room for."""

    def counter(self, source: int) -> str:
        """The name of the exporter's counter of such samples of a data source."""
        return f"{self.counted}_{self.sub_agent}_{source}"

    @property
    def counters(self) -> tuple[str, ...]:
        """Counters of the exporter's that its records show."""
        return tuple(self.counter(source) for source in self.sources)

    def draw(self, raw: U64) -> Flows:
        """Take packets from 64 random bits each; the longer ones are as likely as the shorter ones."""
        layouts = [self.layout(at) for at in range(self.records)]
        least = np.array([layout.least_bytes for layout in layouts if isinstance(layout, SampleLayout)])
        most = np.array([layout.most_bytes for layout in layouts if isinstance(layout, SampleLayout)])
        octets = least + (bits(raw, 34, 11) * (most - least + 1) >> 11)
        none = np.zeros_like(octets)
        return Flows(bits(raw, 0, 14), octets, none + 1, none, none)

    def numbers(
        self, values: Values, flows: Flows, which: slice, conversations: Conversations
    ) -> Mapping[int, Numbers]:
        """What is another in each sample, by element, of some of the run's samples, [n, records] each."""
        sources = np.array(self.sources)[which]
        earlier = [self.sources[:at].count(source) for at, source in enumerate(self.sources)][which]
        taken = np.stack([values[before(self.counter(source))] for source in sources.tolist()], axis=1)
        sequence = values["first_sequence"][:, None] + taken + np.array(earlier)
        rate = np.broadcast_to(values["sampling_rate"][:, None], sequence.shape)
        chosen = flows.conversation[:, which]
        octets = flows.octets[:, which]
        output = conversations.values("out_if")[chosen].astype(np.int64)
        # No packet leaves by the interface that it came in by: another one of the conversation's does for it.
        output = np.where(output == sources, conversations.values("in_if")[chosen], output)
        far = FAR_INTERFACES if self.far else 0
        left = octets - FCS_BYTES
        return {
            SEQUENCE: sequence,
            SOURCE: np.broadcast_to(sources + far, sequence.shape),
            RATE: rate,
            # sFlow has no clock: where its pools begin is what tells one run from another.
            POOL: values["start_ms"][:, None] + sequence * rate,
            DROPS: sequence // LOST_ONE_IN,
            INPUT: np.broadcast_to(sources + far, sequence.shape),
            OUTPUT: output + far,
            FRAME_BYTES: octets,
            BYTES_LEFT: left,
            UDP_BYTES_LEFT: np.where(conversations.values("proto")[chosen] == UDP, left, 0),
        }
