from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from forwarder.__main__ import main
from forwarder.books import accounts, add_up
from forwarder.ledger import Drop
from forwarder.ledger import Ledger as SinkLedger
from ingest.ledger import ledger
from shared.metrics import Book


def ingest_books(decoded: int = 10, delivered: int = 7, refused: int = 2, in_flight: int = 1) -> dict[str, Any]:
    """What an instance of stage one tells."""
    book = Book()
    book.add("ingest_datagrams_received_total", 5, listener="udp://[::]:2055", protocol="v9")
    book.add("ingest_records_decoded_total", decoded, protocol="v9")
    book.add("kafka_produced_records_total", delivered, topic="flows.records")
    book.add("ingest_dropped_total", refused, stage="produce", reason="queue_full", unit="records")
    book.add("ingest_dropped_total", 1, stage="decode", reason="truncated", unit="datagrams")
    book.set("ingest_records_in_flight", in_flight)
    return json.loads(json.dumps(ledger(book.snapshot())))  # type: ignore[no-any-return]


def sink_books() -> dict[str, Any]:
    """What a forwarder tells of a sink named lake."""
    ours = SinkLedger("lake", "flows.records", Book())
    ours.receive(0, 30)
    ours.deliver(20)
    ours.drop(Drop.DUPLICATE, 4)
    ours.expire(3)
    return {"lake": ours.as_json()}


Serve = Callable[[Mapping[str, Any], str | None], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves books at a URL, to whoever has the token, if there is one."""
    servers: list[ThreadingHTTPServer] = []

    def start(books: Mapping[str, Any], token: str | None = None) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                allowed = token is None or self.headers.get("Authorization") == f"Bearer {token}"
                self.send_response(200 if allowed and self.path == "/api/v1/ledger" else 401)
                self.end_headers()
                self.wfile.write(json.dumps(books).encode())

            def log_message(self, *_: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def shown(text: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The accounts of a JSON output."""
    return {(one["stage"], one["unit"]): one for one in map(json.loads, text.splitlines())}


def test_books_of_all_instances_are_added_up(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """**ledger**: two ingests and a forwarder, one account for each stage, and each of them balances."""
    urls = [serve(ingest_books(), None), serve(ingest_books(100, 98, 1, 1), None), serve(sink_books(), None)]
    assert main(["ledger", "--format", "json", *urls]) == 0
    told = shown(capsys.readouterr().out)
    records = told["ingest", "records"]
    assert (records["received"], records["out"], records["dropped"], records["in_flight"]) == (
        110,
        {"delivered": 105},
        {"queue_full": 3},
        2,
    )
    assert records["beside"] == {"datagrams truncated": 2}
    lake = told["lake", "records"]
    assert (lake["received"], lake["out"], lake["dropped"], lake["in_flight"]) == (
        30,
        {"delivered": 20},
        {"duplicate": 4},
        6,
    )
    assert lake["beside"] == {"messages expired": 3}


def test_one_instance_named_twice_counts_once(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """The same URL, and the same with the path of the API, are one instance."""
    url = serve(ingest_books(), None)
    assert main(["ledger", "--format", "json", url, url + "/", url + "/api/v1/ledger"]) == 0
    assert shown(capsys.readouterr().out)["ingest", "records"]["received"] == 10


def test_books_that_do_not_balance_are_named(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """A record that nobody accounts for is an error, and says of which stage."""
    assert main(["ledger", "--format", "table", serve(ingest_books(decoded=11), None)]) == 1
    out, err = capsys.readouterr()
    assert "the books of ingest do not balance: 1 records are not accounted for" in err
    assert "+1" in out


def test_an_instance_that_does_not_answer_is_named(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """The others are added up all the same."""
    assert main(["ledger", "--format", "json", "http://127.0.0.1:1", serve(sink_books(), None)]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("http://127.0.0.1:1: does not answer")
    assert shown(out)["lake", "records"]["received"] == 30


def test_the_token_is_handed_over(serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without it, the answer says what is missing."""
    url = serve(sink_books(), "secret")
    assert main(["ledger", url]) == 1
    assert "answers 401" in capsys.readouterr().err
    token = tmp_path / "token"
    token.write_text("secret\n")
    assert main(["ledger", "--token-file", str(token), url]) == 0
    assert main(["ledger", "--token-file", str(tmp_path / "none"), url]) == 2
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "told", [{"received": 1}, {"lake": 3}, {"lake": {"received": {}}}, {"received": {"datagrams": 1}}]
)
def test_what_is_no_ledger_is_refused(told: dict[str, Any]) -> None:
    """Another server's JSON is not taken for books."""
    with pytest.raises(ValueError, match="no books of Sluiceway"):
        accounts(told)


def test_nothing_is_added_up_to_nothing() -> None:
    """No instance, no account."""
    assert add_up([]) == []
