from __future__ import annotations

import pytest

from forwarder.__main__ import main


@pytest.fixture(autouse=True)
def nowhere(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory without a configuration, and a Kafka that is not there."""
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.setenv("SLUICEWAY_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        pytest.param(["tail", "--filter", "prot = 6"], 2, "there is no column prot; the nearest is proto", id="filter"),
        pytest.param(["serve", "--sink", "lke"], 2, "no such sink in forwarder.sinks, but: lake", id="unknown sink"),
        pytest.param(["serve", "--config", "none.yaml"], 2, "none.yaml", id="no such file"),
    ],
)
def test_what_cannot_be_done_is_said(
    words: list[str], status: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command that cannot do what it is told ends with the status of the contract, and one sentence."""
    assert main(words) == status
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


@pytest.mark.parametrize("count", ["0", "-1", "many", "1.5"])
def test_a_count_is_a_number_of_records(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--count` takes whole numbers from 1."""
    with pytest.raises(SystemExit) as ended:
        main(["tail", "--count", count])
    assert ended.value.code == 2
    assert "is not a number of records" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "tail", "ledger"])
def test_help_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command's help has examples."""
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"python -m forwarder {command}" in capsys.readouterr().out
