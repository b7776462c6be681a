"""Wires into network namespaces of our own, on which traffic can be sent that reaches nothing else."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import Container
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

PACKETS_PER_SECOND: Final = 1000
FAR_END: Final = "eth0"
_MTU: Final = 9000
_PATIENCE_SECONDS: Final = 60.0
_SBIN: Final = ("/usr/sbin", "/sbin", "/usr/local/sbin")


def program(name: str, package: str) -> str:
    """Where a program is; the test is skipped, with the package to install, when it is not there."""
    for folder in (None, *_SBIN):
        found = shutil.which(name, path=folder)
        if found is not None:
            return found
    pytest.skip(f"{name} is not installed (Debian, Ubuntu: apt-get install {package})")


def run(*command: str, well: Container[int] = (0,)) -> str:
    """Run a program to its end, and return what it said; it has to end with a status that means well."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=_PATIENCE_SECONDS, stdin=subprocess.DEVNULL
    )
    said = done.stdout + done.stderr
    assert done.returncode in well, f"{' '.join(command)}: status {done.returncode}\n{said}"
    return said


class Wire:
    """A pair of virtual interfaces: `near` is here, without an address, its other end in a namespace of its own.

    Neither end has IPv6, so that no neighbour discovery mixes with the traffic of a test.
    """

    def __init__(self) -> None:
        self._ip = program("ip", "iproute2")
        self._replay = program("tcpreplay", "tcpreplay")
        # The kernel has room for 15 characters.
        self.near = f"sw{uuid.uuid4().hex[:8]}"
        self.namespace = self.near

    def __enter__(self) -> Self:
        made = subprocess.run(
            [self._ip, "netns", "add", self.namespace], capture_output=True, text=True, check=False, timeout=30
        )
        if made.returncode:
            pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
        try:
            run(self._ip, "link", "add", self.near, "type", "veth", "peer", "name", FAR_END, "netns", self.namespace)
            self._inside("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6")
            Path(f"/proc/sys/net/ipv6/conf/{self.near}/disable_ipv6").write_text("1", encoding="ascii")
            run(self._ip, "link", "set", self.near, "mtu", str(_MTU), "up")
            run(self._ip, "-n", self.namespace, "link", "set", FAR_END, "mtu", str(_MTU), "up")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A pair goes with either of its ends, and those with the namespace that they are in.
        run(self._ip, "netns", "delete", self.namespace)

    @property
    def index(self) -> int:
        """The ifIndex of the near end."""
        return int(Path(f"/sys/class/net/{self.near}/ifindex").read_text(encoding="ascii"))

    def replay(self, capture: Path, packets: int, packets_per_second: int = PACKETS_PER_SECOND) -> None:
        """Send the packets of a capture into the far end, so that they come out here; all of them have to be sent."""
        rate = f"--pps={packets_per_second}"
        said = self._inside(self._replay, "--quiet", f"--intf1={FAR_END}", rate, str(capture))
        assert f"Successful packets:        {packets}\n" in said, said

    def received(self) -> int:
        """The packets that came out of the far end, by the kernel's count."""
        path = f"/sys/class/net/{FAR_END}/statistics/rx_packets"
        return int(self._inside("cat", path))

    def _inside(self, *command: str) -> str:
        return run(self._ip, "netns", "exec", self.namespace, *command)
