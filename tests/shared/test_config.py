import json
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field, SecretStr

from shared.config import (
    CommonSettings,
    Count,
    Flag,
    HostPort,
    KafkaConfig,
    Loaded,
    Network,
    Section,
    SecurityConfig,
    UdpListener,
    load,
    load_with_origins,
    parse_host_port,
    parse_udp_listener,
)
from shared.effective import MASK, effective
from shared.errors import ConfigError
from shared.keys import PLANNED, Key, dotted, variable, walk


class Tap(Section):
    """One entry of a map of sections."""

    type: Literal["cold", "hot"] = Field(description="which")
    litres: Count = Field(default=3, description="how much")


def default_taps() -> Mapping[str, Tap]:
    """One entry, as the default of a map."""
    return {"kitchen": Tap(type="cold")}


class Bath(Section):
    """A section with a field of every kind."""

    listen: tuple[UdpListener, ...] = Field(default=("udp://[::]:2055",), description="listeners")
    workers: Literal["auto"] | Count = Field(default="auto", description="a number or a word")
    seconds: float = Field(default=10, description="a time")
    warm: Flag = Field(default=True, description="a flag")
    name: str = Field(default="duck", description="a text")
    note: str | None = Field(default=None, description="a text or null")
    rates: Mapping[Network, Count] = Field(default_factory=dict, description="a map of numbers")
    taps: Mapping[str, Tap] = Field(default_factory=default_taps, description="a map of sections")
    soap: Annotated[Count | None, PLANNED] = Field(default=None, description="not there yet")
    token: SecretStr | None = Field(default=None, description="a secret")
    token_file: Path | None = Field(default=None, description="its file")


class BathSettings(CommonSettings):
    """Settings of a stage that is made for the test; its section has the name of a stage."""

    ingest: Bath = Field(default_factory=Bath, description="the stage")


Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that puts a text into a configuration file."""

    def put(text: str) -> Path:
        path = tmp_path / "my.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return put


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a directory where no sluiceway.yaml lies about."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def bath(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Bath:
    """The section as it is loaded."""
    return load(BathSettings, "ingest", path, environ or {}).ingest


def refusal(path: Path | None, environ: Mapping[str, str] | None = None) -> str:
    """The message of the refusal to load."""
    with pytest.raises(ConfigError) as caught:
        load(BathSettings, "ingest", path, environ or {})
    return str(caught.value)


# Which file


def test_without_a_file_all_is_default() -> None:
    """No file and no environment: every key has its default."""
    assert load(BathSettings, "ingest", None, {}) == BathSettings()


def test_the_named_file_goes_before_the_variable_and_the_usual_place(write: Write, elsewhere: Path) -> None:
    """--config, else SLUICEWAY_CONFIG, else ./sluiceway.yaml."""
    usual, named = elsewhere / "sluiceway.yaml", elsewhere / "named.yaml"
    usual.write_text("ingest: {name: usual}", encoding="utf-8")
    named.write_text("ingest: {name: named}", encoding="utf-8")
    given = write("ingest: {name: given}")
    assert bath().name == "usual"
    assert bath(None, {"SLUICEWAY_CONFIG": ""}).name == "usual"
    assert bath(None, {"SLUICEWAY_CONFIG": str(named)}).name == "named"
    assert bath(given, {"SLUICEWAY_CONFIG": str(named)}).name == "given"


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_a_file_that_is_named_has_to_be_there(by: str, tmp_path: Path) -> None:
    """A file that somebody asked for and that is missing is an error, not a default."""
    missing = tmp_path / "missing.yaml"
    message = refusal(missing) if by == "argument" else refusal(None, {"SLUICEWAY_CONFIG": str(missing)})
    assert message == f"{missing}: there is no such configuration file"


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    """A path that cannot be read says why."""
    assert "cannot be read: Is a directory" in refusal(tmp_path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are told as such."""
    path = tmp_path / "my.yaml"
    path.write_bytes(b"ingest: {name: \xff\xfe}")
    assert "is not UTF-8" in refusal(path)


# What the file says


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", Bath(), id="empty file"),
        pytest.param("# nothing but a comment\n", Bath(), id="comment"),
        pytest.param("ingest:\n", Bath(), id="a section of which only the name is left"),
        pytest.param("ingest:\nlog:\nkafka:\n  security:\n", Bath(), id="empty sections at any depth"),
        pytest.param("ingest: {workers: 3}", Bath(workers=3), id="number of a union"),
        pytest.param("ingest: {seconds: 0.5}", Bath(seconds=0.5), id="fraction"),
        pytest.param("ingest: {name: 2026-01-02}", Bath(name="2026-01-02"), id="a date stays text"),
        pytest.param("a: &a {name: x}\n".replace("a: ", "ingest: "), Bath(name="x"), id="anchor"),
        pytest.param(
            "ingest: {rates: {192.0.2.1: 5, '2001:db8::/32': 7}}",
            Bath(rates={ip_network("192.0.2.1"): 5, ip_network("2001:db8::/32"): 7}),
            id="networks",
        ),
        pytest.param(
            "ingest: {taps: {bath: {type: hot}}}", Bath(taps={"bath": Tap(type="hot")}), id="a map replaces its default"
        ),
        pytest.param("ingest: {}\nforwarder: {anything: [goes], here: 1}", Bath(), id="the other stage's section"),
        pytest.param("ingest: {}\nforwarder: 7", Bath(), id="the other stage's section, of whatever form"),
    ],
)
def test_reads(write: Write, text: str, expected: Bath) -> None:
    """The file says what differs from the defaults."""
    assert bath(write(text)) == expected


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        pytest.param(
            "kafka:\n  partitons: 3",
            2,
            "kafka.partitons: unknown key; the nearest known one is kafka.partitions",
            id="typo",
        ),
        pytest.param(
            "ingest:\n  taps:\n    bath: {type: hot, liters: 3}",
            3,
            "ingest.taps.bath.liters: unknown key; the nearest known one is ingest.taps.bath.litres",
            id="typo in an entry of a map",
        ),
        pytest.param("ingset: {}", 1, "ingset: unknown key; the nearest known one is ingest", id="section"),
        pytest.param(
            "fowarder: {}", 1, "fowarder: unknown key; the nearest known one is forwarder", id="other section"
        ),
        pytest.param(
            "ingest:\n  partitions: 3",
            2,
            "ingest.partitions: unknown key; the nearest known one is kafka.partitions",
            id="in the wrong section",
        ),
        pytest.param("log:\n  qqq: 3", 2, "(known here: level, format)", id="like nothing at all"),
        pytest.param(
            "kafka:\n  partitions: many",
            2,
            'kafka.partitions: "many" is not allowed here; it needs a whole number of at least 1',
            id="type",
        ),
        pytest.param("kafka: {partitions: 0}", 1, "0 is not allowed here; it needs a whole number", id="bound"),
        pytest.param(
            "kafka: {partitions: true}", 1, "true is not allowed here; it needs a whole", id="flag for number"
        ),
        pytest.param("kafka: {partitions: 1.5}", 1, "1.5 is not allowed here; it needs a whole number", id="fraction"),
        pytest.param('kafka: {partitions: "3"}', 1, '"3" is not allowed here; it needs a whole number', id="quoted"),
        pytest.param("kafka: {create_topics: 1}", 1, "1 is not allowed here; it needs true or false", id="flag"),
        pytest.param("kafka: {topic_prefix: 5}", 1, "5 is not allowed here; it needs letters, digits", id="text"),
        pytest.param(
            "log:\n\n  level: loud",
            3,
            'log.level: "loud" is not allowed here; it needs one of debug, info, warning, error',
            id="word",
        ),
        pytest.param("ingest: {workers: many}", 1, "it needs auto or a whole number of at least 1", id="union"),
        pytest.param(
            "ingest:\n  listen:\n  - udp://[::]:1\n  - tcp://[::]:2",
            4,
            'ingest.listen[1]: "tcp://[::]:2" needs the form udp://address:port',
            id="item of a list",
        ),
        pytest.param("ingest: {listen: 'udp://[::]:1'}", 1, "it needs a list, each of it udp://", id="text for list"),
        pytest.param("kafka: [1]", 1, "kafka: a list is not allowed here; it needs a section with the keys", id="list"),
        pytest.param("kafka: {partitions: {a: 1}}", 1, "kafka.partitions: a map is not allowed here", id="map"),
        pytest.param(
            "ingest:\n  rates:\n    10.0.0.0/8: 0",
            3,
            'ingest.rates["10.0.0.0/8"]: 0 is not allowed here',
            id="map value",
        ),
        pytest.param(
            "ingest:\n  rates:\n    192.0.2.1/24: 1",
            3,
            '"192.0.2.1/24" has bits set behind its prefix; the network is 192.0.2.0/24',
            id="host bits",
        ),
        pytest.param("ingest: {rates: {edge: 1}}", 1, '"edge" is not an address or network', id="no network"),
        pytest.param(
            "ingest:\n  taps:\n    bath: {litres: 3}",
            3,
            "ingest.taps.bath.type: is missing, and has no default; it needs one of cold, hot",
            id="missing",
        ),
        pytest.param("ingest: {soap: 1}", 1, "ingest.soap: cannot be set yet", id="planned"),
        pytest.param("exporters_file: [x]", 1, "exporters_file: a list is not allowed here", id="at the top"),
        pytest.param(
            "kafka:\n  security:\n    protocol: ssl\n    ca_file: /no/such/file",
            4,
            "kafka.security.ca_file: /no/such/file cannot be read: No such file or directory",
            id="input file",
        ),
        pytest.param("kafka: {\n", 2, "not valid YAML: ", id="syntax"),
        pytest.param("kafka:\n  a: b: c\n", 2, "not valid YAML: mapping values are not allowed here", id="colon"),
        pytest.param("kafka: !!python/name:os.system\n", 1, "not valid YAML: could not determine", id="tag"),
        pytest.param("a: 1\n---\nb: 2\n", 2, "not valid YAML: but found another document", id="two documents"),
        pytest.param("a: [" * 2000, None, "nested too deep", id="depth"),
        pytest.param("ingest: {name: \x00}", None, "not valid YAML: ", id="control character"),
        pytest.param("kafka: {partitions: !!int x}", None, "not valid YAML: ", id="tag that does not fit"),
        pytest.param("- kafka\n", 1, "the file has to hold sections", id="no map"),
        pytest.param("log: {}\nlog: {}", 2, "log stands in line 1 already: keep one", id="twice"),
        pytest.param(
            "ingest:\n  taps:\n    on: {type: hot}", 3, "the key on under ingest.taps is no text", id="yaml 1.1"
        ),
        pytest.param("ingest: &a\n  taps: *a", 1, "holds itself", id="recursion"),
    ],
)
def test_refuses(write: Write, text: str, line: int | None, says: str) -> None:
    """A fault names the file and the line, the key by its whole path, and what is allowed or nearest."""
    path = write(text)
    message = refusal(path)
    assert message.startswith(f"{path}: " if line is None else f"{path}:{line}: ")
    assert says in message
    assert "\n" not in message


WORDS = st.sampled_from(
    ["kafka", "ingest", "taps", "rates", "listen", "token", "type", "log", "10.0.0.0/8", "x", "a.b"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["hot", "auto"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(WORDS, VALUES, max_size=4))
@example({"ingest": {"token": {"x": 1}}})
def test_any_tree_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, object]) -> None:
    """Whatever tree is written, the answer is settings or a sentence, never another error."""
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=False), encoding="utf-8")
    settled(path, {})


@given(st.binary(max_size=60) | st.text("kafin: {}[]&*!<>|-'\"\n\t#?%@", max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Whatever a file holds, the answer is settings or a sentence, never another error."""
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    settled(path, {})


NAMES = [variable(key.path).replace("<NAME>", "X") for key in walk(BathSettings)]


@given(
    st.dictionaries(
        st.sampled_from(NAMES) | st.builds("{}__{}".format, st.sampled_from(NAMES), st.sampled_from(["X", "", "0"])),
        st.text(max_size=6) | VALUES.map(json.dumps),
        max_size=4,
    )
)
def test_any_environment_is_read_or_refused(environ: dict[str, str]) -> None:
    """Whatever the variables say, the answer is settings or a sentence, never another error."""
    settled(None, environ)


def settled(path: Path | None, environ: Mapping[str, str]) -> None:
    """Load, and print what is in effect; only a ConfigError may come instead."""
    try:
        loaded = load_with_origins(BathSettings, "ingest", path, environ)
    except ConfigError as error:
        assert str(error)  # noqa: PT017 - both outcomes are right
    else:
        assert yaml.safe_load(effective(loaded))


def test_tells_all_faults_at_once(write: Write) -> None:
    """Every fault has its line, in the order of the file."""
    path = write("log: {level: loud}\nfoo: 1\nkafka:\n  partitions: 0\n")
    assert [line.split(" ", 1)[0] for line in refusal(path).splitlines()] == [f"{path}:{line}:" for line in (1, 2, 4)]


def test_settings_are_frozen() -> None:
    """Nobody changes settings that others have read already."""
    with pytest.raises(ValueError, match="frozen"):
        KafkaConfig().partitions = 3  # type: ignore[misc]  # that it is refused is the point


# The environment


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        pytest.param("SLUICEWAY_INGEST__WORKERS", "3", Bath(workers=3), id="number"),
        pytest.param("SLUICEWAY_INGEST__WORKERS", "auto", Bath(workers="auto"), id="word"),
        pytest.param("SLUICEWAY_INGEST__SECONDS", "0.5", Bath(seconds=0.5), id="fraction"),
        pytest.param("SLUICEWAY_INGEST__WARM", "false", Bath(warm=False), id="false"),
        pytest.param("SLUICEWAY_INGEST__WARM", "No", Bath(warm=False), id="no"),
        pytest.param("SLUICEWAY_INGEST__NAME", "5", Bath(name="5"), id="a text may look like a number"),
        pytest.param("SLUICEWAY_INGEST__NAME", "", Bath(name=""), id="an empty text"),
        pytest.param("SLUICEWAY_INGEST__NOTE", "", Bath(), id="empty is null where null is allowed"),
        pytest.param("SLUICEWAY_INGEST__NOTE", "x", Bath(note="x"), id="a text or null"),
        pytest.param(
            "SLUICEWAY_INGEST__LISTEN", '["udp://127.0.0.1:1"]', Bath(listen=("udp://127.0.0.1:1",)), id="list as JSON"
        ),
        pytest.param(
            "SLUICEWAY_INGEST__RATES", '{"10.0.0.0/8": 7}', Bath(rates={ip_network("10.0.0.0/8"): 7}), id="map as JSON"
        ),
        pytest.param(
            "SLUICEWAY_INGEST__RATES__10.0.0.0/8", "7", Bath(rates={ip_network("10.0.0.0/8"): 7}), id="entry of a map"
        ),
        pytest.param(
            "SLUICEWAY_INGEST__TAPS__KITCHEN__LITRES",
            "9",
            Bath(taps={"kitchen": Tap(type="cold", litres=9)}),
            id="into an entry that is there by default",
        ),
        pytest.param(
            "SLUICEWAY_INGEST__TAPS__BATH",
            '{"type": "hot"}',
            Bath(taps={"kitchen": Tap(type="cold"), "bath": Tap(type="hot")}),
            id="an entry beside the default",
        ),
        pytest.param("SLUICEWAY_INGEST__TAPS", '{"b": {"type": "hot"}}', Bath(taps={"b": Tap(type="hot")}), id="all"),
        pytest.param("SLUICEWAY_INGEST", '{"workers": 3}', Bath(), id="a section has no double underscore"),
        pytest.param("SLUICEWAY_INGEST_PORT", "tcp://10.0.0.1:80", Bath(), id="Kubernetes"),
        pytest.param("SLUICEWAY_FORWARDER__ANYTHING", "x", Bath(), id="the other stage"),
        pytest.param("SLUICEWAY__WORKERS", "3", None, id="no section"),
        pytest.param("sluiceway_ingest__workers", "3", Bath(), id="small letters"),
        pytest.param("WORKERS", "3", Bath(), id="somebody else's"),
    ],
)
def test_environment(name: str, text: str, expected: Bath | None) -> None:
    """SLUICEWAY_, the path in upper case joined by two underscores; what is not of that form is not ours."""
    if expected is None:
        assert refusal(None, {name: text}).startswith(f"{name}: not the name of any key")
    else:
        assert bath(None, {name: text}) == expected


def test_the_environment_goes_before_the_file(write: Write) -> None:
    """A variable overrides one key, and leaves the keys around it; the more particular variable wins."""
    path = write("ingest:\n  name: file\n  warm: false\n  taps: {my-Tap: {type: hot, litres: 1}}\n")
    environ = {
        "SLUICEWAY_INGEST__NAME": "variable",
        "SLUICEWAY_INGEST__TAPS__MY_TAP__LITRES": "2",
    }
    assert bath(path, environ) == Bath(name="variable", warm=False, taps={"my-Tap": Tap(type="hot", litres=2)})
    environ["SLUICEWAY_INGEST__TAPS"] = '{"my-Tap": {"type": "cold"}}'
    assert bath(path, environ).taps == {"my-Tap": Tap(type="cold", litres=2)}


def test_the_key_at_the_top_has_a_variable() -> None:
    """Every key has a variable; the one at the top that is no section has no double underscore in its name."""
    assert load(BathSettings, "ingest", None, {"SLUICEWAY_EXPORTERS_FILE": ""}).exporters_file is None
    assert load(BathSettings, "ingest", None, {"SLUICEWAY_EXPORTERS_FILE": "x"}).exporters_file == Path("x")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        pytest.param("SLUICEWAY_KAFKA__PARTITONS", "1", "the nearest is SLUICEWAY_KAFKA__PARTITIONS", id="typo"),
        pytest.param("SLUICEWAY_KAKFA__PARTITIONS", "1", "the nearest is SLUICEWAY_KAFKA__PARTITIONS", id="section"),
        pytest.param("SLUICEWAY_FOWARDER__X", "1", "the nearest is SLUICEWAY_FORWARDER__X", id="other section"),
        pytest.param("SLUICEWAY_EXPORTERS__FILE", "", "the nearest is SLUICEWAY_EXPORTERS_FILE", id="top"),
        pytest.param("SLUICEWAY_INGEST__NAME__X", "", "the nearest is SLUICEWAY_INGEST__NAME", id="below a value"),
        pytest.param(
            "SLUICEWAY_INGEST__TAPS__BATH__LITERS",
            "1",
            "the nearest is SLUICEWAY_INGEST__TAPS__BATH__LITRES",
            id="entry",
        ),
        pytest.param("SLUICEWAY_KAFKA__PARTITIONS", "many", '"many" is not allowed here; it needs a whole', id="type"),
        pytest.param("SLUICEWAY_INGEST__LISTEN", "udp://[::]:1", "needs JSON for a list", id="no JSON"),
        pytest.param("SLUICEWAY_INGEST__TAPS__B__LITRES", "1", "ingest.taps.b.type: is missing", id="incomplete entry"),
        pytest.param(
            "SLUICEWAY_INGEST__TAPS", '{"b": {"tipe": "hot"}}', "ingest.taps.b.tipe: unknown key", id="in JSON"
        ),
    ],
)
def test_environment_refuses(name: str, text: str, says: str) -> None:
    """A fault in a variable names the variable."""
    lines = [line for line in refusal(None, {name: text}).splitlines() if says in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"{name}: ")


@pytest.mark.parametrize(
    "key", [key for key in walk(BathSettings) if not key.slot.sections], ids=lambda key: dotted(key.path)
)
def test_every_key_has_a_variable(key: Key) -> None:
    """There is no key that the environment cannot reach: what is no value for it is refused, by its name."""
    path = tuple("kitchen" if name == "<name>" else name for name in key.path)
    wrong = "\x00"
    try:
        settings = load(BathSettings, "ingest", None, {variable(path): wrong})
    except ConfigError as error:
        assert variable(path) in str(error)  # noqa: PT017 - a key that takes any text is reached without an error
    else:
        assert json.dumps(wrong) in json.dumps(settings.model_dump(mode="json")) or key.slot.secret


# Secrets


def test_a_secret_is_read_from_its_file(write: Write, tmp_path: Path) -> None:
    """The file's text is the secret, without the line break at its end."""
    (tmp_path / "token").write_text("hush hush\n", encoding="utf-8")
    settings = bath(write(f"ingest: {{token_file: {tmp_path / 'token'}}}"))
    assert settings.token is not None
    assert settings.token.get_secret_value() == "hush hush"
    assert settings.token_file == tmp_path / "token"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(None, "cannot be read from", id="missing"),
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"\n", "is empty", id="line break alone"),
        pytest.param(b"\xff", "not UTF-8", id="bytes"),
    ],
)
def test_a_secret_file_that_holds_none_is_refused(tmp_path: Path, content: bytes | None, says: str) -> None:
    """Without its secret a stage does not start."""
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    message = refusal(None, {"SLUICEWAY_INGEST__TOKEN_FILE": str(path)})
    assert "ingest: token_file: " in message
    assert says in message
    assert str(path) in message


def test_a_secret_and_its_file_exclude_each_other(tmp_path: Path) -> None:
    """Which of the two counts is not guessed."""
    (tmp_path / "token").write_text("a", encoding="utf-8")
    environ = {"SLUICEWAY_INGEST__TOKEN": "b", "SLUICEWAY_INGEST__TOKEN_FILE": str(tmp_path / "token")}
    assert "token and token_file are both set: keep one of them" in refusal(None, environ)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("ingest: {token: hush}", id="secret"),
        pytest.param("ingest: {token: [hush]}", id="of the wrong type"),
        pytest.param("ingest: {token: hush, workers: many}", id="beside a fault"),
        pytest.param("kafka: {properties: {sasl.password: hush}}", id="property"),
        pytest.param("kafka: {properties: {sasl.password: [hush]}}", id="property of the wrong type"),
        pytest.param("kafka: {properties: {sasl.oauthbearer.client.secret: hush}}", id="another property"),
        pytest.param("kafka: {security: {username: a, password: hush, protocol: plaintext}}", id="unfit protocol"),
        pytest.param("kafka: {security: {password: hush, protocol: hush!}}".replace("hush!", "x"), id="unfit word"),
    ],
)
def test_secrets_are_never_shown(write: Write, text: str) -> None:
    """Neither what is printed nor what is refused nor a settings' own text holds a secret that was written."""
    try:
        loaded = load_with_origins(BathSettings, "ingest", write(text), {})
    except ConfigError as error:
        shown = str(error)
    else:
        shown = effective(loaded)
        assert MASK in shown
        assert "hush" not in repr(loaded.settings.ingest)
    assert "hush" not in shown


# Common sections


def test_common_defaults() -> None:
    """The defaults of the common sections are those of the contract."""
    assert CommonSettings().model_dump(mode="json") == {
        "kafka": {
            "bootstrap_servers": "localhost:9092",
            "topic_prefix": "",
            "create_topics": True,
            "partitions": 12,
            "replication_factor": 1,
            "retention_hours": 72,
            "security": {
                "protocol": "plaintext",
                "mechanism": None,
                "username": None,
                "password": None,
                "password_file": None,
                "ca_file": None,
                "cert_file": None,
                "key_file": None,
            },
            "properties": {},
        },
        "log": {"level": "info", "format": "auto"},
        "exporters_file": None,
    }


@pytest.mark.parametrize(
    ("servers", "fault"),
    [
        pytest.param("localhost:9092", None, id="one"),
        pytest.param("a:9092, b:9093,[2001:db8::1]:9092", None, id="several"),
        pytest.param("localhost", "needs the form host:port", id="no port"),
        pytest.param("a:9092,,b:9092", "needs the form host:port", id="nothing between commas"),
        pytest.param("", "needs the form host:port", id="empty"),
        pytest.param("a:0", "port 0", id="port 0"),
        pytest.param("kafka://a:9092", "needs the form host:port", id="scheme"),
    ],
)
def test_bootstrap_servers(servers: str, fault: str | None) -> None:
    """Brokers are named host:port, which librdkafka takes as they are."""
    if fault is None:
        assert KafkaConfig(bootstrap_servers=servers).bootstrap_servers == servers
    else:
        assert fault in refusal(None, {"SLUICEWAY_KAFKA__BOOTSTRAP_SERVERS": servers})


def test_properties_keep_their_types(write: Write) -> None:
    """Properties of librdkafka come through as they were written, dots and all."""
    path = write("kafka:\n  properties: {linger.ms: 5, compression.type: zstd, enable.idempotence: true}")
    properties = load(BathSettings, "ingest", path, {}).kafka.properties
    assert properties == {"linger.ms": 5, "compression.type": "zstd", "enable.idempotence": True}
    assert properties["enable.idempotence"] is True


@pytest.mark.parametrize(
    ("security", "fault"),
    [
        pytest.param({}, None, id="plain"),
        pytest.param({"protocol": "ssl"}, None, id="ssl"),
        pytest.param(
            {"protocol": "sasl_ssl", "mechanism": "SCRAM-SHA-512", "username": "a", "password": "b"}, None, id="login"
        ),
        pytest.param({"protocol": "sasl_ssl"}, None, id="login by properties"),
        pytest.param(
            {"mechanism": "PLAIN", "username": "a", "password": "b"}, "does not log in", id="no sasl protocol"
        ),
        pytest.param({"username": "a"}, "username is set, but", id="name alone"),
        pytest.param(
            {"protocol": "sasl_ssl", "mechanism": "PLAIN", "username": "a"}, "needs username and", id="no word"
        ),
        pytest.param({"protocol": "sasl_ssl", "username": "a", "password": "b"}, "need a mechanism", id="no mechanism"),
        pytest.param({"ca_file": "x"}, "is not encrypted", id="certificates in plain"),
        pytest.param({"protocol": "ssl", "cert_file": "x"}, "belong together", id="certificate without key"),
    ],
)
def test_security(security: dict[str, str], fault: str | None) -> None:
    """What would have no effect beside the protocol is refused, and so is half of what it needs."""
    if fault is None:
        assert SecurityConfig.model_validate(security).protocol == security.get("protocol", "plaintext")
    else:
        with pytest.raises(ValueError, match=fault):
            SecurityConfig.model_validate(security)


# Addresses


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("0.0.0.0:8081", HostPort("0.0.0.0", 8081), id="IPv4"),
        pytest.param("[::]:8081", HostPort("::", 8081), id="IPv6"),
        pytest.param("localhost:0", HostPort("localhost", 0), id="name, any port"),
        pytest.param("8081", None, id="port alone"),
        pytest.param(":8081", None, id="no host"),
        pytest.param("::1:8081", None, id="no brackets"),
        pytest.param("[::1]", None, id="no port"),
        pytest.param("[x]:1", None, id="no address in brackets"),
        pytest.param("a:65536", None, id="port too large"),
        pytest.param("a:-1", None, id="negative"),
        pytest.param("a:٣", None, id="digits of another script"),
        pytest.param("http://a:1", None, id="scheme"),
        pytest.param("a b:1", None, id="blank"),
    ],
)
def test_host_port(text: str, expected: HostPort | None) -> None:
    """host:port, an IPv6 address in brackets."""
    if expected is None:
        with pytest.raises(ValueError, match=r"needs|has"):
            parse_host_port(text)
    else:
        assert parse_host_port(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("udp://[::]:2055", HostPort("::", 2055), id="IPv6"),
        pytest.param("udp://127.0.0.1:0", HostPort("127.0.0.1", 0), id="IPv4, any port"),
        pytest.param("[::]:2055", None, id="no scheme"),
        pytest.param("tcp://[::]:2055", None, id="another scheme"),
        pytest.param("udp://localhost:2055", None, id="name"),
        pytest.param("udp://[::]:2055/", None, id="path"),
        pytest.param("udp://[::]", None, id="no port"),
    ],
)
def test_udp_listener(text: str, expected: HostPort | None) -> None:
    """udp://address:port, by number."""
    if expected is None:
        with pytest.raises(ValueError, match=r"needs|has"):
            parse_udp_listener(text)
    else:
        assert parse_udp_listener(text) == expected


# What is in effect


def test_effective_is_a_configuration_again(write: Write, tmp_path: Path) -> None:
    """What check-config prints loads to the same settings."""
    (tmp_path / "token").write_text("hush", encoding="utf-8")
    text = (
        f"ingest:\n  token_file: {tmp_path / 'token'}\n  name: '# 5: yes'\n  note: 'null'\n"
        "  rates: {192.0.2.1: 5, '2001:db8::/32': 7}\n  taps: {a: {type: hot}, 'b-c': {type: cold, litres: 1}}\n"
        "kafka: {properties: {linger.ms: 5, a: 'true'}}\n"
    )
    loaded = load_with_origins(BathSettings, "ingest", write(text), {"SLUICEWAY_INGEST__WORKERS": "2"})
    printed = effective(loaded)
    assert "hush" not in printed
    again: Loaded[BathSettings] = load_with_origins(BathSettings, "ingest", write(printed), {})
    assert again.settings == loaded.settings


def test_effective_says_where_each_value_comes_from(write: Write) -> None:
    """Each value has the line of the file, the variable or the word default behind it."""
    path = write("ingest:\n  name: x\n  rates: {192.0.2.1: 5}\nlog: {level: debug}\n")
    environ = {"SLUICEWAY_INGEST__WORKERS": "2", "SLUICEWAY_KAFKA__PROPERTIES": '{"a": 1}'}
    printed = effective(load_with_origins(BathSettings, "ingest", path, environ))
    found = {line.split(":")[0].strip(): line.split("# ")[1] for line in printed.splitlines() if "# " in line}
    assert found["name"] == f"{path}:2"
    assert found["192.0.2.1/32"] == f"{path}:3"
    assert found["level"] == f"{path}:4"
    assert found["format"] == "default"
    assert found["workers"] == "SLUICEWAY_INGEST__WORKERS"
    assert found["a"] == "SLUICEWAY_KAFKA__PROPERTIES"
    assert found["partitions"] == "default"
