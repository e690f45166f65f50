"""The head of a request on its way through: what is changed in it, and what is kept for the trace.

Only what belongs to one connection is changed: the host, the path's prefix, and an offer of HTTP/2
that the server might accept.
"""

import msgspec

from llmdyno.wire.target import Target

HEAD_BYTES_MAX = 256 * 2**10
_END = b"\r\n\r\n"
_VERSIONED = "/v1"
_NO_TOKEN = frozenset(b' \t\r\n"(),/:;<=>?@[\\]{}')
# Headers that are not passed on: these we write anew, or they are about this connection alone.
_OURS = frozenset({"host", "proxy-connection", "http2-settings"})


class BadRequestError(Exception):
    """A head that is no request of HTTP/1; the message says why."""


class Head(msgspec.Struct, kw_only=True):
    """The head of one request."""

    method: str
    path: str  # without the query, which may hold a key
    headers: dict[str, str]  # names in lower case
    forward: bytes  # what is sent to the server
    framing: bytes  # the same for a parser: without an offer to speak another protocol


def split_head(data: bytes | bytearray) -> int:
    """Return where the head of a request ends; -1: it is not there yet.

    Raises:
        BadRequestError: it is longer than any head should be.
    """
    end = data.find(_END)
    if end < 0 and len(data) > HEAD_BYTES_MAX:
        raise BadRequestError(f"the head is longer than {HEAD_BYTES_MAX // 2**10} KiB")
    return end + len(_END) if end >= 0 else -1


def read_head(data: bytes, target: Target) -> Head:
    """Return a request's head, ready for the server.

    Args:
        data: the head with the empty line at its end.
        target: the server; its headers are added if the client sends none of their names.

    Raises:
        BadRequestError: it is no head of a request.
    """
    first, *lines = data.removesuffix(_END).decode("latin-1").split("\r\n")
    match first.split(" "):
        case [method, path, "HTTP/1.0" | "HTTP/1.1" as version] if method.isalpha():
            pass
        case _:
            raise BadRequestError("this is not HTTP/1")
    if "://" in path.partition("?")[0]:  # a client that takes us for its proxy
        path = "/" + path.partition("://")[2].partition("/")[2]
    headers: dict[str, str] = {}
    kept: list[str] = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or not _NO_TOKEN.isdisjoint(name.encode("latin-1")):
            raise BadRequestError("a line of the head is no header")
        key = name.lower()
        value = value.strip(" \t")
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
        if key not in _OURS:
            kept.append(line)
    if headers.get("upgrade", "").lower() == "h2c":  # an answer in HTTP/2 would pass unseen
        kept = _without(kept, "upgrade", "connection")
    added = [
        f"{one.name}: {one.value}" for one in target.headers if one.name.lower() not in headers
    ]
    opening = f"{method} {_placed(path, target.prefix)} {version}"
    lines = [opening, f"Host: {target.authority}", *kept, *added]
    return Head(
        method=method,
        path=path.partition("?")[0],
        headers=headers,
        forward=_joined(lines),
        framing=_joined([opening, *_without(kept, "upgrade", "connection"), *_kept_alive(headers)]),
    )


def _placed(path: str, prefix: str) -> str:
    """Return the path at the server; a prefix that ends with /v1 is often in both."""
    if prefix.endswith(_VERSIONED) and (path + "/").startswith(f"{_VERSIONED}/"):
        prefix = prefix.removesuffix(_VERSIONED)
    return prefix + path if path.startswith("/") else path


def _without(lines: list[str], *names: str) -> list[str]:
    return [line for line in lines if line.partition(":")[0].lower() not in names]


def _kept_alive(headers: dict[str, str]) -> list[str]:
    """Return a Connection header that says no more than whether the client wants to go on."""
    said = {part.strip().lower() for part in headers.get("connection", "").split(",")}
    return [f"Connection: {word}" for word in ("close", "keep-alive") if word in said]


def _joined(lines: list[str]) -> bytes:
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
