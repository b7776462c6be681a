"""tshark decodes NetFlow v1, v5 and v7 that was built by hand as we do: field by field, with no exception."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.captures import Captures
from ingest.pipeline import Pipeline
from shared.text import json_rows
from tests.builders import v1_datagram, v1_record, v5_datagram, v5_record, v7_datagram, v7_record
from tests.frames import ethernet, ipv4, pcap, udp
from tests.ingest import tshark
from tests.ingest.decoders.test_netflow5 import RECORD
from tests.ingest.test_tshark_agrees import nanoseconds
from tests.ingest.tshark_names import ALSO_OURS, COLUMNS, TIMES

pytestmark = pytest.mark.peers

RECORDS = [RECORD, v5_record(proto=1, dst_port=0x0301), v5_record(proto=17, packets=2**32 - 1, first_ms=0, last_ms=7)]
DATAGRAMS = [
    pytest.param(v1_datagram(*map(v1_record, RECORDS)), id="v1"),
    pytest.param(v5_datagram(*RECORDS, sequence=77, engine_type=1, engine_id=9, sampling=0x4000 | 50), id="v5"),
    pytest.param(v7_datagram(*(v7_record(each, router="192.0.2.77") for each in RECORDS), sequence=2**32 - 1), id="v7"),
]


@pytest.mark.parametrize("payload", DATAGRAMS)
def test_every_field_of_every_record_agrees(payload: bytes, tmp_path: Path) -> None:
    """Both find the same records, and each column has the value that tshark shows; no column is left out."""
    if why := tshark.why_no_tshark():
        pytest.skip(why)
    capture = tmp_path / "built.pcap"
    capture.write_bytes(pcap([ethernet(ipv4(udp(payload)))]))
    pipeline = Pipeline()
    ours = [
        {name: value for name, value in row.items() if value is not None and name not in ALSO_OURS}
        for batch in Captures([capture]).batches()
        for each in pipeline.decode(batch).batches
        for row in json_rows(each)
    ]
    theirs = [
        {name: value for name, rule in COLUMNS.items() if (value := rule(record)) is not None}
        for record in tshark.records(capture)
    ]
    for row in ours:
        row.update({name: nanoseconds(row[name]) for name in TIMES})
    assert ours == theirs
    assert len(ours) == len(RECORDS)
