"""Datagrams of known content, and how they are sent."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from tests.builders import v5_datagram, v5_record

EXPORTER = "127.9.0.1"


def flows(count: int, first: int = 0) -> list[bytes]:
    """Datagrams of one record each, that can be told by their sequence numbers."""
    return [v5_datagram(v5_record(), sequence=first + one) for one in range(count)]


def send(payloads: Iterable[bytes], port: int, source: str = EXPORTER, to: str | None = None) -> None:
    """Send datagrams from an address of the loopback interface, through one socket, in their order."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as exporter:
        exporter.bind((source, 0))
        for payload in payloads:
            exporter.sendto(payload, (to or ("::1" if family == socket.AF_INET6 else "127.0.0.1"), port))
