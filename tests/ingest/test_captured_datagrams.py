"""Datagrams that real devices sent, cut off and changed at every byte, and in another order than they came in."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from ingest.captures import Captures
from ingest.decoders import Datagrams
from tests.builders import data_set, field, mapped, number, template, v5_datagram, v5_record, v9_datagram, v9_templates
from tests.fuzz import LONG
from tests.ingest.collector import EXPORTER, RECEIVED_NS, Collector, Row, packed, rows

PATTERNS: Final = ("netflow5/*.dat", "netflow9/*.dat", "ipfix/*.dat", "sflow5/*.pcap")
OF_A_DEVICE: Final = re.compile(r"_(?:tpls?|opttpl|tplopt|tpldata|data)(?=[_\d]|$)")
"""What in a file's name tells the templates of a device from its data."""
OF_ITS_PLACE: Final = frozenset({"record_id", "sampler_address", "source_address", "sequence_num"})
"""Columns that differ when a datagram does, or its exporter."""
BESIDE: Final = (
    v5_datagram(v5_record(packets=77)),
    v9_datagram(v9_templates(template(256, field(1, 4))), data_set(256, number(78, 4))),
)
BESIDE_IT: Final = mapped("2001:db8:ffff::1")

Payloads = dict[str, list[bytes]]


@pytest.fixture(scope="module")
def captured(captures: Path) -> Payloads:
    """The datagrams of each device, those that hold templates first."""
    found: Payloads = {}
    paths = sorted(path for pattern in PATTERNS for path in captures.glob(pattern))
    for path in sorted(paths, key=lambda path: not re.search(r"_(?:opt)?tpl", path.stem)):
        datagrams = [batch.payload(at) for batch in Captures([path]).batches() for at in range(len(batch))]
        found.setdefault(OF_A_DEVICE.split(path.stem)[0], []).extend(datagrams)
    return found


def values(found: list[Row]) -> list[str]:
    """Records without what tells them apart."""
    return [repr({name: value for name, value in row.items() if name not in OF_ITS_PLACE}) for row in found]


def sources(count: int) -> list[bytes]:
    """So many exporters, each with an address of its own."""
    return [bytes(12) + at.to_bytes(4) for at in range(1, count + 1)]


def together(payloads: list[bytes]) -> tuple[list[Counter[str]], list[Counter[str]]]:
    """What datagrams give, each of an exporter of its own and all in one batch: records, and counters.

    Beside them others of one more exporter give what they always give.
    """
    owners = sources(len(payloads))
    everything, whose = [BESIDE[0], *payloads, BESIDE[1]], [BESIDE_IT, *owners, BESIDE_IT]
    received = np.arange(len(everything), dtype=np.int64) + RECEIVED_NS
    collector = Collector()
    decoded = collector.take(Datagrams.pack(everything, whose, [2055] * len(everything), received))
    # An sFlow agent says who it is: by the time of reception a datagram's records are found all the same.
    which = {int(time): at - 1 for at, time in enumerate(received.tolist())}
    found: list[list[Row]] = [[] for _ in payloads]
    others: list[Row] = []
    for row in rows(decoded):
        row["time_received"], at = RECEIVED_NS, which[row["time_received"]]
        if "SFLOW" in row["type"]:
            row["time_flow_start"] = row["time_flow_end"] = RECEIVED_NS
        (found[at] if 0 <= at < len(payloads) else others).append(row)
    counters: list[list[Row]] = [[] for _ in payloads]
    for row in rows(decoded.counters):
        row["time_received"], at = RECEIVED_NS, which[row["time_received"]]
        counters[at].append(row)
    assert {(row.get("packets"), row.get("bytes")) for row in others} == {(77, 64), (None, 78)}
    return [Counter(values(each)) for each in found], [Counter(values(each)) for each in counters]


def test_cut_off_at_any_byte_they_give_what_is_whole(captured: Payloads) -> None:
    """Every length of every datagram, all in one batch: nothing raises, and no record is there that the whole has not."""
    for payloads in captured.values():
        for payload in payloads:
            found, counters = together([payload[:length] for length in range(len(payload) + 1)])
            for part in (found, counters):
                whole = part[-1]
                assert all(cut <= whole for cut in part)
                sizes = [each.total() for each in part]
                assert sizes == sorted(sizes)


@pytest.mark.parametrize("to", [0x00, 0xFF, 0x01], ids=["zero", "ones", "another bit"])
def test_changed_at_any_byte_they_hurt_no_other(captured: Payloads, to: int) -> None:
    """Every byte of every datagram made another: nothing raises, and another exporter's datagrams are what they were."""
    step = 1 if LONG else 17
    for payloads in captured.values():
        for payload in payloads:
            changed = []
            for place in range(to % step, len(payload), step):
                octets = bytearray(payload)
                octets[place] = octets[place] ^ 1 if to == 1 else to
                changed.append(bytes(octets))
            together(changed)


def test_data_before_its_templates_gives_the_same_records(captured: Payloads) -> None:
    """A device's datagrams from the last to the first: what came too early waits, and nothing else is different."""
    for device, payloads in captured.items():
        forwards, backwards = Collector(), Collector()
        expected = [row for payload in payloads for row in rows(forwards.feed(payload))]
        found = [row for payload in reversed(payloads) for row in rows(backwards.feed(payload))]
        # What options told comes too late for what is decoded before it.
        joined = {"in_if_name", "out_if_name", "application_name", "sampling_rate"}
        strip = [
            sorted(repr({name: value for name, value in row.items() if name not in joined}) for row in each)
            for each in (expected, found)
        ]
        assert strip[0] == strip[1], device


def test_they_do_not_depend_on_what_lies_behind_them(captured: Payloads) -> None:
    """A datagram gives the same records whatever the buffer has behind its end."""
    payloads = [payload for each in captured.values() for payload in each]
    for payload in payloads:
        alone = rows(Collector().feed(payload))
        room = 64
        tight = packed([payload])
        buffer = np.full(len(tight.buffer) + room, 0xA5, np.uint8)
        buffer[: len(tight.buffer)] = tight.buffer
        loose = Datagrams(
            buffer, tight.offset, tight.length, tight.source, tight.source_port, tight.received_ns, tight.listener
        )
        assert rows(Collector().take(loose)) == alone
        assert all(row["type"] == "SFLOW_5" or row["sampler_address"] == EXPORTER for row in alone)
