"""The error classes of failed requests: the one table of them, a sentence each.

A failed request is a record with one of these classes and, in its `detail`, the server's own words
or ours. The transport, the endpoints and the load name them; summary, terminal, report and
docs/faults.md say what they mean. A status other than 200 is the class http-NNN, a status of gRPC
other than OK the class grpc-NAME.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus

FAULTS: Mapping[str, str] = {
    # No connection.
    "dns": "the host's name could not be resolved",
    "refused": "nobody listens on that port",
    "unreachable": "the network or the host could not be reached",
    "connect-timeout": "no connection within 30 s, or --timeout if that is shorter",
    "client-limit": "this machine has run out of file descriptors or of ports",
    "proxy": "the proxy would not connect to the server",
    "tls": "no TLS connection could be agreed on, or it broke",
    "tls-certificate": "the server's certificate is untrusted, has expired, or is for another host",
    # No whole response.
    "no-response": "the server closed the connection without answering",
    "reset": "the connection was reset before any byte of a response",
    "truncated": "the response had begun and ended before it was whole",
    "timeout": "the response did not end within --timeout",
    # A response that is no HTTP, or none that we take.
    "bad-http": "what came is not HTTP/1.1",
    "bad-grpc": "what came is not gRPC over HTTP/2",
    "header-too-large": "the response's header did not end within 256 KiB",
    "too-large": "the response is longer than 256 MiB",
    "bad-encoding": "the body is compressed in a way that could not be decoded",
    "redirect": "the server is elsewhere: give the address in the detail as --url",
    # A response that is no stream of tokens.
    "not-a-stream": "the status is 200, but the body is no stream of this endpoint",
    "bad-json": "an event of the stream is not JSON of the expected shape",
    "bad-message": "a message of the stream is none of the protocol's",
    "stream-error": "the server reported an error within the stream",
    "no-tokens": "the stream ended without a single token",
}

# How servers refuse a request: by status, or, having begun a stream, in it.
_REFUSALS = frozenset(
    {"http-400", "http-413", "http-422", "stream-error"}
    | {f"grpc-{name}" for name in ("invalid-argument", "out-of-range")}
)
# The words of the embedded engine, vLLM, SGLang, TGI, TensorRT-LLM, LMDeploy, MLC LLM, llama.cpp
# and OpenAI for a prompt, or prompt and output, that are too long.
_TOO_LONG = re.compile(
    r"maximum (context|model|input|sequence|allowed)|model'?s (maximum|context)"
    r"|context.(length|size)"
    r"|max_(num_batched_tokens|num_tokens|seq_len|model_len|input_len\w*|total_tokens)"
    r"|must have less than \d+ tokens|max_new_tokens`? must be"
    r"|(input|prompt|session).{0,40}too long"
    r"|(exceed|larger|longer|greater).{0,40}(length|tokens)",
    re.IGNORECASE,
)

# Of a request that was given up after a wait, by us or by a proxy: how long it would have taken is
# not known, but that it is longer than the wait.
_TIMED_OUT = frozenset({"timeout", "http-408", "http-504", "http-524", "grpc-deadline-exceeded"})

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HTTP = re.compile(r"http-(\d{1,3})")
# By number, as gRPC has them.
_GRPC = """
    ok cancelled unknown invalid-argument deadline-exceeded not-found already-exists
    permission-denied resource-exhausted failed-precondition aborted out-of-range unimplemented
    internal unavailable data-loss unauthenticated
""".split()


def http_fault(status: int) -> str:
    """Return the class of a status other than 200."""
    return f"http-{status}"


def grpc_fault(status: str) -> str:
    """Return the class of a gRPC status other than 0, given as its decimal text.

    A number that gRPC does not define gives grpc-unknown.
    """
    known = status.isdecimal() and 0 < int(status) < len(_GRPC)
    return f"grpc-{_GRPC[int(status)] if known else 'unknown'}"


def is_too_long(fault: str, detail: str) -> bool:
    """Tell whether a server has refused a request because prompt or output are too long for it.

    Such refusals are one fault of a whole level: no retry and no lower load mends them.
    """
    return fault in _REFUSALS and _TOO_LONG.search(detail) is not None


def is_timeout(fault: str) -> bool:
    """Tell whether a request failed because it took too long for us or for a proxy."""
    return fault in _TIMED_OUT


def meaning(fault: str) -> str:
    """Return the meaning of an error class in words; empty if there is no such class."""
    if match := _HTTP.fullmatch(fault):
        status = int(match[1])
        known = status in {member.value for member in HTTPStatus}
        phrase = f" ({HTTPStatus(status).phrase})" if known else ""
        return f"the server answered with status {status}{phrase}"
    if fault.removeprefix("grpc-") in _GRPC[1:] and fault.startswith("grpc-"):
        name = fault.removeprefix("grpc-").replace("-", "_").upper()
        return f"the server answered with gRPC status {name}"
    return FAULTS.get(fault, "")
