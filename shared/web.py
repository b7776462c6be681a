"""What a stage shows over HTTP: metrics, probes, and its own read-only endpoints, served inside the stage's event loop.

Only the supervisor of a stage serves; nothing here is on the path of a record.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import hmac
import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException as AnyHTTPException

from shared.config import parse_host_port
from shared.errors import ConfigError, StartError
from shared.log import Throttle, get_logger
from shared.metrics import EXPOSITION_TYPE, Snapshot, exposition_text

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CONNECTIONS = 256
"""More HTTP connections than this at a time are answered 503."""

_JSON_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
_FORWARDING_HEADERS = ("forwarded", "x-forwarded-for", "x-real-ip")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a probe looks at: its name, whether it is well, and a sentence that says what is the matter."""

    name: str
    ok: bool
    detail: str = ""


Endpoint: TypeAlias = Callable[..., object]
"""What answers a path: a plain function that returns what orjson can write, or a Response.

It runs in a thread of a pool, so it may take its time, and must only read what another thread may read.
Its parameters are query parameters, as FastAPI understands them; its docstring is shown at /docs.
"""


def create_app(
    *,
    title: str,
    version: str,
    live: Callable[[], Sequence[Check]],
    ready: Callable[[], Sequence[Check]],
    snapshot: Callable[[], Snapshot],
    api: Mapping[str, Endpoint],
    token: Callable[[], str | None],
) -> FastAPI:
    """Build the application.

    `live` and `ready` are called in the event loop and must not wait: a probe is so never behind a slow scrape.
    `snapshot`, `token` and the endpoints of `api` (by full path, such as /api/v1/ledger) are called in a pool's thread.
    `token` gives what a client has to present as a bearer token, and is asked at each request, so that a new one counts
    at once; None when no token file is set, and then only clients on this machine are answered.
    """
    app = FastAPI(title=title, version=version, docs_url=None, redoc_url=None, openapi_url=None)
    faults = _Faults()

    def metrics() -> Response:
        """Everything that is counted, as Prometheus reads it."""
        return Response(exposition_text(snapshot), media_type=EXPOSITION_TYPE)

    def docs() -> Response:
        return get_swagger_ui_html(openapi_url="/openapi.json", title=title)

    open_paths = APIRouter()
    open_paths.add_api_route("/metrics", faults.guard("/metrics", metrics), response_class=Response)
    open_paths.add_api_route("/livez", _probe("/livez", live, faults), summary="Does the process work?")
    open_paths.add_api_route("/readyz", _probe("/readyz", ready, faults), summary="Can it do its work?")

    guarded = APIRouter(dependencies=[Depends(_Guard(token, faults))])
    for path, endpoint in api.items():
        guarded.add_api_route(path, faults.guard(path, endpoint), response_model=None)
    guarded.add_api_route("/openapi.json", faults.guard("/openapi.json", app.openapi), include_in_schema=False)
    guarded.add_api_route("/docs", faults.guard("/docs", docs), include_in_schema=False)

    app.include_router(open_paths)
    app.include_router(guarded)
    app.add_exception_handler(AnyHTTPException, _say)
    return app


def is_local(request: Request) -> bool:
    """Whether a request comes from this machine: from a loopback address or over a Unix socket, and not by a proxy."""
    if any(header in request.headers for header in _FORWARDING_HEADERS):
        return False
    if request.client is None:
        # A TCP client that is gone already has no address either; only a Unix socket has a path for a server address.
        server = request.scope.get("server")
        return server is not None and server[1] is None
    try:
        address = ipaddress.ip_address(request.client.host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


class WebServer:
    """Serves an application in the event loop that calls `start`, until `stop`. It installs no signal handlers.

    `listen` is `host:port`, with IPv6 addresses in brackets; `[::]` serves IPv4 too, and port 0 takes a free one. `key`
    is where `listen` was configured, for messages.
    """

    def __init__(self, listen: str, app: FastAPI, *, key: str = "http.listen") -> None:
        self._listen = listen
        self._app = app
        self._key = key
        self._socket: socket.socket | None = None
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that is served; 0 before `start` and after `stop`."""
        return 0 if self._socket is None else int(self._socket.getsockname()[1])

    async def start(self) -> None:
        """Bind, and return when requests are answered; a port or address that can't be had raises `StartError`."""
        self._socket = await self._bind()
        config = uvicorn.Config(
            self._app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=2,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve([self._socket]), name="http")
        started = asyncio.create_task(self._server.up.wait())
        await asyncio.wait({self._task, started}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            started.cancel()
            reason = self._task.exception() or "it ended at once"
            raise StartError(f"cannot serve HTTP on {self._listen} ({self._key}): {reason}")

    async def stop(self) -> None:
        """Stop listening, give requests in progress two seconds, and return; harmless when it is not started."""
        server, task = self._server, self._task
        self._server = self._task = None
        if server is not None and task is not None:
            server.should_exit = True
            await task
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _bind(self) -> socket.socket:
        failure: OSError | None = None
        for family, address in await _addresses(self._listen, self._key):
            try:
                return _listening(family, address)
            except OSError as error:
                failure = error
                # Only where IPv6 is off may a wildcard mean IPv4 alone; a port that is taken stays an error.
                if error.errno == errno.EADDRINUSE:
                    break
        raise StartError(_bind_message(self._listen, self._key, failure))


class _Server(uvicorn.Server):
    """uvicorn's server with the signals left to the stage, and an event for when it answers."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Faults:
    """Turns what an endpoint raises into an answer and a log line."""

    def __init__(self) -> None:
        self._log = get_logger("web")
        self._throttle = Throttle()

    def guard(self, path: str, endpoint: Endpoint) -> Callable[..., Response]:
        """Wrap an endpoint so that it answers JSON, or 500 with a sentence; its parameters stay visible to FastAPI."""

        @functools.wraps(endpoint)
        def answer(*args: Any, **kwargs: Any) -> Response:  # noqa: ANN401 - whatever the endpoint takes
            try:
                result = endpoint(*args, **kwargs)
                return result if isinstance(result, Response) else _json(result)
            except HTTPException:
                raise
            except Exception as error:  # noqa: BLE001 - no fault of an endpoint may end in silence or harm the server
                return self.tell(path, error)

        return answer

    def tell(self, path: str, error: Exception) -> Response:
        """Log what went wrong and say so to the client, without the details, which may not be for everyone."""
        self._throttle.log(self._log, "error", (path,), "an HTTP endpoint failed", path=path, exc_info=error)
        return _json({"error": f"{path} failed with {type(error).__name__}; the log has the details"}, 500)


class _Guard:
    """Lets a request pass that has the token; with no token set, one that comes from this machine."""

    def __init__(self, token: Callable[[], str | None], faults: _Faults) -> None:
        self._token = token
        self._faults = faults

    def __call__(self, request: Request) -> None:
        try:
            token = self._token()
        except Exception as error:
            self._faults.tell("the bearer token", error)
            raise HTTPException(
                503, "the bearer token cannot be read on the server; the log has the details"
            ) from error
        if token is None:
            if not is_local(request):
                raise HTTPException(
                    403,
                    "without http.token_file only clients on the same machine are answered here; "
                    "set it and send the token as 'Authorization: Bearer …'",
                )
            return
        scheme, _, presented = request.headers.get("authorization", "").partition(" ")
        # An empty token file must let nobody in.
        right = hmac.compare_digest(presented.strip().encode("latin-1"), token.encode())
        if not token or scheme.lower() != "bearer" or not right:
            raise HTTPException(
                401,
                "send the token of http.token_file as 'Authorization: Bearer …'",
                headers={"WWW-Authenticate": "Bearer"},
            )


def _probe(path: str, checks: Callable[[], Sequence[Check]], faults: _Faults) -> Callable[[], Any]:
    async def answer() -> Response:
        try:
            found = checks()
        except Exception as error:  # noqa: BLE001 - a probe that fails is an answer too
            return faults.tell(path, error)
        ok = all(check.ok for check in found)
        body = {"ok": ok, "checks": {check.name: {"ok": check.ok, "detail": check.detail} for check in found}}
        return _json(body, 200 if ok else 503)

    answer.__name__ = path.strip("/")
    return answer


def _json(content: object, status: int = 200) -> Response:
    return Response(orjson.dumps(content, option=_JSON_OPTIONS), status, media_type="application/json")


async def _say(_: Request, error: Exception) -> Response:
    if not isinstance(error, AnyHTTPException):
        raise error
    answer = _json({"error": error.detail}, error.status_code)
    answer.headers.update(error.headers or {})
    return answer


async def _addresses(listen: str, key: str) -> list[tuple[int, tuple[Any, ...]]]:
    """What to try to bind, in this order; the first that can be had is it."""
    try:
        place = parse_host_port(listen)
    except ValueError as error:
        raise ConfigError(f"{key}: {listen!r} {error}") from error
    if place.host == "::":
        return [(socket.AF_INET6, ("::", place.port)), (socket.AF_INET, ("0.0.0.0", place.port))]
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartError(f"cannot serve HTTP on {listen} ({key}): the host is not known: {error}") from error
    # A name such as localhost may have both: IPv4 is what most clients try.
    return sorted(((family, address) for family, _, _, _, address in found), key=lambda pair: pair[0])


def _listening(family: int, address: tuple[Any, ...]) -> socket.socket:
    """A listening socket, without SO_REUSEPORT: two servers must not share a port by mistake."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        sock.bind(address)
        sock.listen(128)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _bind_message(listen: str, key: str, failure: OSError | None) -> str:
    remedies = {
        errno.EADDRINUSE: "another process serves this port; stop it, or set another",
        errno.EACCES: "this user may not use the port; take one above 1023",
        errno.EADDRNOTAVAIL: "this machine has no such address",
    }
    reason = remedies.get(failure.errno or 0, str(failure)) if failure else "the name has no address"
    return f"cannot serve HTTP on {listen}: {reason} ({key})"
