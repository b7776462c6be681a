from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from ingest.spool.disk import MOST_WAITING, DiskWriter


def test_files_are_brought_to_the_disk_behind_our_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks goes on at once, and may close the file; when the disk is slow, the rest is left to the kernel."""
    free, synced = threading.Event(), []

    def slow(descriptor: int) -> None:
        assert free.wait(30.0)
        synced.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fdatasync", slow)
    disk = DiskWriter()
    with (tmp_path / "file").open("wb") as file:
        number = os.fstat(file.fileno()).st_ino
        for _ in range(3 * MOST_WAITING):
            disk.sync(file.fileno())
    free.set()
    disk.close(30.0)
    assert set(synced) == {number}
    # One more may have been taken from the queue before it was full.
    assert MOST_WAITING <= len(synced) <= MOST_WAITING + 1
    assert disk.left_out == 3 * MOST_WAITING - len(synced)


def test_without_a_descriptor_the_loop_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is kept, and the next file is brought to the disk when there is one again."""
    synced = threading.Event()
    monkeypatch.setattr(os, "fdatasync", lambda _: synced.set())

    def none_left(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    disk = DiskWriter()
    read, write = os.pipe()
    with monkeypatch.context() as patch:
        patch.setattr(os, "dup", none_left)
        disk.sync(write)
    assert disk.error is not None
    assert disk.error.errno == errno.EMFILE
    assert not synced.is_set()
    disk.sync(write)
    assert synced.wait(30.0)
    disk.close(30.0)
    os.close(read)
    os.close(write)


def test_an_error_of_the_disk_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is let go, and what comes after it is still tried."""

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    disk = DiskWriter()
    read, write = os.pipe()
    disk.sync(write)
    disk.sync(write)
    disk.close(30.0)
    assert disk.error is not None
    assert disk.error.errno == errno.EIO
    os.close(read)
    os.close(write)
