"""An Open vSwitch of our own in user space, between two wires: no kernel module, nothing of the system's is touched."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

import pytest

from deploy.local.kafka import exit_status, last_lines
from tests.integration.namespaces import Wire, program, run

PACKAGE: Final = "openvswitch-switch"
SCHEMA: Final = Path("/usr/share/openvswitch/vswitch.ovsschema")
BUSY: Final = "ovs-netdev: creating tap device failed: Device or resource busy"
"""What it says when another one has the interface of its datapath in user space, whose name cannot be chosen."""
_PATIENCE_SECONDS: Final = 30.0
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went through a port, in packets and in bytes of Ethernet without the check sequence."""

    received_packets: int
    received_bytes: int
    sent_packets: int
    sent_bytes: int


class Switch:
    """A bridge of two ports which forwards what comes in by the first out of the second, and drops the rest."""

    def __init__(self, directory: Path, first: Wire, second: Wire) -> None:
        self._programs = {
            name: program(name, PACKAGE)
            for name in ("ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovs-ofctl", "ovs-appctl")
        }
        self._directory = directory
        self.first, self.second = first, second
        # Its local port is an interface of this machine, so its name is our own as those of the wires are.
        self._bridge = f"{first.near}b"
        self._started: list[tuple[subprocess.Popen[bytes], Path]] = []

    def __enter__(self) -> Self:
        if not Path("/dev/net/tun").exists():
            pytest.skip("Open vSwitch in user space needs /dev/net/tun, which is not here")
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # Ended by a signal it would leave its interfaces behind.
        if self._started and Path(self._socket("vswitchd.ctl")).exists():
            run(self._programs["ovs-appctl"], f"--target={self._socket('vswitchd.ctl')}", "exit", "--cleanup")
            exit_status(self._started[-1][0], _PATIENCE_SECONDS)
        for process, log in reversed(self._started):
            if process.poll() is None:
                process.terminate()
                if exit_status(process, _PATIENCE_SECONDS) is None:
                    process.kill()
                    process.wait()
            print(last_lines(log, lines=40))  # noqa: T201 - pytest shows it when the test failed

    def export(self, kind: str, port: int, *settings: str) -> None:
        """Have it export to a port of this machine; `kind` is the table of its settings, as `sFlow`."""
        target = f'targets="127.0.0.1:{port}"'
        create = ["--", "--id=@it", "create", kind, target, *settings]
        self._control(*create, "--", "set", "bridge", self._bridge, f"{kind.lower()}=@it")

    def statistics(self, wire: Wire) -> Traffic:
        """What it counted on a port, by now."""
        said = self.openflow("dump-ports", wire.near)
        numbers = re.search(r"rx pkts=(\d+), bytes=(\d+),.*tx pkts=(\d+), bytes=(\d+),", said, re.DOTALL)
        assert numbers is not None, said
        return Traffic(*map(int, numbers.groups()))

    def until_forwarded(self, packets: int) -> None:
        """Wait until so many packets went out of the second port."""
        self.until(lambda: self.statistics(self.second).sent_packets >= packets, f"{packets} packets forwarded")

    def exported_flows(self, sampled: int) -> int:
        """Wait until IPFIX has sampled so many packets and keeps no flow of them; returns how many flows it sent."""

        def found() -> dict[str, int]:
            said = self.openflow("dump-ipfix-bridge")
            numbers = {name: int(value) for name, value in re.findall(r"([a-z][a-z0-9 ]*)=(\d+)", said)}
            assert numbers["pkts errs"] == numbers["tx errs"] == 0, said
            return numbers if numbers["sampled pkts"] >= sampled and numbers["current flows"] == 0 else {}

        return self.until(found, f"{sampled} packets sampled")["flows"]

    def openflow(self, command: str, *arguments: str) -> str:
        """Talk to its bridge in OpenFlow."""
        where = f"unix:{self._socket(f'{self._bridge}.mgmt')}"
        return run(self._programs["ovs-ofctl"], "--protocols=OpenFlow13", command, where, *arguments)

    def openflow_port(self, wire: Wire) -> int:
        """The number of a port, which NetFlow of this switch has in place of the ifIndex."""
        return int(self._control("get", "interface", wire.near, "ofport"))

    def _start(self) -> None:
        database = self._directory / "conf.db"
        self._directory.mkdir(parents=True, exist_ok=True)
        run(self._programs["ovsdb-tool"], "create", str(database), str(SCHEMA))
        self._serve("ovsdb-server", str(database), f"--remote=punix:{self._socket('db.sock')}")
        self.until(lambda: Path(self._socket("db.sock")).exists(), "a database")
        self._control("--no-wait", "init")
        self._serve("ovs-vswitchd", f"unix:{self._socket('db.sock')}")
        ports = [word for wire in (self.first, self.second) for word in ("--", "add-port", self._bridge, wire.near)]
        userspace = ["--", "set", "bridge", self._bridge, "datapath_type=netdev"]
        self._control("add-br", self._bridge, *userspace, *ports)
        if BUSY in self._started[-1][1].read_text(encoding="utf-8"):
            pytest.skip("another Open vSwitch works in user space here, and there can be one only")
        # Flows end a second after their last packet, where it would be ten.
        self._control("set", "Open_vSwitch", ".", "other_config:max-idle=1000")
        self._control("set", "bridge", self._bridge, "protocols=OpenFlow10,OpenFlow13")
        self.openflow("del-flows")
        self.openflow("add-flow", f"in_port={self.first.near},actions=output:{self.second.near}")

    def _serve(self, name: str, *arguments: str) -> None:
        log = self._directory / f"{name}.log"
        places = [f"--pidfile={self._socket(f'{name}.pid')}", f"--unixctl={self._socket(self._control_name(name))}"]
        # Sockets of bridges are made in this directory.
        own = os.environ | {"OVS_RUNDIR": str(self._directory), "OVS_LOGDIR": str(self._directory)}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [self._programs[name], *arguments, *places],
                cwd=self._directory,
                env=own,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._started.append((process, log))

    def _control(self, *arguments: str) -> str:
        """Set or ask its database; returns when the switch has done it."""
        return run(self._programs["ovs-vsctl"], "--timeout=30", f"--db=unix:{self._socket('db.sock')}", *arguments)

    def _socket(self, name: str) -> str:
        return str(self._directory / name)

    @staticmethod
    def _control_name(name: str) -> str:
        return f"{name.removeprefix('ovs-')}.ctl"

    def until(self, condition: Callable[[], Found], what: str) -> Found:
        """Wait until something about it is so, and return what the condition found."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not (found := condition()):
            for process, log in self._started:
                assert process.poll() is None, last_lines(log, lines=40)
            assert time.monotonic() < deadline, f"not in time: {what}"
            time.sleep(0.05)
        return found
