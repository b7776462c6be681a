"""What the system tells: CPU time of processes, datagrams that the kernel dropped, and what machine this is."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import confluent_kafka
import numpy as np

from deploy.local import kafka

TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU time in seconds, to a hundredth."""

    user: float = 0.0
    system: float = 0.0

    @property
    def total(self) -> float:
        """User and system time together."""
        return self.user + self.system

    def __add__(self, other: Cpu) -> Cpu:
        return Cpu(self.user + other.user, self.system + other.system)

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(self.user - other.user, self.system - other.system)


def tree(root: int) -> dict[int, str]:
    """A process and all that descend from it, by process id, with their names."""
    children: dict[int, list[int]] = defaultdict(list)
    names: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and (found := _stat(folder)) is not None:
            name, fields = found
            children[int(fields[1])].append(int(folder.name))
            names[int(folder.name)] = name
    found_tree: dict[int, str] = {}
    todo = [root]
    while todo:
        pid = todo.pop()
        if pid in names:
            found_tree[pid] = names[pid]
            todo += children[pid]
    return found_tree


def cpu(pids: Mapping[int, str]) -> Cpu:
    """CPU time of these processes, all their threads, since they were started."""
    return sum((_cpu(Path(f"/proc/{pid}")) for pid in pids), Cpu())


def cpu_by_part(pids: Mapping[int, str], root: int) -> dict[str, Cpu]:
    """The same by what the threads do: those of the root process, and those of the processes that it started."""
    parts: dict[str, Cpu] = defaultdict(Cpu)
    for pid in pids:
        for folder in Path("/proc").glob(f"{pid}/task/*"):
            if (found := _stat(folder)) is not None:
                if pid == root:
                    part = "supervisor"
                elif folder.name == str(pid):
                    part = "worker: receive, decode, gather, encode"
                else:
                    part = "worker: librdkafka" if found[0].startswith("rdk:") else "worker: other threads"
                parts[part] += _cpu(folder)
    return dict(parts)


def _stat(folder: Path) -> tuple[str, list[str]] | None:
    """The name and the fields after it of a process or thread; None when it is gone (proc(5))."""
    try:
        text = (folder / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    before, _, after = text.rpartition(")")
    return before.partition("(")[2], after.split()


def _cpu(folder: Path) -> Cpu:
    found = _stat(folder)
    if found is None:
        return Cpu()
    return Cpu(int(found[1][11]) / TICKS, int(found[1][12]) / TICKS)


def kernel_drops(port: int) -> int:
    """Datagrams that the kernel dropped at sockets which are bound to this UDP port now, since they were bound."""
    return sum(int(fields[-1]) for fields in _udp_sockets() if int(fields[1].rpartition(":")[2], 16) == port)


def _udp_sockets() -> Iterator[list[str]]:
    for name in ("udp", "udp6"):
        table = Path("/proc/net") / name
        if table.exists():
            yield from (line.split() for line in table.read_text(encoding="ascii").splitlines()[1:])


def machine() -> dict[str, str | int]:
    """What machine this is."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "virtual": "hypervisor" in text,
        "memory_gib": round(int(memory[1]) / 2**20) if memory else 0,
        "kernel": platform.release(),
    }


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    return {
        "sluiceway": version("sluiceway"),
        "revision": _revision(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "pyarrow", "confluent-kafka", "xxhash")},
        "librdkafka": confluent_kafka.libversion()[0],
        "kafka": _kafka_version(),
    }


def yardstick() -> float:
    """CPU milliseconds that a fixed piece of work takes: tells a slow moment of the machine from a slow program."""
    numbers = np.random.default_rng(1).integers(0, 1 << 62, 1 << 20)
    begin = time.process_time()
    numbers[np.argsort(numbers)].tobytes()
    return (time.process_time() - begin) * 1000


def today() -> str:
    """The date, as files are named by it."""
    return f"{datetime.now(UTC):%Y-%m-%d}"


def _revision() -> str:
    command = ["git", "-C", str(kafka.CHECKOUT), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _kafka_version() -> str:
    if kafka.given_bootstrap_servers() is not None:
        return "not ours"
    pom = (kafka.HERE / "pom.xml").read_text(encoding="utf-8")
    found = re.search(r"<artifactId>kafka_[\d.]+</artifactId>\s*<version>([^<]+)", pom)
    return found[1] if found else "unknown"
