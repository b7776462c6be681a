"""tshark decodes the same counter samples: field by field it says what we say, of the kinds that it knows."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from tests.ingest import tshark

pytestmark = pytest.mark.peers

CAPTURES: Final = ("tcpdump-sflow_multiple_counter_30_pdus.pcap", "tcpdump-sflow-print-v6.pcap")

SAMPLE: Final = {
    "sflow.counters_sample.sequence_number": "sample_sequence_num",
    "sflow.counters_sample.source_id_type": "source_id_class",
    "sflow.counters_sample.source_id_index": "source_id_index",
}
DATAGRAM: Final = {
    "sflow_245.agent": "sampler_address",
    "sflow_245.agent.v6": "sampler_address",
    "sflow_245.sub_agent_id": "observation_domain_id",
    "sflow_245.sequence_number": "sequence_num",
    "sflow_245.sysuptime": "uptime_ms",
}
COUNTERS: Final = {
    "sflow_245.ifindex": "if_index",
    "sflow_245.iftype": "if_type",
    "sflow_245.ifspeed": "if_speed",
    "sflow_245.ifdirection": "if_direction",
    "sflow_245.ifinoct": "if_in_octets",
    "sflow_245.ifinpkt": "if_in_ucast_pkts",
    "sflow_245.ifinmcast": "if_in_multicast_pkts",
    "sflow_245.ifinbcast": "if_in_broadcast_pkts",
    "sflow_245.ifindisc": "if_in_discards",
    "sflow_245.ifinerr": "if_in_errors",
    "sflow_245.ifinunk": "if_in_unknown_protos",
    "sflow_245.ifoutoct": "if_out_octets",
    "sflow_245.ifoutpkt": "if_out_ucast_pkts",
    "sflow_245.ifoutmcast": "if_out_multicast_pkts",
    "sflow_245.ifoutbcast": "if_out_broadcast_pkts",
    "sflow_245.ifoutdisc": "if_out_discards",
    "sflow_245.ifouterr": "if_out_errors",
    "sflow_245.ifpromisc": "if_promiscuous_mode",
    "sflow_245.dot3StatsAlignmentErrors": "dot3_stats_alignment_errors",
    "sflow_245.dot3StatsFCSErrors": "dot3_stats_fcs_errors",
    "sflow_245.dot3StatsSingleCollisionFrames": "dot3_stats_single_collision_frames",
    "sflow_245.dot3StatsMultipleCollisionFrames": "dot3_stats_multiple_collision_frames",
    "sflow_245.dot3StatsSQETestErrors": "dot3_stats_sqe_test_errors",
    "sflow_245.dot3StatsDeferredTransmissions": "dot3_stats_deferred_transmissions",
    "sflow_245.dot3StatsLateCollisions": "dot3_stats_late_collisions",
    "sflow_245.dot3StatsExcessiveCollisions": "dot3_stats_excessive_collisions",
    "sflow_245.dot3StatsInternalMacTransmitErrors": "dot3_stats_internal_mac_transmit_errors",
    "sflow_245.dot3StatsCarrierSenseErrors": "dot3_stats_carrier_sense_errors",
    "sflow_245.dot3StatsFrameTooLongs": "dot3_stats_frame_too_longs",
    "sflow_245.dot3StatsInternalMacReceiveErrors": "dot3_stats_internal_mac_receive_errors",
    "sflow_245.dot3StatsSymbolErrors": "dot3_stats_symbol_errors",
}
STATUS: Final = {"sflow_245.ifadmin_status": 1, "sflow_245.ifoper_status": 2}
"""The bits that tshark shows apart."""
FRAMING: Final = frozenset(
    {
        *("", "sflow.enterprise", "sflow_245.sampletype", "sflow_5.sample_length", "sflow_5.flow_data_length"),
        *("sflow.counters_sample.counters_records", "sflow_245.counters_record_format"),
    }
)
HOST: Final = 2
"""The class of a host's source. tshark knows no host structures: it shows them as unknown, and behind some of them takes
what follows for kinds that are not there."""

Row = dict[str, Any]


@pytest.fixture(scope="module", params=CAPTURES)
def both(request: pytest.FixtureRequest, captures: Path) -> tuple[list[Row], list[Row]]:
    """The counter samples of a capture, as tshark tells them and as we do, in their order."""
    if why := tshark.why_no_tshark():
        pytest.skip(why)
    capture = captures / "sflow5" / request.param
    command = [sys.executable, "-m", "ingest", "decode", "--counters", "--format", "json", str(capture)]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stderr == b""
    return list(_theirs(capture)), [orjson.loads(line) for line in done.stdout.splitlines()]


def _theirs(capture: Path) -> Iterator[Row]:
    command = ["tshark", "-n", "-r", str(capture), "-T", "pdml"]
    environment = {**os.environ, "TZ": "UTC", "LC_ALL": "C.UTF-8"}
    told = subprocess.run(command, capture_output=True, check=True, env=environment).stdout
    for packet in ET.fromstring(told).iter("packet"):
        for protocol in packet.findall("proto[@name='sflow']"):
            header = dict(_values(protocol.findall("field"), DATAGRAM))
            for sample in protocol.findall("field"):
                if sample.find("field[@name='sflow.counters_sample.sequence_number']") is not None:
                    yield {**header, **_sample(sample)}


def _sample(sample: ET.Element) -> Row:
    fields = [field for field in sample.iter("field") if field is not sample]
    row = dict(_values(fields, {**SAMPLE, **COUNTERS}))
    if row["source_id_class"] != HOST:
        assert {field.get("name", "") for field in fields} <= {*SAMPLE, *COUNTERS, *STATUS, *FRAMING}
    bits = [bit for field in fields if (bit := STATUS.get(field.get("name", ""), 0)) and field.get("show") == "1"]
    if any(field.get("name") in STATUS for field in fields):
        row["if_status"] = sum(bits)
    return row


def _values(fields: list[ET.Element], names: dict[str, str]) -> Iterator[tuple[str, Any]]:
    for field in fields:
        column = names.get(field.get("name", ""))
        if column is not None:
            shown = field.get("show", "")
            yield column, shown if column == "sampler_address" else int(shown)


def test_every_field_of_every_sample_agrees(both: tuple[list[Row], list[Row]]) -> None:
    """Both see the same samples in the same order, and each column that tshark knows has the value that it shows."""
    theirs, ours = both
    assert len(theirs) == len(ours) > 0
    for their, our in zip(theirs, ours, strict=True):
        host = our["source_id_class"] == HOST
        columns = {*SAMPLE.values(), *DATAGRAM.values()} if host else set(our) - {"time_received"}
        assert {name: our.get(name) for name in columns} == {name: their.get(name) for name in columns}


def test_hosts_are_read_where_tshark_does_not(both: tuple[list[Row], list[Row]]) -> None:
    """A host's name, CPU, memory, disks and network are there together."""
    hosts = [row for row in both[1] if row["source_id_class"] == HOST]
    for row in hosts:
        wanted = ("hostname", "host_cpu_idle_ms", "host_mem_total_bytes", "host_disk_reads", "host_net_pkts_in")
        assert all(row.get(name) for name in wanted)
        assert row["host_mem_free_bytes"] < row["host_mem_total_bytes"]
        assert row["host_disk_part_max_used"] <= 10_000
    assert len(hosts) in {0, 2}
