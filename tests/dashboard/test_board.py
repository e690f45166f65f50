"""The page as it is served: who may see it, what comes, what its buttons do."""

import errno
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from llmdyno.dashboard.board import Board, interrupt
from llmdyno.errors import ServerError, UsageError
from waiting import until

Pressed = dict[str, threading.Event]


@pytest.fixture(scope="module")
def pressed() -> Pressed:
    return {"stop": threading.Event(), "enough": threading.Event()}


@pytest.fixture(scope="module")
def page(pressed: Pressed) -> Iterator[Board]:
    with Board(0, {name: event.set for name, event in pressed.items()}) as board:
        yield board


def asked(
    board: Board, path: str, *, method: str = "GET", token: str | None = None, **headers: str
) -> tuple[int, str, dict[str, str]]:
    """Ask the page's server; return the status, the body and the headers."""
    place = urlsplit(board.url)
    right = place.query.removeprefix("token=")
    query = f"?token={right if token is None else token}" if token != "" else ""
    connection = http.client.HTTPConnection(place.netloc, timeout=20)
    connection.request(method, f"{path}{query}", headers=headers)
    reply = connection.getresponse()
    body = reply.read().decode()
    connection.close()
    return reply.status, body, {name.lower(): value for name, value in reply.getheaders()}


def events(
    board: Board, until_event: str, hears: Callable[[str], None] = lambda _: None
) -> list[tuple[str, Any]]:
    """Read the events of a fresh browser up to the first of a name; `hears` gets each name."""
    place = urlsplit(board.url)
    found: list[tuple[str, Any]] = []
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=20) as line:
        line.sendall(f"GET /events?{place.query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        heard = line.makefile("rb")
        while heard.readline().strip():
            pass
        name = ""
        for raw in heard:
            kind, _, data = raw.decode().rstrip("\n").partition(": ")
            if kind == "event":
                name = data
            elif kind == "data":
                found.append((name, json.loads(data)))
                hears(name)
                if name == until_event:
                    return found
    return found


def test_with_the_token_there_is_a_page_that_asks_nobody_else(page: Board) -> None:
    status, body, headers = asked(page, "/")

    assert status == 200
    assert "EventSource" in body
    assert urlsplit(page.url).query.removeprefix("token=") not in body
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert "http://" not in body.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in body


@pytest.mark.parametrize("path", ["/", "/events", "/stop", "/enough", "/nothing"])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("token", ["", "wrong", "%C3%A9"])
def test_without_the_right_token_all_is_forbidden(
    page: Board, pressed: Pressed, path: str, method: str, token: str
) -> None:
    assert asked(page, path, method=method, token=token)[0] == 403
    assert not pressed["stop"].is_set()


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("Host", "evil.example"),
        ("Host", "evil.example:80"),
        ("Host", "127.0.0.1.evil.example"),
        ("Host", ""),
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
    ],
)
def test_a_page_from_elsewhere_is_refused_even_with_the_token(
    page: Board, pressed: Pressed, name: str, host: str
) -> None:
    for path, method in (("/", "GET"), ("/events", "GET"), ("/stop", "POST")):
        assert asked(page, path, method=method, **{name: host})[0] == 403
    assert not pressed["stop"].is_set()


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:1", "LOCALHOST"])
def test_a_tunnel_may_have_another_port(page: Board, host: str) -> None:
    assert asked(page, "/", Host=host)[0] == 200


def test_a_process_that_the_system_does_not_start_is_a_failure_with_a_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("subprocess.Popen", full)

    with pytest.raises(ServerError, match=r"^The dashboard's process cannot be started: .*limit"):
        Board(0, {})


def test_only_a_post_presses_a_button(page: Board, pressed: Pressed) -> None:
    assert asked(page, "/enough")[0] == 405
    assert not pressed["enough"].is_set()
    assert asked(page, "/other", method="POST")[0] == 404

    right = urlsplit(page.url).query.removeprefix("token=")
    bearer = {"Authorization": f"Bearer {right}", "Origin": "http://127.0.0.1:80"}
    assert asked(page, "/enough", method="POST", token="", **bearer)[0] == 202
    assert pressed["enough"].wait(10)
    assert not pressed["stop"].is_set()


def test_a_browser_that_comes_late_gets_all_that_is_known(page: Board) -> None:
    page.put("head", {"title": "first"})
    page.put("head", {"title": "a \u00fc\nb"})
    for number in range(3):
        page.add("points", {"at": number})
    page.put("last", 1)

    found = events(page, "last")
    assert ("head", {"title": "a \u00fc\nb"}) in found
    assert found[-1] == ("last", 1)
    late = events(page, "points+")
    assert ("points+", [{"at": 0}, {"at": 1}, {"at": 2}]) in late


def test_slow_browsers_hold_nothing_up_and_others_get_the_newest() -> None:
    with Board(0, {}) as board:
        place = urlsplit(board.url)
        slow = []
        for _ in range(20):  # each asks, and reads nothing
            line = socket.create_connection((place.hostname or "", place.port or 0))
            line.sendall(f"GET /events?{place.query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            slow.append(line)
        for number in range(100):
            board.put("now", {"number": number, "filler": "x" * 20_000})
        board.put("last", 1)

        found = events(board, "last")
        for line in slow:
            line.close()
    assert [data["number"] for name, data in found if name == "now"][-1] == 99


def test_a_process_that_does_not_read_holds_nothing_up_and_gets_the_newest() -> None:
    with Board(0, {}) as board:
        os.kill(board.pid, signal.SIGSTOP)
        for number in range(200):
            board.put("now", {"number": number, "filler": "x" * 20_000})
            board.add("points", number)
        os.kill(board.pid, signal.SIGCONT)

        def newest() -> bool:
            found = dict(events(board, "points+"))
            now = found.get("now", {"number": 0})  # the points may have come before it
            return bool(now["number"] == 199 and found["points+"][-1] == 199)

        assert until(newest, "the newest number and the last point")


def test_at_the_end_browsers_are_told_and_the_process_is_gone() -> None:
    board = Board(0, {})
    found: list[tuple[str, Any]] = []
    listens = threading.Event()
    browser = threading.Thread(
        target=lambda: found.extend(events(board, "over", lambda _: listens.set()))
    )
    browser.start()
    board.put("now", 1)
    assert listens.wait(20)

    board.put("end", {"said": "done"})
    board.close()
    browser.join(10)

    assert found[-2:] == [("end", {"said": "done"}), ("over", {})]
    with pytest.raises(ConnectionRefusedError):
        asked(board, "/")
    board.put("now", 2)  # nobody is there any more, and nothing is raised


def test_a_server_that_is_killed_costs_the_page_alone() -> None:
    with Board(0, {}) as board:
        os.kill(board.pid, signal.SIGKILL)
        for _ in range(1000):
            board.put("now", {"filler": "x" * 10_000})


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--dashboard {port}: cannot be listened on: Addr"):
            Board(port, {})
    with pytest.raises(UsageError, match="--dashboard 65536: must be a port"):
        Board(65536, {})


def test_the_token_is_in_no_argument_and_no_variable(page: Board) -> None:
    token = urlsplit(page.url).query.removeprefix("token=")
    assert len(token) >= 32
    for name in ("cmdline", "environ"):
        assert token.encode() not in Path(f"/proc/{page.pid}/{name}").read_bytes()


def test_to_interrupt_is_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt):  # from its start on: the signal may come at any moment
        wait_for_it()


def wait_for_it() -> None:
    threading.Thread(target=interrupt).start()
    time.sleep(30)
