import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import httpx
import numpy as np
import pytest
import uvloop
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request

from shared.errors import ConfigError, StartError
from shared.metrics import Book, Snapshot
from shared.web import Check, Endpoint, WebServer, create_app, is_local

Result = TypeVar("Result")

LOOPS = {"asyncio": asyncio.run, "uvloop": uvloop.run}


def well() -> Sequence[Check]:
    """Checks of a service that is well."""
    return [Check("loop", ok=True, detail="turns")]


def ledger() -> object:
    """What was received, and what became of it."""
    return {"received": {"records": np.int64(3)}, "by_port": {2055: 1}}


def application(
    *,
    live: Callable[[], Sequence[Check]] = well,
    ready: Callable[[], Sequence[Check]] = well,
    snapshot: Callable[[], Snapshot] = dict,
    api: Mapping[str, Endpoint] | None = None,
    token: Callable[[], str | None] = lambda: None,
) -> FastAPI:
    """An application, of which a test says only what it is about."""
    return create_app(
        title="Sluiceway ingest",
        version="1.2.3",
        live=live,
        ready=ready,
        snapshot=snapshot,
        api={"/api/v1/ledger": ledger} if api is None else api,
        token=token,
    )


def get(app: FastAPI, path: str, headers: Mapping[str, str] | None = None, client: str = "127.0.0.1") -> httpx.Response:
    """Ask an application without a network, as a client with this address."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, client=(client, 50000))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return await http.get(path, headers=headers)

    return asyncio.run(ask())


def on_a_server(
    app: FastAPI,
    work: Callable[[httpx.AsyncClient, WebServer], Awaitable[Result]],
    listen: str = "127.0.0.1:0",
    run: Callable[[Any], Any] = asyncio.run,
) -> Result:
    """Serve an application on a real socket while `work` is done."""

    async def serve() -> Result:
        server = WebServer(listen, app)
        await server.start()
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as http:
                return await work(http, server)
        finally:
            await server.stop()

    result: Result = run(serve())
    return result


# --- what is served -------------------------------------------------------------------------------------------------


def test_metrics_are_what_prometheus_reads() -> None:
    """The metrics page has Prometheus' type, and its parser finds what was counted."""
    book = Book()
    book.add("ingest_records_decoded_total", 5, protocol="v9")
    answer = get(application(snapshot=book.snapshot), "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    (family,) = text_string_to_metric_families(answer.text)
    assert family.samples[0].value == 5


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
@pytest.mark.parametrize(
    ("checks", "status"),
    [
        pytest.param([], 200, id="nothing to check"),
        pytest.param([Check("a", ok=True, detail="fine"), Check("b", ok=True)], 200, id="all well"),
        pytest.param([Check("a", ok=True), Check("kafka", ok=False, detail="no broker answers")], 503, id="one not"),
    ],
)
def test_a_probe_says_each_check_by_name(path: str, checks: list[Check], status: int) -> None:
    """A probe is 200 when every check is well and else 503, and its body says which is not and why."""
    probe: dict[str, Any] = {path.strip("/z"): lambda: checks}
    answer = get(application(**probe), path)
    assert answer.status_code == status
    assert answer.json() == {
        "ok": status == 200,
        "checks": {check.name: {"ok": check.ok, "detail": check.detail} for check in checks},
    }


def test_an_endpoint_answers_what_it_returns() -> None:
    """An endpoint's result is JSON, numpy's numbers and keys that are numbers included."""
    answer = get(application(), "/api/v1/ledger")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"received": {"records": 3}, "by_port": {"2055": 1}}


def test_an_endpoint_may_take_query_parameters() -> None:
    """The parameters of an endpoint come from the query, typed; a wrong one is the client's error."""

    def exporters(limit: int = 10) -> object:
        return {"limit": limit}

    app = application(api={"/api/v1/exporters": exporters})
    assert get(app, "/api/v1/exporters").json() == {"limit": 10}
    assert get(app, "/api/v1/exporters?limit=3").json() == {"limit": 3}
    assert get(app, "/api/v1/exporters?limit=x").status_code == 422


def test_the_documentation_lists_the_endpoints() -> None:
    """The OpenAPI document has every path, with the docstring of its endpoint, and a page shows it."""
    app = application()
    document = get(app, "/openapi.json").json()
    assert set(document["paths"]) == {"/metrics", "/livez", "/readyz", "/api/v1/ledger"}
    assert document["paths"]["/api/v1/ledger"]["get"]["description"] == ledger.__doc__
    assert document["info"] == {"title": "Sluiceway ingest", "version": "1.2.3"}
    assert "/openapi.json" in get(app, "/docs").text


def test_an_unknown_path_is_said_in_json() -> None:
    """A path that is not there is 404, and the answer is JSON as all others."""
    answer = get(application(), "/api/v2/ledger")
    assert (answer.status_code, answer.json()) == (404, {"error": "Not Found"})


def fail() -> NoReturn:
    """An endpoint that is broken."""
    raise RuntimeError("the secret is 42")


@pytest.mark.parametrize(
    ("path", "broken"),
    [
        pytest.param("/api/v1/broken", {"api": {"/api/v1/broken": fail}}, id="endpoint"),
        pytest.param("/api/v1/broken", {"api": {"/api/v1/broken": lambda: {"a": object()}}}, id="no JSON"),
        pytest.param("/metrics", {"snapshot": fail}, id="metrics"),
        pytest.param("/livez", {"live": fail}, id="live"),
        pytest.param("/readyz", {"ready": fail}, id="ready"),
    ],
)
def test_a_fault_is_an_answer_and_a_log_line(
    path: str, broken: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What an endpoint raises becomes 500 with a sentence that gives nothing away, and is logged with its path."""
    answer = get(application(**broken), path)
    assert answer.status_code == 500
    assert answer.json()["error"].startswith(f"{path} failed with ")
    assert "42" not in answer.text
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert path in str(record.msg)


# --- who may ask ----------------------------------------------------------------------------------------------------

GUARDED = ["/api/v1/ledger", "/docs", "/openapi.json"]
OPEN = ["/metrics", "/livez", "/readyz"]


@pytest.mark.parametrize("path", OPEN)
def test_probes_and_metrics_are_open(path: str) -> None:
    """Prometheus and Kubernetes ask from elsewhere and without a token."""
    assert get(application(token=lambda: "s3cret"), path, client="192.0.2.1").status_code == 200


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize(
    ("client", "status"),
    [
        ("127.0.0.1", 200),
        ("127.8.9.10", 200),
        ("::1", 200),
        ("::ffff:127.0.0.1", 200),
        ("192.0.2.1", 403),
        ("::ffff:192.0.2.1", 403),
        ("2001:db8::1", 403),
        ("fe80::1%eth0", 403),
        ("0.0.0.0", 403),
        ("localhost", 403),
        ("", 403),
    ],
)
def test_without_a_token_only_this_machine_is_answered(path: str, client: str, status: int) -> None:
    """With no token set the API answers loopback clients only, and tells others how to be let in."""
    answer = get(application(), path, client=client)
    assert answer.status_code == status
    if status == 403:
        assert "http.token_file" in answer.json()["error"]


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
def test_a_proxy_on_this_machine_is_not_this_machine(header: str) -> None:
    """What a local proxy hands on comes from elsewhere, whatever it says."""
    assert get(application(), "/api/v1/ledger", {header: "127.0.0.1"}).status_code == 403


def request(client: tuple[str, int] | None, server: tuple[str, int | None] | None) -> Request:
    """A request as the server hands it over."""
    return Request({"type": "http", "headers": [], "client": client, "server": server})


def test_a_unix_socket_is_this_machine() -> None:
    """A client without an address is local on a Unix socket, and not when it merely left too soon."""
    assert is_local(request(None, ("/run/sluiceway.sock", None)))
    assert not is_local(request(None, ("10.0.0.1", 8081)))
    assert not is_local(request(None, None))


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        pytest.param("Bearer s3crét", 200, id="right"),
        pytest.param("bearer  s3crét ", 200, id="other case and spaces"),
        pytest.param(None, 401, id="none"),
        pytest.param("", 401, id="empty"),
        pytest.param("Bearer", 401, id="no token"),
        pytest.param("Bearer s3cre", 401, id="a part"),
        pytest.param("Bearer s3crét2", 401, id="more"),
        pytest.param("Basic s3crét", 401, id="another scheme"),
    ],
)
def test_with_a_token_it_has_to_be_shown(path: str, authorization: str | None, status: int) -> None:
    """With a token set it is asked for, from this machine too, and is enough from elsewhere."""
    headers = {} if authorization is None else {"Authorization": authorization}
    app = application(token=lambda: "s3crét")
    for client in ("127.0.0.1", "192.0.2.1"):
        # Bytes, since httpx writes text headers as ASCII.
        answer = get_raw(app, path, headers, client)
        assert answer.status_code == status
        if status == 401:
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "s3cr" not in answer.text


def get_raw(app: FastAPI, path: str, headers: Mapping[str, str], client: str) -> httpx.Response:
    """Ask with headers in UTF-8."""
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, client=(client, 50000))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return await http.get(path, headers=encoded)

    return asyncio.run(ask())


def test_a_new_token_counts_at_once() -> None:
    """The token is asked for at each request, so that a secret that was changed needs no restart."""
    tokens = iter(["old", "new", "new"])
    app = application(token=lambda: next(tokens))
    statuses = [get(app, "/api/v1/ledger", {"Authorization": f"Bearer {t}"}).status_code for t in ("old", "old", "new")]
    assert statuses == [200, 401, 200]


@pytest.mark.parametrize("authorization", ["Bearer ", "Bearer", "Bearer x"])
def test_an_empty_token_lets_nobody_in(authorization: str) -> None:
    """A token file that is empty is no open door."""
    answer = get(application(token=lambda: ""), "/api/v1/ledger", {"Authorization": authorization})
    assert answer.status_code == 401


def test_a_token_that_cannot_be_read_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    """When the token's file is gone, the API says so with 503, and the log says why."""
    answer = get(application(token=fail), "/api/v1/ledger")
    assert answer.status_code == 503
    assert "token" in answer.json()["error"]
    assert len(caplog.records) == 1


# --- the server -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_the_server_runs_in_the_callers_loop(loop: str) -> None:
    """Started inside a loop, the server answers on the port that it took, and after the stop it does not."""

    async def work(http: httpx.AsyncClient, server: WebServer) -> int:
        assert (await http.get("/livez")).status_code == 200
        return server.port

    port = on_a_server(application(), work, run=LOOPS[loop])
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))


def test_a_wildcard_serves_both_families() -> None:
    """Listening on [::] answers IPv4 clients too, and they still count as local."""

    async def work(http: httpx.AsyncClient, server: WebServer) -> list[int]:
        del server
        return [(await http.get(path)).status_code for path in ("/livez", "/api/v1/ledger")]

    assert on_a_server(application(), work, listen="[::]:0") == [200, 200]


@contextmanager
def taken_port() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "[::]", "localhost"])
def test_a_taken_port_is_an_error_that_says_what_to_do(host: str) -> None:
    """A port that somebody serves is not shared: the start fails, and names address and key."""
    with taken_port() as port:
        server = WebServer(f"{host}:{port}", application(), key="ingest.http.listen")
        with pytest.raises(StartError, match="another process serves this port") as error:
            asyncio.run(server.start())
    assert f"{host}:{port}" in str(error.value)
    assert "ingest.http.listen" in str(error.value)


@pytest.mark.parametrize(
    ("listen", "kind", "says"),
    [
        pytest.param("192.0.2.1:0", StartError, "no such address", id="not our address"),
        pytest.param("nowhere.invalid:0", StartError, "not known", id="unknown name"),
        pytest.param("8081", ConfigError, "host:port", id="no host"),
        pytest.param("127.0.0.1:http", ConfigError, "port", id="no number"),
        pytest.param("::1:8081", ConfigError, "host:port", id="no brackets"),
    ],
)
def test_an_address_that_cannot_be_had_is_an_error(listen: str, kind: type[Exception], says: str) -> None:
    """Whatever is wrong with the address, the message says it and names the key."""
    server = WebServer(listen, application(), key="forwarder.http.listen")
    with pytest.raises(kind, match=says) as error:
        asyncio.run(server.start())
    assert "forwarder.http.listen" in str(error.value)


def test_a_stop_without_a_start_is_harmless() -> None:
    """Stopping what does not run, and stopping twice, does nothing."""
    server = WebServer("127.0.0.1:0", application())
    asyncio.run(server.stop())
    assert server.port == 0


def test_a_slow_endpoint_holds_up_neither_loop_nor_probes() -> None:
    """While as many endpoints as the pool has threads do not return, the loop turns and probes are answered."""
    release, waiting = threading.Event(), threading.Semaphore(0)

    def slow() -> object:
        waiting.release()
        release.wait(30)
        return {}

    async def work(http: httpx.AsyncClient, server: WebServer) -> list[int]:
        del server
        scrapes = [asyncio.create_task(http.get("/api/v1/slow")) for _ in range(50)]
        await asyncio.to_thread(waiting.acquire)
        probes = [(await http.get(path)).status_code for path in ("/livez", "/readyz")]
        release.set()
        return probes + [(await scrape).status_code for scrape in scrapes]

    assert on_a_server(application(api={"/api/v1/slow": slow}), work) == [200] * 52


def test_the_server_leaves_signals_alone() -> None:
    """The stage's own handlers of SIGTERM and SIGINT stay as they are while the server runs."""
    import signal

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    async def work(http: httpx.AsyncClient, server: WebServer) -> list[object]:
        del http, server
        return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    # The runner has a SIGINT handler of its own, which is not the server's; a loop without it shows the difference.
    loop = asyncio.new_event_loop()
    try:
        assert on_a_server(application(), work, run=loop.run_until_complete) == before
    finally:
        loop.close()
