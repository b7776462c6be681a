import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from shared.commandline import Program
from shared.errors import ConfigError, SluicewayError, StartError

STAGES = ("ingest", "forwarder")


@pytest.fixture
def program() -> Iterator[Callable[[BaseException | int], Program]]:
    """A function that makes a program with one command, which answers or raises what is given."""
    name = "a_command_of_the_test"

    def make(outcome: BaseException | int) -> Program:
        def run(arguments: argparse.Namespace) -> int:
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
            subparsers.add_parser("a-command-of-the-test", help="does nothing").set_defaults(run=run)

        module = ModuleType(name)
        vars(module)["register"] = register
        sys.modules[name] = module
        return Program("ingest", "sluiceway-ingest", "what it does", "  how\n", (name,))

    yield make
    sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("outcome", "status", "told"),
    [
        pytest.param(0, 0, "", id="done"),
        pytest.param(1, 1, "", id="the command's own status"),
        pytest.param(ConfigError("a key is wrong"), 2, "python -m ingest: a key is wrong\n", id="configuration"),
        pytest.param(ConfigError("one\ntwo"), 2, "python -m ingest:\n  one\n  two\n", id="several faults"),
        pytest.param(StartError("the port is taken"), 1, "python -m ingest: the port is taken\n", id="start"),
        pytest.param(SluicewayError("no way"), 1, "python -m ingest: no way\n", id="other"),
        pytest.param(KeyboardInterrupt(), 0, "", id="interrupt"),
    ],
)
def test_errors_become_statuses(
    program: Callable[[BaseException | int], Program],
    capsys: pytest.CaptureFixture[str],
    outcome: BaseException | int,
    status: int,
    told: str,
) -> None:
    """An error that a person can mend is its message and a status; there is no traceback."""
    assert program(outcome).run(["a-command-of-the-test"]) == status
    assert capsys.readouterr().err == told


def test_a_defect_keeps_its_traceback(program: Callable[[BaseException | int], Program]) -> None:
    """What nobody foresaw is not made to look like an ordinary error."""
    with pytest.raises(ZeroDivisionError):
        program(ZeroDivisionError()).run(["a-command-of-the-test"])


def test_no_command_is_a_usage_error(
    program: Callable[[BaseException | int], Program], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a command the help is shown, and the status is 2."""
    assert program(0).run([]) == 2
    assert "a-command-of-the-test" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["nonsense", "--nonsense"])
def test_an_unknown_word_is_a_usage_error(program: Callable[[BaseException | int], Program], word: str) -> None:
    """What is no command or option is status 2."""
    with pytest.raises(SystemExit) as caught:
        program(0).run([word])
    assert caught.value.code == 2


def start(*arguments: str, cwd: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run a stage as a person does, away from any configuration."""
    root = str(Path(__file__).resolve().parents[2])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLUICEWAY_")}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env={**kept, "PYTHONPATH": root, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("stage", STAGES)
def test_help_teaches(stage: str, tmp_path: Path) -> None:
    """--help shows the commands, examples, exit statuses and the environment."""
    done = start(stage, "--help", cwd=tmp_path)
    assert done.returncode == 0
    for word in ("serve", "check-config", "examples:", "exit status:", "SLUICEWAY_CONFIG", f"python -m {stage} serve"):
        assert word in done.stdout


@pytest.mark.parametrize("stage", STAGES)
def test_check_config_prints_what_is_in_effect(stage: str, tmp_path: Path) -> None:
    """A usable configuration is printed with where each value comes from, and is status 0."""
    (tmp_path / "sluiceway.yaml").write_text("kafka:\n  partitions: 3\n", encoding="utf-8")
    done = start(stage, "check-config", cwd=tmp_path, SLUICEWAY_LOG__LEVEL="debug")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("# configuration file: sluiceway.yaml\n")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["partitions:", "3", "#", "sluiceway.yaml:2"] in lines
    assert ["level:", "debug", "#", "SLUICEWAY_LOG__LEVEL"] in lines
    assert ["replication_factor:", "1", "#", "default"] in lines


@pytest.mark.parametrize("stage", STAGES)
def test_check_config_names_the_fault(stage: str, tmp_path: Path) -> None:
    """An unknown key is named with its nearest neighbour on standard error, and is status 2."""
    (tmp_path / "my.yaml").write_text("kafka:\n  partitons: 3\n", encoding="utf-8")
    done = start(stage, "check-config", "--config", "my.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"python -m {stage}: my.yaml:2: kafka.partitons: unknown key" in done.stderr
    assert "kafka.partitions" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stage", STAGES)
def test_naming_commands_loads_nothing_heavy(stage: str, tmp_path: Path) -> None:
    """The table of commands is read without Kafka, Arrow or a web server: a command loads its own when it runs."""
    code = f"""
import sys
from {stage}.__main__ import PROGRAM
PROGRAM.parser()
print(sorted({{"confluent_kafka", "pyarrow", "numpy", "fastapi", "uvloop", "rich", "pydantic"}} & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """`check-config | head -0` ends without a traceback."""
    shell = f"{sys.executable} -m ingest check-config | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", shell],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_device_is_told_in_a_sentence(stage: str) -> None:
    """Output that cannot be written is exit status 1 with a sentence, and no traceback."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", stage, "check-config"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert "the output cannot be written: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stage", STAGES)
def test_a_closed_standard_output_is_no_failure(stage: str) -> None:
    """Where nobody wants to read, nothing is said to be wrong."""
    done = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m {stage} check-config >&-"],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
