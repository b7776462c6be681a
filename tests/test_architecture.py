"""What holds the house together and no other tool checks; imports are held by the contracts in pyproject.toml."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ingest", "forwarder", "shared")
SOURCES = (*PACKAGES, "tests", "deploy")
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))

# Names that say nothing of what is inside.
EMPTY_NAMES = {"base_utils", "common", "handler", "handlers", "helper", "helpers", "manager", "misc", "util", "utils"}

STATE = tuple(f"ingest/state/{name}.py" for name in ("entries", "order", "outgoing", "streams", "tables", "templates"))
# Pure modules: their time is an argument, and they do no I/O. Those that are not written yet are not asked for.
PURE = ("ingest/decoders", "forwarder/cut.py", "forwarder/dedup", "forwarder/aggregate.py", *STATE)


def modules(*folders: str) -> Iterator[Path]:
    """Every Python file of the folders, relative to the root."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """What pyproject.toml says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_no_module_has_an_empty_name() -> None:
    """A module is named by what it does: never utils, helpers, manager or handler."""
    assert [str(path) for path in modules(*SOURCES) if EMPTY_NAMES & set(path.with_suffix("").parts)] == []


def test_every_package_is_shipped(project: dict[str, Any]) -> None:
    """The packages that pyproject.toml names are those that are there: no more, and no fewer."""
    there = {".".join(path.parent.parts) for path in modules(*PACKAGES) if path.name == "__init__.py"}
    folders = {".".join(path.parent.parts) for path in modules(*PACKAGES)}
    assert set(project["tool"]["setuptools"]["packages"]["find"]["include"]) == there == folders


def test_pure_modules_are_under_contract(project: dict[str, Any]) -> None:
    """Each pure module that exists is named in the contract that keeps I/O and clocks away from it."""
    contracts = project["tool"]["importlinter"]["contracts"]
    under = {
        name
        for contract in contracts
        if "socket" in contract.get("forbidden_modules", ())
        for name in contract["source_modules"]
    }
    there = {path.removesuffix(".py").replace("/", ".") for path in PURE if (ROOT / path).exists()}
    assert there <= under


def test_exceptions_carry_reasons() -> None:
    """In what is shipped, each `noqa` and `type: ignore` names its rule and says why it is there."""
    mute = re.compile(
        r"#\s*(?:noqa(?!: [A-Z]+[0-9]+(?:, ?[A-Z]+[0-9]+)*[ :,#-]+\w)|type: ignore(?!\[[a-z, -]+\]\s+#\s*\w))"
    )
    bare = [
        f"{path}:{number}"
        for path in modules(*PACKAGES, "deploy")
        for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1)
        if mute.search(line)
    ]
    assert bare == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.name))
def test_locks_hold_everywhere(lock: Path) -> None:
    """A lock pins by version and hash, and names neither an index nor a folder of some machine."""
    text = lock.read_text(encoding="utf-8")
    pinned = re.findall(r"^([a-z0-9.-]+)==\S+.*(?:\n +--hash=sha256:[0-9a-f]{64}.*)+", text, re.MULTILINE)
    assert pinned
    assert pinned == re.findall(r"^([^ #\n]+?)[=@<>~ ]", text, re.MULTILINE)
    assert re.findall(r"://|^ *-[fi]\b|--index|--extra-index|--find-links|--trusted", text, re.MULTILINE) == []


@pytest.mark.parametrize("extra", ["ingest", "forwarder", "dev"])
def test_locks_have_what_the_project_asks_for(project: dict[str, Any], extra: str) -> None:
    """Each requirement of pyproject.toml is in its lock; when this fails, run `make lock`."""
    wanted = project["project"]["dependencies"] + project["project"]["optional-dependencies"][extra]
    names = {re.split(r"[<>=~!\[; ]", requirement)[0].lower() for requirement in wanted} - {"sluiceway"}
    text = (ROOT / "requirements" / f"{extra}.txt").read_text(encoding="utf-8")
    assert names <= set(re.findall(r"^([a-z0-9.-]+)==", text, re.MULTILINE))


def test_every_target_is_in_the_help() -> None:
    """Each target that a person may call has its line in `make help`."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == set(re.findall(r"^([a-z-]+):.*## \S", text, re.MULTILINE))


@pytest.mark.parametrize(
    "page", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    """Each link from a page to a file of the repository finds it."""
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []
