from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.spool import Entry, Quota, Reason, SpoolFault, SpoolLog
from ingest.spool.spoollog import PAUSE_SECONDS, segment_files
from tests.ingest.spool.entries import LIMIT, content, entry, numbers, opened, quota, rest


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SpoolLog]:
    """A log of files with a few messages each."""
    ours = opened(tmp_path / "log")
    ours._segment_bytes = 1000
    yield ours
    ours.close()


def fill(log: SpoolLog, count: int, first: int = 1) -> None:
    """Append so many messages."""
    for number in range(first, first + count):
        log.append(entry(number))


def test_messages_come_back_in_their_order(log: SpoolLog) -> None:
    """They are as they were, across files, and those that come while others are read are behind them."""
    fill(log, 30)
    assert len(segment_files(log.directory)) > 3
    first = log.peek()
    assert first is not None
    assert content(first[0]) == content(entry(1))
    fill(log, 5, first=31)
    assert numbers(log) == list(range(1, 36))
    assert log.caught_up
    fill(log, 2, first=36)
    assert not log.caught_up
    assert numbers(log) == [36, 37]


def test_files_go_when_all_that_is_in_them_was_acknowledged(log: SpoolLog) -> None:
    """One that has a message without acknowledgement stays, with all that came after it."""
    fill(log, 30)
    places = []
    while (found := log.peek()) is not None:
        log.advance()
        places.append(found[1])
    files = len(segment_files(log.directory))
    log.acknowledge(places[1:])
    assert (len(segment_files(log.directory)), log.messages, log.records) == (files, 1, 1)
    log.acknowledge(places[:1])
    assert (segment_files(log.directory), log.messages, log.records, log.bytes) == ([], 0, 0, 0)


def test_what_is_read_again_is_what_was_not_acknowledged(log: SpoolLog) -> None:
    """After a rewind the acknowledged ones are passed over, wherever they lie."""
    fill(log, 20)
    places = []
    for _ in range(15):
        found = log.peek()
        assert found is not None
        log.advance()
        places.append(found[1])
    log.acknowledge(places[number - 1] for number in (1, 2, 5, 9, 15))
    log.rewind()
    assert numbers(log) == [3, 4, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20]


def test_what_the_client_has_is_not_read_but_kept(tmp_path: Path, log: SpoolLog) -> None:
    """A message that is put aside while it is on its way counts as read; whoever opens the log finds it."""
    place = log.append_read(entry(1))
    log.append_read(entry(2))
    fill(log, 1, first=3)
    assert numbers(log) == [3]
    log.acknowledge([place])
    log.close()
    assert numbers(opened(log.directory)) == [2, 3]


def test_damage_is_passed_over_and_counted(log: SpoolLog) -> None:
    """A message that cannot be read is lost alone; its records are known when its file was read to the end."""
    fill(log, 30)
    path = segment_files(log.directory)[1]
    octets = bytearray(path.read_bytes())
    octets[400] ^= 1
    path.write_bytes(octets)
    read = [one.records for one in rest(log)]
    missing = set(range(1, 31)) - set(read)
    assert len(missing) == 1
    lost = log.take_lost()
    assert (lost.places, lost.records) == (1, missing.pop())
    assert log.records == sum(read)
    assert log.take_lost().places == 0


def test_a_file_that_vanishes_under_us_is_lost_and_counted(log: SpoolLog) -> None:
    """What somebody has emptied does not come back, and the books know how many records that were."""
    fill(log, 30)
    with segment_files(log.directory)[0].open("r+b") as file:
        file.truncate(0)
    read = [one.records for one in rest(log)]
    assert read == list(range(31 - len(read), 31))
    assert log.take_lost().records == sum(range(1, 31)) - sum(read)


def test_the_bound_holds_over_all_logs(tmp_path: Path) -> None:
    """What has no room is refused, and nothing of it is written; there is room again when something was delivered."""
    used = [0, 3_000]
    shared = Quota(100_000, used, 0)
    logs = [SpoolLog(tmp_path / name, shared, clock=iter(range(10_000)).__next__) for name in "ab"]
    for log in logs:
        log.open()
        log._segment_bytes = 5_000
    one = Entry(0, None, 1, [], bytes(range(250)))
    written = 0
    while sum(used) < 98_500:
        logs[written % 2].append(one)
        written += 1
    with pytest.raises(SpoolFault) as caught:
        fill(logs[0], 10)
    assert caught.value.reason is Reason.FULL
    assert "ingest.spool.max_bytes" in caught.value.text
    assert 98_500 <= sum(used) <= 100_000
    assert used[0] == sum(log.bytes for log in logs)
    assert logs[1].messages == written // 2
    found = []
    while (read := logs[0].peek()) is not None:
        logs[0].advance()
        found.append(read[1])
    logs[0].acknowledge(found)
    logs[1].append(entry(1))
    for log in logs:
        log.close()


def test_a_disk_that_is_full_is_told_and_costs_nothing_that_was_written(tmp_path: Path) -> None:
    """The message of which a part was written is taken back; when there is room again, messages go on behind."""
    seconds = iter(range(1000))
    log = SpoolLog(tmp_path / "log", quota(), clock=lambda: float(next(seconds)))
    log.open()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file that may not grow any more is to a writer what a full disk is; Python ignores the signal that comes with it.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(SpoolFault) as caught:
            fill(log, 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.reason is Reason.DISK_FULL
    assert "free some space" in caught.value.text
    written = log.messages
    assert written > 3
    fill(log, 2, first=written + 1)
    assert numbers(log) == list(range(1, written + 3))
    assert log.take_lost().places == 0
    log.close()
    assert numbers(opened(log.directory)) == list(range(1, written + 3))


def test_after_a_failure_nothing_is_tried_for_a_moment(tmp_path: Path) -> None:
    """To find out for each message anew that there is no room would cost as much as to write it."""
    now = [0.0]
    log = SpoolLog(tmp_path / "log", Quota(10, [0], 0), clock=lambda: now[0])
    log.open()
    with pytest.raises(SpoolFault) as first:
        log.append(entry(1))
    log._quota.limit_bytes = LIMIT
    with pytest.raises(SpoolFault) as second:
        log.append(entry(1))
    assert second.value is first.value
    now[0] = PAUSE_SECONDS
    log.append(entry(1))
    assert numbers(log) == [1]


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """The fault names it; a log that is not open refuses what comes."""
    (tmp_path / "file").touch()
    log = SpoolLog(tmp_path / "file" / "log", quota())
    with pytest.raises(SpoolFault) as caught:
        log.open()
    assert caught.value.reason is Reason.NO_DIRECTORY
    assert str(tmp_path / "file") in caught.value.text
    assert not log.is_open
    with pytest.raises(SpoolFault):
        log.append(entry(1))


def test_files_of_others_are_not_ours(tmp_path: Path) -> None:
    """What does not have the name of a file of a log is not looked at."""
    log = opened(tmp_path)
    fill(log, 1)
    log.close()
    for name in ("notes.txt", "copy.spool", "000000000001.spool.bak"):
        (tmp_path / name).write_text("not ours")
    assert numbers(opened(tmp_path)) == [1]
    assert (tmp_path / "copy.spool").read_text() == "not ours"


def test_a_file_of_another_version_stays_and_is_told(tmp_path: Path) -> None:
    """It takes room, and is neither read nor changed."""
    log = opened(tmp_path)
    fill(log, 3)
    log.close()
    (path,) = segment_files(tmp_path)
    octets = bytearray(path.read_bytes())
    octets[8] += 1
    path.write_bytes(octets)
    again = SpoolLog(tmp_path, quota())
    found = again.open()
    assert (found.messages, found.foreign) == (0, (path,))
    assert again.bytes == len(octets)
    again.append(entry(9))
    assert numbers(again) == [9]
    assert path.read_bytes() == octets


def test_what_was_written_is_brought_to_the_disk(tmp_path: Path) -> None:
    """When asked, and once; a file that is full by itself; the directory when there is a new file in it."""
    flushed: list[int] = []
    log = SpoolLog(tmp_path / "log", quota(), flushed.append)
    log.open()
    log.append(entry(1))
    assert len(flushed) == 1
    log.sync()
    log.sync()
    assert len(flushed) == 2
    log._segment_bytes = 1
    log.append(entry(2))
    assert len(flushed) == 4
    log.close()
