import ipaddress

import pyarrow as pa
import pytest

from forwarder.filter import RecordFilter
from shared.errors import ConfigError
from shared.record import ADDRESS, COLUMN, MAC, NAME


def address(text: str) -> bytes:
    """An address as the record has it."""
    parsed = ipaddress.ip_address(text)
    return parsed.packed if parsed.version == 6 else b"\x00" * 10 + b"\xff\xff" + parsed.packed


@pytest.fixture
def flows() -> pa.Table:
    """Four flows, of which the last has no group tag."""
    return pa.table(
        {
            "src_addr": pa.array(
                [address(one) for one in ("192.0.2.1", "192.0.2.2", "2001:db8::1", "10.0.0.1")], ADDRESS
            ),
            "dst_port": pa.array([80, 443, 22, None], pa.uint16()),
            "bytes": pa.array([100, 2**63 + 1, 300, 400], pa.uint64()),
            "src_mac": pa.array([b"\x00\x11\x22\x33\x44\x55"] * 3 + [None], MAC),
            "src_sgt": pa.array([10, 10, 0, None], pa.uint16()),
            "src_sgt_name": pa.array(["Employees", "Employees", "Unknown", None], pa.utf8()).cast(NAME),
            "time_received": pa.array([0, 1, 999, 1000], pa.timestamp("ns", tz="UTC")),
        }
    )


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        pytest.param("src_sgt == 10 and dst_port in (80, 443)", [0, 1], id="numbers"),
        pytest.param("src_sgt = 0", [2], id="0 is not null"),
        pytest.param("src_sgt IS NULL", [3], id="null"),
        pytest.param("dst_port <> 22", [0, 1], id="null is neither"),
        pytest.param("src_addr = '192.0.2.1'", [0], id="IPv4"),
        pytest.param("src_addr LIKE '2001:db8:%'", [2], id="IPv6"),
        pytest.param("src_mac = '00:11:22:33:44:55' and bytes > 9000000000000000000", [1], id="MAC and a large number"),
        pytest.param("src_sgt_name = 'Employees'", [0, 1], id="a name"),
        pytest.param("dst_sgt = 5", [], id="a column that these flows do not have"),
        pytest.param("dst_sgt IS NULL or out_if_name = 'x' or dst_addr = '::1'", [0, 1, 2, 3], id="columns not there"),
        pytest.param("time_received > now() - interval 1 hour", [], id="a time before now"),
        pytest.param("time_received < timestamptz '1970-01-01 00:00:00.000001+00'", [0, 1, 2], id="microseconds"),
        pytest.param("time_received < '1970-01-02'", [0, 1, 2, 3], id="a date"),
        pytest.param("time_flow_end > now()", [], id="a time that is not there"),
        pytest.param("true", [0, 1, 2, 3], id="all"),
    ],
)
def test_the_rows_for_which_the_expression_is_true_are_picked(
    flows: pa.Table, expression: str, rows: list[int]
) -> None:
    """Rows come in their order, with all of their columns as they were."""
    assert RecordFilter(expression, COLUMN).apply(flows).equals(flows.take(pa.array(rows, pa.int64())))


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        pytest.param("src_sgtt == 10", "there is no column src_sgtt; the nearest is src_sgt", id="no such column"),
        pytest.param("src_sgt ==", "cannot be evaluated", id="no expression"),
        pytest.param("src_sgt == 10; DROP TABLE x", "cannot be evaluated", id="two statements"),
        pytest.param("bytes = (SELECT count(*) FROM read_csv('/etc/passwd'))", "cannot be evaluated", id="files"),
    ],
)
def test_what_is_no_condition_is_refused_at_once(expression: str, says: str) -> None:
    """Before anything is read, with what is wrong with it."""
    with pytest.raises(ConfigError, match="--filter") as caught:
        RecordFilter(expression, COLUMN)
    assert says in str(caught.value)
