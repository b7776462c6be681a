"""`python -m ingest generate`: sends flow export of known content, and says what it sent."""

from __future__ import annotations

import argparse
from typing import Final

PROTOCOLS: Final = ("mix", "v5", "v9", "ipfix", "sflow")
SAFE_RATE: Final = 2000
EPILOG: Final = """\
what is sent:
  v5     30 records a datagram, now and then fewer
  v9     templates with IPv4, IPv6, and Cisco's security groups (34000, 34001); options data with sampling rates of
         the system, of samplers and of a template, names of interfaces, VRFs, applications and groups, and what was
         exported so far
  ipfix  the same with groups as elements 1232 and 1233 of enterprise 9, sampling rates of selectors, the time at
         which the exporter was started, and fields of variable length
  sflow  some 7 samples a datagram: compact ones by sub-agent 0 and expanded ones by sub-agent 1, discarded packets,
         headers of 128 bytes with VLAN tags, MPLS, IPv6, Cisco Meta Data and VXLAN with a group policy, switch, router
         and gateway records; counters of interfaces and of hosts
  mix    every exporter speaks one of the four
An exporter begins with its templates, sampling rates and clock (sFlow: counters), and repeats them once in --refresh
datagrams; names follow in the datagram after. With --uniform there is nothing but the fullest datagrams of a protocol,
and what announces them: v9 with 24 records of 21 fields and 58 bytes, sFlow with 7 flow samples of TCP over IPv4, each
with a header of 128 bytes and a switch record, which is 1,540 bytes a datagram.

The content is known: at the end one JSON object on standard output says how many datagrams and flow records were sent,
and the sums of their bytes and packets, by protocol; options records and counter samples are counted apart. Of sFlow,
records are samples of packets, discarded ones among them, and bytes are the lengths of their frames. Only what the
kernel took is counted. Ctrl-C ends it as well.

The same seed, start time, rate, exporters and protocol send the same bytes. Without --start-time every run has a start
time of its own, and so flows of its own: a collector that removes repetitions would rightly drop the same flows twice.

To a loopback address the exporters have addresses all over 127.0.0.0/8. To any other, they share the address of this
machine, and differ in the source id or observation domain; those of sFlow name their own address as the agent's.

examples:
  python -m ingest generate --count 10000
  python -m ingest generate --protocol ipfix --exporters 5000 --rate 20000 --duration 60
  python -m ingest generate --protocol sflow --to 127.0.0.1:6343
  python -m ingest generate --seed 7 --start-time 2026-01-31T12:00:00Z --count 500 --to 127.0.0.1:4739
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    parser = subparsers.add_parser(
        "generate",
        help="send flows of known content from many exporters",
        description="Send NetFlow v5, NetFlow v9, IPFIX and sFlow v5 of known content from thousands of exporters.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--protocol",
        default="mix",
        choices=PROTOCOLS,
        help="what the exporters speak; in a mix, each speaks one of the four (default: mix)",
    )
    parser.add_argument("--exporters", type=int, default=1000, metavar="N", help="how many there are (default: 1000)")
    parser.add_argument(
        "--rate",
        type=float,
        default=SAFE_RATE,
        metavar="N",
        help="datagrams per second of all exporters, 0 for as many as possible "
        f"(default: {SAFE_RATE}, which a receive buffer of 212,992 bytes holds)",
    )
    until = parser.add_mutually_exclusive_group()
    until.add_argument("--count", type=int, metavar="N", help="stop after so many datagrams (default: never)")
    until.add_argument("--duration", type=float, metavar="SECONDS", help="stop after this time (default: never)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="which flows (default: 1)")
    parser.add_argument(
        "--start-time",
        metavar="TIME",
        help="the exporters' clock at the start, as 2026-01-31T12:00:00Z or in seconds since 1970 (default: now)",
    )
    parser.add_argument(
        "--refresh",
        type=int,
        default=20,
        metavar="N",
        help="each exporter repeats its templates and options (sFlow: counters) once in so many datagrams (default: 20)",
    )
    parser.add_argument(
        "--uniform", action="store_true", help="only the fullest datagrams of a protocol, as benchmarks want them"
    )
    parser.add_argument(
        "--to", default="127.0.0.1:2055", metavar="HOST:PORT", help="the collector (default: 127.0.0.1:2055)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Send until there is enough or a signal comes, and print what was sent."""
    from ingest.generator.running import run as send

    return send(arguments)
