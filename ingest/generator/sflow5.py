"""sFlow version 5: samples of packets by every interface, discarded ones among them, and counters.

Every device is two agents in one: sub-agent 0 has small interface numbers and sends compact samples, sub-agent 1 has
large ones and sends expanded samples. An agent may not mix the two, and each numbers its datagrams by itself.
"""

from __future__ import annotations

from typing import Final

from ingest.generator import names
from ingest.generator.counters import Counters
from ingest.generator.flows import INTERFACES
from ingest.generator.frames import SERVICE_VLAN, VLAN, Frame, fixed
from ingest.generator.packets import TCP
from ingest.generator.protocols import Counting, Protocol
from ingest.generator.samples import (
    DENIED,
    FAR_INTERFACES,
    PATH,
    SEVERAL,
    Sampled,
    SampleLayout,
    SampleRun,
    discarded_packet,
    expanded_flow_sample,
    flow_sample,
    gateway,
    record,
    router,
    switch,
)
from ingest.generator.shapes import MTU_BYTES, Composer, Shape

TYPE: Final = "SFLOW_5"
VERSION: Final = 5
IPV4_AGENT: Final = 1
COMPACT, EXPANDED = 0, 1
"""The two sub-agents."""
TRUNK: Final = 4
"""The interface of the second one that counts more than others do, and says its name."""
FULL_SAMPLES: Final = 7
FULL_BYTES: Final = 1540
"""A full datagram is what collectors are compared with: a little more than Ethernet takes in one piece."""
ENTERPRISE: Final = 32473
"""The enterprise number for examples (RFC 5612): nobody knows its structures, so they are skipped by their length."""

# Packets, by what they are wrapped in, and what is known of their way.
PLAIN_TCP: Final = Sampled(Frame().ethernet().ipv4(), (switch(),), proto=TCP)
PLAIN: Final = Sampled(Frame().ethernet().ipv4(), (switch(), router(4), gateway(4)), PATH)
SWITCHED: Final = Sampled(Frame().ethernet().ipv4(), (switch(),))
BARE: Final = Sampled(Frame().ethernet().ipv4())
FRAGMENT: Final = Sampled(Frame().ethernet().ipv4(fragment=185))
TAGGED: Final = Sampled(Frame().ethernet().vlan().ipv4(), (switch(),))
STACKED: Final = Sampled(Frame().ethernet().vlan(tag=SERVICE_VLAN).vlan("inner_vlan", VLAN).ipv4())
LABELLED: Final = Sampled(Frame().ethernet().mpls().ipv4(), (gateway(4, segments=2),), PATH)
LABELLED_IPV6: Final = Sampled(Frame().ethernet().mpls().ipv6(), family=6)
PLAIN_IPV6: Final = Sampled(Frame().ethernet().ipv6(), (switch(), router(6), gateway(6)), PATH, family=6)
TAGGED_IPV6: Final = Sampled(Frame().ethernet().vlan().ipv6(), family=6)
GROUPED: Final = Sampled(Frame().ethernet().vlan().meta_data().ipv4(), (switch(),))
TUNNELLED: Final = Sampled(Frame().ethernet().vxlan().ethernet().ipv4(), (router(4),))
SHORT: Final = Sampled(Frame().ethernet().ipv4(short=True), proto=TCP, header_bytes=60)
FOREIGN: Final = Sampled(Frame().ethernet().ipv4(), (switch(), record(ENTERPRISE << 12 | 1, fixed(1, 2, 3))))


class _Datagram:
    """A datagram of one sub-agent, put together sample by sample; the interfaces take turns as their data sources."""

    def __init__(self, sub_agent: int, first_source: int = 1) -> None:
        self._sub_agent = sub_agent
        self._source = first_source - 1
        self._unknown = 0
        self._composer = composer = Composer()
        composer.number(VERSION, 4)
        composer.number(IPV4_AGENT, 4)
        composer.mark("address", 4)
        composer.number(sub_agent, 4)
        composer.mark("sequence", 4)
        composer.mark("uptime_ms", 4)
        self._count_at = len(composer.content)
        composer.number(0, 4)
        self.counters = Counters(composer, sub_agent, expanded=sub_agent == EXPANDED)

    def flows(self, *layouts: SampleLayout, records: int | None = None) -> None:
        """Add flow samples: one of each layout, or so many of the only one."""
        self._samples("flows", layouts, len(layouts) if records is None else records)

    def discards(self, *layouts: SampleLayout) -> None:
        """Add discarded packets, which are numbered by themselves."""
        self._samples("discards", layouts, len(layouts))

    def unknown(self) -> None:
        """Add a sample of a kind that nobody knows."""
        for number in (ENTERPRISE << 12 | 1, 8, 1, 2):
            self._composer.number(number, 4)
        self._unknown += 1

    def _samples(self, counted: str, layouts: tuple[SampleLayout, ...], records: int) -> None:
        sources = tuple(1 + (self._source + at) % INTERFACES for at in range(records))
        self._source += records
        begin, far = len(self._composer.content), self._sub_agent == EXPANDED
        run = SampleRun(begin, layouts, records, self._sub_agent, sources, counted, far)
        for source in sources:
            self._composer.count(run.counter(source))
        self._composer.run(run)

    def shape(self, most_bytes: int = MTU_BYTES) -> Shape:
        """What was composed."""
        composer, stream = self._composer, f"datagrams_{self._sub_agent}"
        composer.patch(self._count_at, self._unknown + composer.flow_records + composer.counter_samples, 4)
        composer.count(stream)
        return composer.shape(stream=stream, most_bytes=most_bytes)


def _full() -> Shape:
    datagram = _Datagram(COMPACT)
    datagram.flows(flow_sample(PLAIN_TCP), records=FULL_SAMPLES)
    return datagram.shape(FULL_BYTES)


def _announcement() -> Shape:
    datagram = _Datagram(COMPACT)
    datagram.counters.interface(1)
    datagram.counters.interface(2)
    datagram.counters.host()
    datagram.flows(flow_sample(SWITCHED))
    return datagram.shape()


def _far_announcement() -> Shape:
    datagram = _Datagram(EXPANDED, 7)
    datagram.counters.interface(3)
    datagram.counters.trunk(TRUNK)
    datagram.counters.processor()
    datagram.flows(expanded_flow_sample(SWITCHED), expanded_flow_sample(TAGGED_IPV6))
    return datagram.shape()


def _wrapped() -> Shape:
    """Packets with all that may stand between Ethernet and IP, the first of a tunnel, a short one, a later fragment."""
    datagram = _Datagram(COMPACT)
    datagram.flows(
        *map(flow_sample, (TAGGED, STACKED, LABELLED, GROUPED, TUNNELLED, FRAGMENT)), flow_sample(SHORT, SEVERAL)
    )
    return datagram.shape()


def _routed() -> Shape:
    """Packets of whose way much is known, some of which were discarded, or came from the device itself."""
    datagram = _Datagram(COMPACT, 5)
    datagram.flows(
        flow_sample(PLAIN),
        flow_sample(PLAIN_IPV6),
        flow_sample(LABELLED_IPV6),
        flow_sample(BARE, DENIED),
        flow_sample(SWITCHED, internal=True),
    )
    datagram.discards(discarded_packet(BARE, output=False))
    return datagram.shape()


def _expanded() -> Shape:
    """The other sub-agent's, in whose samples every interface number has room."""
    datagram = _Datagram(EXPANDED, 3)
    datagram.flows(
        expanded_flow_sample(SWITCHED),
        expanded_flow_sample(PLAIN_IPV6),
        expanded_flow_sample(BARE, SEVERAL),
        expanded_flow_sample(BARE, DENIED, internal=True),
    )
    datagram.discards(discarded_packet(BARE, output=True), discarded_packet(TAGGED_IPV6, output=True))
    return datagram.shape()


def _mixed() -> Shape:
    """Counters between flows, and structures that nobody knows, which are skipped by their length."""
    datagram = _Datagram(COMPACT, 3)
    datagram.flows(*map(flow_sample, (SWITCHED, TAGGED_IPV6)))
    datagram.counters.interface(5)
    datagram.flows(*map(flow_sample, (BARE, FOREIGN)))
    datagram.unknown()
    return datagram.shape()


def protocol(uniform: bool) -> Protocol:
    """A full datagram has 7 samples with headers of 128 bytes; others have a bit of everything."""
    full = _full()
    return Protocol(
        type=TYPE,
        counting=Counting.DATAGRAMS,
        whole_seconds=False,
        announcement=full if uniform else _announcement(),
        tables=() if uniform else (_far_announcement(),),
        full=full,
        others=() if uniform else (_wrapped(), _routed(), _expanded(), _mixed()),
        interfaces={} if uniform else {FAR_INTERFACES + TRUNK: names.port_name(TRUNK)},
    )
