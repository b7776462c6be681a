"""Exporters files: what they may say, and what is said of them when they are wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ingest import exporters_file
from ingest.__main__ import main
from ingest.exporters_file import load_exporters
from shared.errors import ConfigError
from tests.ingest.test_known_exporters import joined

EXAMPLE = """\
- match: 192.0.2.0/24                    # address or network; the longest match wins
  name: edge-1
  interfaces: {3: {name: "Te0/0/0/3", boundary: external}, 7: {boundary: internal}}
- match: "2001:db8::1"
  name: München
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a test writes its file."""
    return tmp_path / "exporters.yaml"


def refusal(file: Path, text: str) -> list[str]:
    """What is said of a file, line by line, without its directory."""
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_exporters(file)
    return str(caught.value).replace(str(file), file.name).splitlines()


def test_a_file_says_what_exporters_and_interfaces_are(file: Path) -> None:
    """The example does what it says."""
    file.write_text(EXAMPLE, encoding="utf-8")
    known = load_exporters(file)
    assert len(known) == 2
    assert joined(
        known, {"sampler_address": "192.0.2.1", "in_if": 3, "out_if": 7}, {"sampler_address": "2001:db8::1", "in_if": 3}
    ) == [
        {
            "sampler_name": "edge-1",
            "in_if_name": "Te0/0/0/3",
            "in_if_boundary": "external",
            "out_if_boundary": "internal",
        },
        {"sampler_name": "München"},
    ]


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]"])
def test_a_file_may_say_nothing(file: Path, text: str) -> None:
    """An empty file, and an empty list, know no exporter."""
    file.write_text(text)
    assert len(load_exporters(file)) == len(load_exporters(None)) == 0


FAULTS = [
    pytest.param("- match: 10.0.0.0/8\n  nam: x\n", 'exporters.yaml:2: exporters[0].nam: unknown key; the nearest known one is exporters[0].name', id="unknown key"),
    pytest.param("- {name: x}\n", "exporters.yaml:1: exporters[0].match: is missing", id="no match"),
    pytest.param("- match: edge-1\n", 'exporters.yaml:1: exporters[0].match: "edge-1" is not an address or network, such as', id="a name to match"),
    pytest.param("-\n  match: 10.0.0.1/8\n", 'exporters.yaml:2: exporters[0].match: "10.0.0.1/8" has bits set behind its prefix; the network is 10.0.0.0/8', id="host bits"),
    pytest.param("- match: 10.0.0.1\n- match: 10.0.0.0/8\n- match: 10.0.0.1/32\n", "exporters.yaml:3: exporters[2].match: 10.0.0.1/32 stands in exporters.yaml:1 already: keep one", id="twice"),
    pytest.param("- match: 10.0.0.1\n- match: ::ffff:10.0.0.1\n", "exporters.yaml:2: exporters[1].match: ::ffff:a00:1/128 stands in exporters.yaml:1 already: keep one", id="twice, once as IPv6"),
    pytest.param("- match: 10.0.0.1\n  interfaces:\n    3: {boundary: outside}\n", 'exporters.yaml:3: exporters[0].interfaces.3.boundary: "outside" is not allowed here; it needs one of external, internal or null', id="boundary"),
    pytest.param("- match: 10.0.0.1\n  interfaces:\n    Te0: {name: x}\n", 'exporters.yaml:3: exporters[0].interfaces.Te0: "Te0" is not allowed here; it needs an ifIndex, from 0 to 4294967295', id="a name for an ifIndex"),
    pytest.param("- match: 10.0.0.1\n  interfaces: {4294967296: {}}\n", "exporters[0].interfaces.4294967296: 4294967296 is not allowed here; it needs an ifIndex", id="ifIndex too large"),
    pytest.param("- match: 10.0.0.1\n  interfaces: {3: uplink}\n", 'exporters[0].interfaces.3: a str is not allowed here; it needs a section with the keys name, boundary', id="a name for an interface"),
    pytest.param("- match: 10.0.0.1\n  interfaces: {3: {nme: x}}\n", "exporters[0].interfaces.3.nme: unknown key; the nearest known one is exporters[0].interfaces.3.name", id="unknown key of an interface"),
    pytest.param("- match: 10.0.0.1\n  interfaces:\n    3: {}\n    3: {}\n", "exporters.yaml:4: exporters[0].interfaces.3 stands in line 3 already: keep one", id="interface twice"),
    pytest.param("- {match: 10.0.0.1, name: ''}\n", "exporters[0].name: \"\" is not allowed here; it needs a text of 1 to 255 characters or null", id="empty name"),
    pytest.param("- {match: 10.0.0.1, name: 7}\n", "exporters[0].name: 7 is not allowed here; it needs a text", id="a number for a name"),
    pytest.param("- 10.0.0.1\n", 'exporters.yaml:1: exporters[0]: a str is not allowed here; it needs a section with the keys match, name, interfaces', id="a text for an exporter"),
    pytest.param("match: 10.0.0.1\n", "exporters.yaml:1: the file has to hold a list, each entry after a `-` (it is the exporters_file)", id="no list"),
    pytest.param("- match: [\n", "exporters.yaml:2: not valid YAML: ", id="no YAML"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), FAULTS)
def test_a_fault_is_told_with_its_place(file: Path, text: str, says: str) -> None:
    """File, line and key, and what may stand there."""
    (line,) = refusal(file, text)
    assert says in line


def test_all_faults_are_told(file: Path) -> None:
    """One a line, in the order of the file."""
    lines = refusal(file, "- match: x\n- nam: y\n- match: z\n")
    assert [re.match(r"exporters.yaml:(\d)", line)[1] for line in lines] == ["1", "2", "2", "3"]  # type: ignore[index]


def test_a_file_that_is_not_there_is_told(file: Path) -> None:
    """With the key that names it."""
    with pytest.raises(ConfigError, match=r"there is no such configuration file \(it is the exporters_file\)"):
        load_exporters(file)


def test_a_file_is_bounded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More exporters, interfaces or bytes than are read are an error, with the number that is allowed."""
    monkeypatch.setattr(exporters_file, "MOST_EXPORTERS", 2)
    monkeypatch.setattr(exporters_file, "MOST_INTERFACES", 3)
    monkeypatch.setattr(exporters_file, "MOST_BYTES", 500)
    entry = "- {{match: 10.0.0.{}, interfaces: {}}}\n"
    fits = entry.format(1, "{1: {}, 2: {}}") + entry.format(2, "{1: {}}")
    file.write_text(fits)
    assert len(load_exporters(file)) == 2
    assert "has 3 entries, and 2 are the most" in refusal(file, fits + entry.format(3, "{}"))[0]
    assert "has 4 interfaces, and 3 are the most" in refusal(file, fits.replace("{1: {}}", "{1: {}, 2: {}}"))[0]
    assert "has 501 bytes, and 500 are the most" in refusal(file, fits.ljust(501, "#"))[0]


def test_the_files_that_we_show_are_right(file: Path) -> None:
    """The one of `make run`, and the example in the documentation."""
    root = Path(__file__).parents[2]
    assert len(load_exporters(root / "deploy/local/exporters.yaml")) == 2
    example = re.search(r"```yaml\n(.+?)```", (root / "docs/exporters.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example
    file.write_text(example[1], encoding="utf-8")
    assert len(load_exporters(file)) == 2


def test_check_config_reads_it(file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in the file is told before anything is started."""
    monkeypatch.setenv("SLUICEWAY_EXPORTERS_FILE", str(file))
    file.write_text(EXAMPLE, encoding="utf-8")
    assert main(["check-config"]) == 0
    assert f"exporters_file: {file}" in capsys.readouterr().out
    file.write_text("- match: x\n")
    assert main(["check-config"]) == 2
    assert f"{file}:1: exporters[0].match" in capsys.readouterr().err
