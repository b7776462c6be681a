import signal
from pathlib import Path

import pytest

from deploy.local.kafka import poll
from deploy.local.program import Program


@pytest.fixture
def environ() -> dict[str, str]:
    """An environment in which a program says at once what it says."""
    return {"PYTHONUNBUFFERED": "1"}


def test_a_program_that_ends_by_itself_has_said_why(tmp_path: Path, environ: dict[str, str]) -> None:
    """The exit status and the last words of a program that failed are there to be told."""
    program = Program("failing", ["no_such_module"], tmp_path, environ)
    assert program.status is None
    program.start()
    assert poll(lambda: program.status is not None, 30)
    assert program.status == 1
    assert "no_such_module" in program.last_words()
    assert program.stop(1.0) == 1


def test_a_program_is_stopped_by_sigterm(tmp_path: Path, environ: dict[str, str]) -> None:
    """Stopping is asking by SIGTERM; the exit status says that it was that."""
    program = Program("server", ["http.server", "--bind", "127.0.0.1", "0"], tmp_path, environ)
    program.start()
    assert poll(lambda: "Serving" in program.output.read_text(encoding="utf-8"), 30)
    assert program.status is None
    assert program.stop(30.0) == -signal.SIGTERM


def test_a_program_that_never_started_has_nothing_to_stop(tmp_path: Path, environ: dict[str, str]) -> None:
    """Stopping it, and killing it, are no errors."""
    program = Program("nothing", ["nothing"], tmp_path, environ)
    program.kill()
    assert program.stop(1.0) is None
