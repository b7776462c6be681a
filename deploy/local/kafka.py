"""A real Kafka on a laptop: one broker, by Docker or from Apache Kafka's own jars.

`python deploy/local/kafka.py start|stop|status` is what `make kafka` runs. Tests and `make run` make their own brokers
with `broker()`, each with its own directory and port. Whoever sets KAFKA_BOOTSTRAP_SERVERS gets that Kafka instead.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
HOME = CHECKOUT / ".local" / "kafka"

# Not "localhost": where that is ::1 first, every client would begin with a refused connection.
HOST = "127.0.0.1"
DEFAULT_PORT = 9092
OLDEST_JAVA = 17
START_SECONDS = 90.0
STOP_SECONDS = 30.0

# A single broker can keep one replica; a test must not wait three seconds for a group's first assignment, nor 45 until
# a killed member is missed, nor a killed broker nine for its own earlier session.
BROKER_SETTINGS: Mapping[str, str] = {
    "auto.create.topics.enable": "false",
    "broker.heartbeat.interval.ms": "1000",
    "broker.session.timeout.ms": "4000",
    "group.consumer.heartbeat.interval.ms": "2000",
    "group.consumer.min.heartbeat.interval.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "log.cleaner.dedupe.buffer.size": "8388608",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
}

Say = Callable[[str], None]


class KafkaUnavailable(Exception):
    """No local Kafka can be had; the message says what to install or to change."""


class Broker(Protocol):
    """One broker of our own, whichever way it is run."""

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect, as host:port; known once it has been started."""

    def is_running(self) -> bool:
        """Whether the broker's process is alive; it may not answer yet."""

    def start(self) -> None:
        """Start it unless it runs, and return when it answers; raises KafkaUnavailable."""

    def stop(self) -> None:
        """Stop it cleanly, and keep its data; nothing happens when it does not run."""

    def kill(self) -> None:
        """End it by SIGKILL, and keep its data."""

    def restart(self) -> None:
        """Kill it and start it again on the same data and the same port."""


class LocalKafka:
    """A broker from Apache Kafka's jars: its data, settings, process id and log live in one directory.

    `port` 0 takes a free one, and keeps it. `settings` are broker properties, and have the last word. `variables` are
    of its environment, besides ours.
    """

    def __init__(
        self,
        directory: Path,
        port: int = 0,
        *,
        settings: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
        jars: Path = HOME,
        say: Say = print,
    ) -> None:
        self.directory = directory.resolve()
        self.port = port
        self._settings = dict(settings or {})
        self._variables = dict(variables or {})
        self._jars = jars
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect."""
        return f"{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        """The broker's log file."""
        return self.directory / "kafka.log"

    @property
    def pid(self) -> int | None:
        """The broker's process; None while it does not run."""
        return self._pid()

    def is_running(self) -> bool:
        """Whether the process that this directory's pid file names is alive, and is this directory's broker."""
        return self._pid() is not None

    def start(self) -> None:
        """Start the broker unless it runs, and return when it answers.

        Blocks for 5 to 10 seconds, and for a download before that when the jars are not there yet.
        """
        if self.is_running():
            running = self._port_of_running()
            if self.port not in {0, running}:
                raise KafkaUnavailable(
                    f"the Kafka of {self.directory} already runs, on port {running}: stop it first, or use that port"
                )
            self.port = running
            self._wait_until_it_answers()
            return
        java, jars = find_java(), fetch_jars(self._jars, self._say)
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.port == 0:
            self.port = free_port()
        require_free(self.port)
        self._write_settings(controller_port=free_port())
        self._format(java, jars)
        self._launch(java, jars)
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop the broker by SIGTERM, or by SIGKILL when it has not ended after 30 seconds."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker by SIGKILL, as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill the broker and start it again on the same data and the same port."""
        self.kill()
        self.start()

    # --- files ------------------------------------------------------------------------------------------------------

    @property
    def _settings_file(self) -> Path:
        return self.directory / "server.properties"

    @property
    def _pid_file(self) -> Path:
        return self.directory / "pid"

    def _write_settings(self, controller_port: int) -> None:
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "listeners": f"HOST://{HOST}:{self.port},CONTROLLER://{HOST}:{controller_port}",
            "advertised.listeners": f"HOST://{HOST}:{self.port}",
            "listener.security.protocol.map": "HOST:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "HOST",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": f"1@{HOST}:{controller_port}",
            "log.dirs": str(self.directory / "data"),
            **BROKER_SETTINGS,
            **self._settings,
        }
        lines = [f"{name}={value}\n" for name, value in properties.items()]
        self._settings_file.write_text("".join(lines), encoding="utf-8")

    def _port_of_running(self) -> int:
        found = re.search(
            r"^listeners=HOST://[^:]+:(\d+)", self._settings_file.read_text(encoding="utf-8"), re.MULTILINE
        )
        if found is None:
            raise KafkaUnavailable(f"{self._settings_file} names no port: stop the broker, and remove that directory")
        return int(found[1])

    # --- the process ------------------------------------------------------------------------------------------------

    def _java_command(self, java: Path, jars: Path, main: str, *options: str) -> list[str]:
        return [str(java), *options, "-cp", str(jars / "*"), main]

    def _format(self, java: Path, jars: Path) -> None:
        if (self.directory / "data" / "meta.properties").exists():
            return
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
        # An id that begins with a dash would be read as an option.
        cluster = "s" + cluster[1:]
        command = self._java_command(java, jars, "kafka.tools.StorageTool", "-XX:TieredStopAtLevel=1", "-Xmx128m")
        command += ["format", "--cluster-id", cluster, "--config", str(self._settings_file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise KafkaUnavailable(f"Kafka could not make its data directory:\n{done.stdout}{done.stderr}")

    def _launch(self, java: Path, jars: Path) -> None:
        command = self._java_command(
            java,
            jars,
            "kafka.Kafka",
            "-Xms128m",
            "-Xmx512m",
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=20",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}",
            f"-Dsluiceway.kafka.log={self.log}",
        )
        command.append(str(self._settings_file))
        with (self.directory / "kafka.out").open("wb") as output:
            # Its own session: Ctrl-C at the terminal is for us, and we stop it in our order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=os.environ | self._variables,
                start_new_session=True,
            )
        self._pid_file.write_text(f"{self._process.pid}\n", encoding="ascii")

    def _pid(self) -> int | None:
        if self._process is not None:
            return self._process.pid if self._process.poll() is None else None
        try:
            pid = int(self._pid_file.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None
        return pid if str(self._settings_file) in command_line(pid) else None

    def _end(self, number: signal.Signals) -> None:
        pid = self._pid()
        if pid is not None:
            os.kill(pid, number)
            if not self._ends_within(STOP_SECONDS):
                os.kill(pid, signal.SIGKILL)
                if not self._ends_within(STOP_SECONDS):
                    raise KafkaUnavailable(f"process {pid}, the Kafka of {self.directory}, does not end")
        if self._process is not None:
            self._process.wait()
            self._process = None
        self._pid_file.unlink(missing_ok=True)

    def _ends_within(self, seconds: float) -> bool:
        return poll(lambda: self._pid() is None, seconds)

    def _wait_until_it_answers(self) -> None:
        wait_until_it_answers(self.bootstrap_servers, START_SECONDS, self._why_it_ended)

    def _why_it_ended(self) -> str | None:
        if self.is_running():
            return None
        return f"Kafka ended while it started; its log is {self.log}:\n{last_lines(self.log, self.directory / 'kafka.out')}"


class DockerKafka:
    """A broker from the official image, run by `docker compose`; its project is named by its directory.

    `port` 0 takes a free one, and keeps it. `settings` are broker properties, and have the last word.
    """

    def __init__(
        self, directory: Path, port: int = 0, *, settings: Mapping[str, str] | None = None, say: Say = print
    ) -> None:
        self.directory = directory.resolve()
        self.port = port
        self._settings = dict(settings or {})
        self._say = say
        self._project = "sluiceway-" + hashlib.sha256(str(self.directory).encode()).hexdigest()[:8]

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect."""
        return f"{HOST}:{self.port}"

    def is_running(self) -> bool:
        """Whether the container of this directory runs."""
        return bool(self._compose("ps", "--status", "running", "--quiet").strip())

    def start(self) -> None:
        """Start the container unless it runs, and return when Kafka answers; pulls the image the first time."""
        if self.is_running():
            running = int(self._compose("port", "kafka", "9092").strip().rpartition(":")[2])
            if self.port not in {0, running}:
                raise KafkaUnavailable(f"this Kafka already runs, on port {running}: stop it first, or use that port")
            self.port = running
        else:
            self.directory.mkdir(parents=True, exist_ok=True)
            if self.port == 0:
                self.port = free_port()
            require_free(self.port)
            self._say("starting Kafka by Docker (the image is pulled once)")
            self._up()
        wait_until_it_answers(self.bootstrap_servers, START_SECONDS, self._why_it_ended)

    def stop(self) -> None:
        """Stop and remove the container; its volume stays."""
        self._compose("down")

    def kill(self) -> None:
        """End the container by SIGKILL, as a crash would."""
        self._compose("kill", "--signal", "SIGKILL")

    def restart(self) -> None:
        """Kill the container and start it again on the same data and the same port."""
        self.kill()
        self._up()
        wait_until_it_answers(self.bootstrap_servers, START_SECONDS, self._why_it_ended)

    def remove(self) -> None:
        """Stop and remove the container, and its data too."""
        self._compose("down", "--volumes")

    def _up(self) -> None:
        environment = {"KAFKA_" + name.upper().replace(".", "_"): value for name, value in self._settings.items()}
        # JSON is YAML: this adds to the service's environment what this broker has of its own.
        self._own_settings.write_text(
            json.dumps({"services": {"kafka": {"environment": environment}}}), encoding="utf-8"
        )
        self._compose("up", "--detach", "--quiet-pull")

    @property
    def _own_settings(self) -> Path:
        return self.directory / "compose.settings.json"

    def _compose(self, *arguments: str) -> str:
        files = ["--file", str(HERE / "compose.yaml")]
        if self._own_settings.exists():
            files += ["--file", str(self._own_settings)]
        command = ["docker", "compose", "--project-name", self._project, *files, *arguments]
        environment = {**os.environ, "KAFKA_PORT": str(self.port or DEFAULT_PORT)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode != 0:
            raise KafkaUnavailable(f"`docker compose {' '.join(arguments)}` failed:\n{done.stderr.strip()}")
        return done.stdout

    def _why_it_ended(self) -> str | None:
        if self.is_running():
            return None
        return f"Kafka ended while it started:\n{self._compose('logs', '--tail', '20', '--no-log-prefix')}"


# --- the choice -----------------------------------------------------------------------------------------------------


def given_bootstrap_servers(environ: Mapping[str, str] = os.environ) -> str | None:
    """The Kafka that the person named by KAFKA_BOOTSTRAP_SERVERS, which is used instead of one of our own."""
    return environ.get("KAFKA_BOOTSTRAP_SERVERS") or None


def broker(directory: Path, port: int = 0, *, settings: Mapping[str, str] | None = None, say: Say = print) -> Broker:
    """Make a broker (not started) in the way that this machine allows: Docker, else Java and Maven.

    Raises KafkaUnavailable with what to install when neither is possible.
    """
    no_docker = why_no_docker()
    if no_docker is None:
        return DockerKafka(directory, port, settings=settings, say=say)
    no_jars = why_no_jars()
    if no_jars is None:
        return LocalKafka(directory, port, settings=settings, say=say)
    raise KafkaUnavailable(
        f"no local Kafka can be started: {no_docker}, and {no_jars}. One of these helps:\n"
        "  - Docker with its compose plugin, and its daemon running;\n"
        f"  - Java {OLDEST_JAVA} or newer and Maven (Debian, Ubuntu: apt-get install openjdk-17-jre-headless maven; "
        "macOS: brew install openjdk@17 maven);\n"
        "  - a Kafka that runs elsewhere: KAFKA_BOOTSTRAP_SERVERS=host:9092."
    )


def why_no_docker() -> str | None:
    """Why Docker cannot run a broker, or None when it can; a client without a daemon is common."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    for command, reason in (
        (["docker", "info"], "Docker's daemon does not answer"),
        (["docker", "compose", "version"], "Docker has no compose plugin"),
    ):
        try:
            done = subprocess.run(command, capture_output=True, check=False, timeout=20)
        except subprocess.TimeoutExpired:
            return reason
        if done.returncode != 0:
            return reason
    return None


def why_no_jars() -> str | None:
    """Why the jars cannot be fetched or run, or None when they can."""
    try:
        find_java()
    except KafkaUnavailable as error:
        return str(error)
    if shutil.which("mvn") is None and not jars_directory(HOME).exists():
        return "Maven (mvn) is not installed"
    return None


def find_java() -> Path:
    """The Java that JAVA_HOME or PATH gives; raises KafkaUnavailable when there is none or it is too old."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    found = found or shutil.which("java")
    if found is None:
        raise KafkaUnavailable("Java is not installed")
    done = subprocess.run([found, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(\d+)', done.stderr)
    if done.returncode != 0 or version is None:
        raise KafkaUnavailable(f"{found} does not run")
    if int(version[1]) < OLDEST_JAVA:
        raise KafkaUnavailable(f"{found} is Java {version[1]}, and Kafka needs {OLDEST_JAVA} or newer")
    return Path(found)


# --- the jars -------------------------------------------------------------------------------------------------------


def jars_directory(home: Path) -> Path:
    """Where the jars that pom.xml names are kept: another pom, another directory."""
    return home / ("jars-" + hashlib.sha256((HERE / "pom.xml").read_bytes()).hexdigest()[:8])


def fetch_jars(home: Path, say: Say) -> Path:
    """Fetch the jars unless they are there; one process fetches, the others wait for it."""
    jars = jars_directory(home)
    if jars.exists():
        return jars
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / "jars.lock"):
        if jars.exists():
            return jars
        maven = shutil.which("mvn")
        if maven is None:
            raise KafkaUnavailable("Maven (mvn) is not installed, and Kafka's jars have not been fetched yet")
        partial = home / "jars.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        copy_dependencies(maven, partial, say)
        partial.rename(jars)
    return jars


def copy_dependencies(maven: str, into: Path, say: Say) -> None:
    """Have Maven copy the jars into a directory, saying how far it is every ten seconds."""
    say("fetching Apache Kafka with Maven (43 MB, once)")
    command = [
        maven,
        "-q",
        "-B",
        "-f",
        str(HERE / "pom.xml"),
        "dependency:copy-dependencies",
        f"-DoutputDirectory={into}",
    ]
    with (into.parent / "maven.log").open("w+b") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        seconds = 0
        try:
            while (status := exit_status(process, 10.0)) is None:
                seconds += 10
                say(f"  still fetching after {seconds} s")
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if status != 0 or not any(into.glob("kafka_*.jar")):
            log.seek(0)
            text = log.read().decode("utf-8", "replace")
            raise KafkaUnavailable(f"Maven could not fetch Kafka's jars:\n{text[-2000:]}")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock; blocks until whoever has it lets go."""
    with path.open("w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# --- small things of the operating system -----------------------------------------------------------------------------


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def require_free(port: int) -> None:
    """Raise KafkaUnavailable when somebody listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise KafkaUnavailable(
                f"port {port} is in use by another program: choose another with KAFKA_PORT, "
                f"or, if it is a Kafka that you want to use, set KAFKA_BOOTSTRAP_SERVERS={HOST}:{port}"
            ) from error


def command_line(pid: int) -> str:
    """The command line of a process, empty when there is none (or only its exit status is left)."""
    if Path("/proc/self").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            return ""
    done = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout


def exit_status(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit status of a process, or None when it still runs after so many seconds."""
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None


def poll(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition came true before the time was over."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def last_lines(*files: Path, lines: int = 20) -> str:
    """The last lines of the first of the files that has any."""
    for file in files:
        if file.exists() and (text := file.read_text(encoding="utf-8", errors="replace").strip()):
            return "\n".join(text.splitlines()[-lines:])
    return "(nothing was logged)"


def wait_until_it_answers(bootstrap_servers: str, seconds: float, why_it_ended: Callable[[], str | None]) -> None:
    """Ask by a real client until a broker is there to serve; raises KafkaUnavailable when it ends or time is over."""
    deadline = time.monotonic() + seconds
    while (missing := what_is_missing(bootstrap_servers)) is not None:
        if (reason := why_it_ended()) is not None:
            raise KafkaUnavailable(reason)
        if time.monotonic() > deadline:
            raise KafkaUnavailable(f"Kafka at {bootstrap_servers} does not answer after {seconds:.0f} s: {missing}")
        time.sleep(0.1)


def what_is_missing(bootstrap_servers: str, timeout_seconds: float = 1.0) -> str | None:
    """None when a broker answers, else what the client says of it."""
    # A new client each time: it connects at once, where a waiting one would back off. Refusals are what we wait out.
    settings: dict[str, str | int | float] = {
        "bootstrap.servers": bootstrap_servers,
        "log_level": 0,
        "socket.connection.setup.timeout.ms": 1000,
    }
    client = AdminClient(settings)
    try:
        brokers = client.list_topics(timeout=timeout_seconds).brokers
    except KafkaException as error:
        return str(error)
    return None if brokers else "no broker is registered yet"


# --- the command ----------------------------------------------------------------------------------------------------


def port_from(environ: Mapping[str, str]) -> int | None:
    """The port of KAFKA_PORT, None when it is not set; raises KafkaUnavailable when it is no port."""
    text = environ.get("KAFKA_PORT")
    if not text:
        return None
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise KafkaUnavailable(f"KAFKA_PORT is {text!r}, and must be a number from 1 to 65535")
    return int(text)


def broker_of_checkout(environ: Mapping[str, str], say: Say = print) -> Broker:
    """The broker of `make kafka`: the one that runs, else one (not started) on KAFKA_PORT or 9092."""
    asked = port_from(environ)
    ours = broker(HOME, asked or 0, say=say)
    return ours if ours.is_running() else broker(HOME, asked or DEFAULT_PORT, say=say)


def start(environ: Mapping[str, str]) -> None:
    """`make kafka`."""
    if (given := given_bootstrap_servers(environ)) is not None:
        if (missing := what_is_missing(given, 5.0)) is not None:
            raise KafkaUnavailable(f"KAFKA_BOOTSTRAP_SERVERS is {given}, and no Kafka answers there: {missing}")
        print(f"Kafka answers at {given}, which KAFKA_BOOTSTRAP_SERVERS names: nothing to start")
        return
    ours = broker_of_checkout(environ)
    if not ours.is_running():
        print("starting Kafka (5 to 10 seconds)", flush=True)
    ours.start()
    print(f"Kafka answers at {ours.bootstrap_servers}; its files are in {HOME}; `make kafka-stop` stops it")


def stop() -> None:
    """`make kafka-stop`: stops what `make kafka` started here, by whichever way, and nothing else."""
    stopped = False
    for one in running():
        one.stop()
        stopped = True
    print("Kafka is stopped; its data is kept" if stopped else "no Kafka of this checkout was running")


def status() -> int:
    """Say whether the Kafka of this checkout runs; the exit status says it too."""
    for one in running():
        one.start()
        print(f"Kafka answers at {one.bootstrap_servers}")
        return 0
    print("no Kafka of this checkout is running")
    return 1


def running() -> Iterator[Broker]:
    """The brokers of this checkout that run: at most one from jars and one by Docker."""
    jars = LocalKafka(HOME)
    if jars.is_running():
        yield jars
    if why_no_docker() is None and (docker := DockerKafka(HOME)).is_running():
        yield docker


def main(argv: Sequence[str] | None = None) -> int:
    """Start, stop or look at the Kafka of this checkout; returns the exit status."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("command", choices=["start", "stop", "status"])
    arguments = parser.parse_args(argv)
    try:
        match arguments.command:
            case "start":
                start(os.environ)
            case "stop":
                stop()
            case _:
                return status()
    except KafkaUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
