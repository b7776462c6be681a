"""Datagrams: many payloads as columns over one buffer."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.decoders.datagrams import HEADROOM_BYTES, Datagrams

IPV4 = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1])
IPV6 = bytes.fromhex("20010db8000000000000000000000001")

CASES = [
    pytest.param([], id="none"),
    pytest.param([b""], id="one, empty"),
    pytest.param([b"\x00\x09abc"], id="one"),
    pytest.param([b"\x00\x05", b"", b"\x00\x0a" * 700, b"x"], id="several, with an empty one between"),
    pytest.param([b"\xff" * 65507], id="as large as UDP allows"),
]


def packed(payloads: list[bytes]) -> Datagrams:
    """Payloads from two addresses in turn, with ports and times that count up."""
    count = len(payloads)
    sources = [IPV6 if index % 2 else IPV4 for index in range(count)]
    return Datagrams.pack(payloads, sources, list(range(65535 - count, 65535)), [10**18 + i for i in range(count)])


@pytest.mark.parametrize("payloads", CASES)
def test_what_is_packed_is_read_back(payloads: list[bytes]) -> None:
    """Every payload, source, port and time comes back as it was given, in order."""
    datagrams = packed(payloads)
    count = len(payloads)
    assert len(datagrams) == count
    assert [datagrams.payload(index) for index in range(count)] == payloads
    assert datagrams.payload_bytes == sum(map(len, payloads))
    assert [row.tobytes() for row in datagrams.source] == [IPV6 if index % 2 else IPV4 for index in range(count)]
    assert datagrams.source_port.tolist() == list(range(65535 - count, 65535))
    assert datagrams.received_ns.tolist() == [10**18 + index for index in range(count)]
    assert datagrams.listener.tolist() == [0] * count


@pytest.mark.parametrize("payloads", CASES)
def test_the_columns_have_the_stated_types(payloads: list[bytes]) -> None:
    """Types and shapes are those of the contract, for no datagrams too."""
    datagrams = packed(payloads)
    count = len(payloads)
    shapes = {
        name: (getattr(datagrams, name).dtype, getattr(datagrams, name).shape)
        for name in ("offset", "length", "source", "source_port", "received_ns", "listener")
    }
    assert shapes == {
        "offset": (np.int64, (count,)),
        "length": (np.int64, (count,)),
        "source": (np.uint8, (count, 16)),
        "source_port": (np.uint16, (count,)),
        "received_ns": (np.int64, (count,)),
        "listener": (np.int16, (count,)),
    }
    assert datagrams.buffer.dtype == np.uint8
    assert datagrams.buffer.ndim == 1


@pytest.mark.parametrize("payloads", CASES)
def test_the_room_before_each_datagram_is_free(payloads: list[bytes]) -> None:
    """Writing all of every head room leaves every payload as it was."""
    datagrams = packed(payloads)
    for begin in datagrams.offset.tolist():
        assert begin >= HEADROOM_BYTES
        datagrams.buffer[begin - HEADROOM_BYTES : begin] = 0xEE
    assert [datagrams.payload(index) for index in range(len(payloads))] == payloads


@pytest.mark.parametrize(
    ("sources", "ports", "received_ns", "words"),
    [
        pytest.param([IPV4], [1, 2], [1, 2], "got 1, 2 and 2", id="a source is missing"),
        pytest.param([IPV4] * 2, [1], [1, 2], "got 2, 1 and 2", id="a port is missing"),
        pytest.param([IPV4] * 2, [1, 2], [1, 2, 3], "got 2, 2 and 3", id="a time too many"),
        pytest.param([IPV4, IPV4[12:]], [1, 2], [1, 2], "not 4", id="an IPv4 address that is not mapped"),
    ],
)
def test_unequal_columns_are_refused(
    sources: list[bytes], ports: list[int], received_ns: list[int], words: str
) -> None:
    """Columns of different lengths, or an address that is not of 16 bytes, raise ValueError with the numbers."""
    with pytest.raises(ValueError, match=words):
        Datagrams.pack([b"a", b"b"], sources, ports, received_ns)
