from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ingest.spool import Found, Reason, Share, Spool, SpoolFault
from ingest.spool.store import MOST_SLOTS, RETRY_SECONDS, SYNC_SECONDS
from tests.ingest.spool.entries import LIMIT, entry, numbers

RECORDS, COUNTERS = "flows.records", "flows.counters"
LATER = 1e9
"""A time at which everything is due."""


class Heard:
    """What a spool says."""

    def __init__(self) -> None:
        self.what_was_found: list[tuple[str, Found, int]] = []
        self.faults: list[SpoolFault] = []

    def found(self, topic: str, found: Found, known: int) -> None:
        """Messages were there."""
        self.what_was_found.append((topic, found, known))

    def failed(self, fault: SpoolFault) -> None:
        """Something cannot be done."""
        self.faults.append(fault)

    @property
    def reasons(self) -> list[Reason]:
        """Of all faults."""
        return [fault.reason for fault in self.faults]

    @property
    def messages(self) -> int:
        """That were found, in all."""
        return sum(found.messages for _, found, _ in self.what_was_found)


def spool(
    root: Path, index: int = 0, count: int = 1, known: Mapping[str, int] | None = None, used: list[int] | None = None
) -> tuple[Spool, Heard]:
    """The spool of a worker, opened."""
    heard = Heard()
    share = Share(index, count, used if used is not None else [0] * count, known or {})
    ours = Spool(root, LIMIT, share, [RECORDS, COUNTERS], heard)
    ours.open()
    return ours, heard


def leave(root: Path, index: int, count: int, first: int, last: int, topic: str = RECORDS) -> None:
    """A worker spools messages, and ends."""
    ours, _ = spool(root, index, count)
    for number in range(first, last + 1):
        ours.logs[topic].append(entry(number))
    ours.close()


def test_each_worker_has_a_directory_and_each_topic_a_log(tmp_path: Path) -> None:
    """What one writes is not the other's, and what was there is found by the next in its place."""
    spools = [spool(tmp_path / "spool", index, 2)[0] for index in range(2)]
    for number, ours in enumerate(spools):
        ours.logs[RECORDS].append(entry(number))
        ours.logs[COUNTERS].append(entry(10 + number))
        assert ours.bytes == sum(log.bytes for log in ours.logs.values()) > 0
    for ours in spools:
        ours.close()
    for number in range(2):
        again, heard = spool(tmp_path / "spool", number, 2)
        assert numbers(again.logs[RECORDS]) == [number]
        assert numbers(again.logs[COUNTERS]) == [10 + number]
        assert heard.messages == 2
        again.close()


def test_what_was_known_is_told_with_what_is_there(tmp_path: Path) -> None:
    """Each topic is told of once at the start, so that the books can be put right, and without a directory too."""
    leave(tmp_path, 0, 1, 1, 4)
    again, heard = spool(tmp_path, known={RECORDS: 17, "old.flows.records": 5})
    assert {topic: (found.records, known) for topic, found, known in heard.what_was_found} == {
        RECORDS: (10, 17),
        COUNTERS: (0, 0),
        "old.flows.records": (0, 5),
    }
    again.close()
    (tmp_path / "file").touch()
    _, heard = spool(tmp_path / "file", known={RECORDS: 17})
    assert heard.what_was_found == [(RECORDS, Found(), 17)]
    assert heard.reasons == [Reason.NO_DIRECTORY]


@pytest.mark.parametrize(("before", "after"), [(4, 1), (4, 3), (1, 4), (3, 2), (2, 5)])
def test_with_another_number_of_workers_nothing_is_left_behind(tmp_path: Path, before: int, after: int) -> None:
    """Each takes over the directories that nobody else will, and all messages are found once, each log in its order."""
    for index in range(before):
        leave(tmp_path, index, before, 10 * index + 1, 10 * index + 5)
        leave(tmp_path, index, before, 10 * index + 6, 10 * index + 6, COUNTERS)
    used = [0] * after
    spools = [spool(tmp_path, index, after, used=used) for index in range(after)]
    found = [numbers(ours.logs[RECORDS]) for ours, _ in spools]
    assert sorted(number for one in found for number in one) == sorted(
        10 * index + number for index in range(before) for number in range(1, 6)
    )
    assert all(one == sorted(one) for one in found)
    assert sum(heard.messages for _, heard in spools) == 6 * before
    assert used == [ours.bytes for ours, _ in spools]
    for ours, _ in spools:
        ours.close()


def test_a_directory_that_is_in_use_is_left_alone_until_it_is_free(tmp_path: Path) -> None:
    """A worker that outlives its supervisor keeps its own; the next takes another, and later what the first has left."""
    first, _ = spool(tmp_path)
    first.logs[RECORDS].append(entry(1))
    second, heard = spool(tmp_path)
    second.logs[RECORDS].append(entry(2))
    assert heard.messages == 0
    second.tend(LATER)
    assert heard.messages == 0
    first.close()
    second.tend(2 * LATER)
    assert heard.messages == 1
    assert numbers(second.logs[RECORDS]) == [2, 1]
    second.close()
    third, heard = spool(tmp_path)
    assert heard.messages == 2
    assert sorted(numbers(third.logs[RECORDS])) == [1, 2]
    third.close()


HOLDER = """
import sys, time
from pathlib import Path
from tests.ingest.spool.test_store import spool
spool(Path(sys.argv[1]))
print("here", flush=True)
time.sleep(600)
"""


def test_the_lock_of_a_process_that_was_killed_is_gone(tmp_path: Path) -> None:
    """While it lives another process cannot have its directory, and whoever comes after its end can."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"here\n"
        beside, _ = spool(tmp_path)
        holder.kill()
    beside.close()
    after, _ = spool(tmp_path)
    used = {path.parent.parent.name for path in tmp_path.glob("*/*/*.spool")}
    after.logs[RECORDS].append(entry(1))
    after.close()
    assert used == set()
    assert [path.parent.parent.name for path in tmp_path.glob("*/*/*.spool")] == ["worker-0"]


def test_when_all_directories_are_in_use_that_is_told(tmp_path: Path) -> None:
    """Instances that share a directory by mistake do not disturb each other."""
    spools = [spool(tmp_path)[0] for _ in range(MOST_SLOTS)]
    ours, heard = spool(tmp_path)
    assert heard.reasons == [Reason.LOCKED]
    assert "of its own" in heard.faults[0].text
    with pytest.raises(SpoolFault):
        ours.logs[RECORDS].append(entry(1))
    for one in (*spools, ours):
        one.close()


def test_a_directory_that_comes_later_is_used_then(tmp_path: Path) -> None:
    """Until then each message is refused with the reason; it is tried again now and then, not all the time."""
    (tmp_path / "spool").touch()
    ours, heard = spool(tmp_path / "spool")
    assert heard.reasons == [Reason.NO_DIRECTORY]
    with pytest.raises(SpoolFault) as caught:
        ours.logs[RECORDS].append(entry(1))
    assert caught.value.reason is Reason.NO_DIRECTORY
    ours.tend(LATER)
    ours.tend(LATER + RETRY_SECONDS / 2)
    assert heard.reasons == [Reason.NO_DIRECTORY] * 2
    (tmp_path / "spool").unlink()
    ours.tend(LATER + RETRY_SECONDS)
    ours.logs[RECORDS].append(entry(1))
    assert numbers(ours.logs[RECORDS]) == [1]
    assert len(heard.reasons) == 2
    ours.close()


def test_messages_of_other_topics_are_told_of_and_kept(tmp_path: Path) -> None:
    """With another prefix nothing is sent to a topic that it was not meant for."""
    heard = Heard()
    old = Spool(tmp_path, LIMIT, Share(0, 1, [0]), ["old.flows.records"], heard)
    old.open()
    old.logs["old.flows.records"].append(entry(1))
    old.close()
    ours, heard = spool(tmp_path)
    ours.tend(LATER)
    assert heard.reasons == [Reason.OTHER_TOPIC]
    assert "kafka.topic_prefix" in heard.faults[0].text
    assert heard.messages == 0
    ours.close()
    again = Spool(tmp_path, LIMIT, Share(0, 1, [0]), ["old.flows.records"], heard)
    again.open()
    assert numbers(again.logs["old.flows.records"]) == [1]
    again.close()


def test_the_number_of_partitions_is_kept(tmp_path: Path) -> None:
    """It is what a start without any broker goes by."""
    ours, _ = spool(tmp_path)
    assert ours.partitions == 0
    ours.note_partitions(48)
    assert ours.partitions == 48
    ours.close()
    again, _ = spool(tmp_path)
    assert again.partitions == 48
    (tmp_path / "worker-0" / "partitions").write_text("many")
    assert again.partitions == 0
    again.close()


def test_what_was_written_is_brought_to_the_disk_every_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop does not wait for it, and an error of the disk is told."""
    ours, heard = spool(tmp_path)
    asked: list[int] = []
    monkeypatch.setattr(ours.logs[RECORDS], "_flush", asked.append)
    ours.logs[RECORDS].append(entry(1))
    begun = len(asked)
    ours.tend(LATER)
    ours.logs[RECORDS].append(entry(2))
    ours.tend(LATER + SYNC_SECONDS / 2)
    assert len(asked) == begun + 1
    ours.tend(LATER + SYNC_SECONDS)
    assert len(asked) == begun + 2
    ours._disk.error = OSError(5, "Input/output error")
    ours.tend(LATER + 2 * SYNC_SECONDS)
    assert heard.reasons == [Reason.INPUT_OUTPUT]
    ours.close()


def test_a_disk_that_is_too_slow_is_told(tmp_path: Path) -> None:
    """Once for all files that were left to the kernel meanwhile."""
    ours, heard = spool(tmp_path)
    ours._disk.left_out = 5
    for second in range(3):
        ours.tend(LATER + second * SYNC_SECONDS)
    assert heard.reasons == [Reason.SLOW]
    ours.close()
