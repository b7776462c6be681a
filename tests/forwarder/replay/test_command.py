from __future__ import annotations

from pathlib import Path

import pytest

from forwarder.__main__ import main


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory without a configuration, and a Kafka that is not there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLUICEWAY_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--sink", "lke", "--from", "-2h"], "no such sink in forwarder.sinks, but: lake"),
        (["--sink", "lake", "--from", "-2w"], "--from: '-2w' is not a time"),
        (["--sink", "lake", "--from=-2h", "--to", "-1x"], "--to: '-1x' is not a time"),
        (["--sink", "lake", "--from", "-2h", "--exporter", "edge-1"], "--into OTHER"),
    ],
)
def test_what_cannot_be_meant_is_said_before_kafka_is_asked(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Usage is exit status 2, and one sentence; a time before now is a value, though it begins with a dash."""
    assert main(["replay", *words]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "words",
    [
        ["--from", "-2h"],
        ["--sink", "lake"],
        ["--sink", "lake", "--from", "-2h", "--rate", "0"],
        ["--sink", "lake", "--from", "-2h", "--rate", "many"],
        ["--sink", "lake", "--from", "--to"],
    ],
)
def test_a_command_line_that_is_wrong_is_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What is needed is named."""
    with pytest.raises(SystemExit) as ended:
        main(["replay", *words])
    assert ended.value.code == 2
    assert "usage: python -m forwarder replay" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    """It has examples, and says what is refused and how it goes on."""
    with pytest.raises(SystemExit) as ended:
        main(["replay", "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "python -m forwarder replay --sink lake --from -2h --dry-run" in said
    assert "--restart" in said
