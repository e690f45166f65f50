"""Traces: recorded arrivals to replay. One file a format; `TRACE` is its last line.

A format is recognised by its columns. A trace says when each request came and how long its prompt
and its answer were, but rarely what was asked. kinds/trace.py makes prompts of those lengths. Where
a format tells which prompts began alike (`blocks`), they begin alike again, so that a prefix cache
hits as often as it did then.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from llmdyno import plugins
from llmdyno.errors import UsageError
from llmdyno.workload import dataset
from llmdyno.workload.dataset import Row


class TracedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a trace."""

    due_s: float  # from any moment; only differences count
    input_tokens: int = 0  # 0: `prompt` has the text itself
    output_tokens: int | None = None  # None: the model decides
    prompt: str = ""
    system_prompt: str = ""  # beside a `prompt`
    history: tuple[tuple[str, str], ...] = ()  # beside a `prompt`: questions and answers before it
    session: str = ""  # requests of the same name are turns of one conversation
    delay_s: float | None = None  # instead of a time: after the turn before, which must be there
    adds_to_session: bool = False  # it has only what is new, not the turns before
    # Names of the prompt's blocks: blocks of the same name have the same text. Each block has
    # block_tokens tokens; the last one has the rest.
    blocks: tuple[str, ...] = ()
    block_tokens: int = 512
    # Where blocks are of no fixed number of tokens: how long each is beside the others, in any
    # unit. The prompt's tokens are divided among them, but a block that an earlier request had is
    # as long as it was there.
    block_weights: tuple[float, ...] = ()


class Trace(Protocol):
    """The interface of a format."""

    name: str

    def recognises(self, columns: Collection[str]) -> bool:
        """Tell whether rows with these columns are of this format."""

    def request(self, row: Row) -> TracedRequest | None:
        """Return a row's request; None for one that failed when it was recorded.

        A format whose rows hold several has `requests(row) -> Sequence[TracedRequest]` besides,
        which is called instead.

        Raises:
            KeyError: a column is missing.
            ValueError, TypeError: a value is of the wrong kind.
        """


def read(name: str) -> list[TracedRequest]:
    """Return a trace's requests in order of time, the first due at 0 s.

    Raises:
        UsageError: the file cannot be read, or is no trace that we know; names the line.
    """
    return read_counted(name)[0]


def read_counted(name: str) -> tuple[list[TracedRequest], int]:
    """Return what read() does, and how many rows are of requests that failed, and left out.

    Raises:
        UsageError: as read() does.
    """
    trace: Trace | None = None
    found: list[TracedRequest] = []
    failed = 0
    for place, row in dataset.rows(name):
        if trace is None:
            trace = _recognise(name, row)
        try:
            requests = _requests(trace, row)
            for request in requests:
                _check(request)
        except KeyError as error:
            raise UsageError(f"--dataset {name}, {place.name}: has no {error}.") from error
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise UsageError(f"--dataset {name}, {place.name}: {error}.") from error
        found += requests
        failed += not requests and not hasattr(trace, "requests")  # else a row of none at all
    found = list(_in_sessions(found))
    if not found:
        rows = f"{failed:,} row{' is' if failed == 1 else 's are'} of requests that failed"
        raise UsageError(f"--dataset {name}: holds no requests{f': {rows}' if failed else ''}.")
    found.sort(key=lambda request: request.due_s)
    first_s = found[0].due_s
    return [msgspec.structs.replace(one, due_s=one.due_s - first_s) for one in found], failed


def _in_sessions(requests: Iterable[TracedRequest]) -> Iterator[TracedRequest]:
    """Yield each request with a time of its own and all that was said before it.

    Some traces give a session's later turns only what is new in them: a pause instead of a time,
    the tokens of the question alone. The turns of a session must come in their order.
    """
    last: dict[str, TracedRequest] = {}
    for each in requests:
        before = last.get(each.session) if each.session else None
        request = _first(each) if before is None else _after(before, each)
        if request.session:
            last[request.session] = request
        yield request


def _first(request: TracedRequest) -> TracedRequest:
    """Return a session's first turn with a name for its text, so that later ones can begin so."""
    if not request.adds_to_session or request.prompt or request.blocks:
        return request
    names, weights = _blocks(request, f"{request.session}/begun")
    return msgspec.structs.replace(request, blocks=names, block_weights=weights)


def _after(before: TracedRequest, request: TracedRequest) -> TracedRequest:
    if request.delay_s is not None:
        request = msgspec.structs.replace(
            request, due_s=before.due_s + request.delay_s, delay_s=None
        )
    is_whole = request.blocks[: len(before.blocks)] == before.blocks
    if not request.adds_to_session or is_whole or before.prompt or request.prompt:
        return request
    answered = before.output_tokens or 0
    said = f"{before.session}/{before.due_s:g}/{before.input_tokens}"
    own, weights = _blocks(request, f"{said}/asked")
    begun, begun_weights = _blocks(before, "")
    return msgspec.structs.replace(
        request,
        input_tokens=before.input_tokens + answered + request.input_tokens,
        blocks=(*begun, f"{said}/answered", *own),
        block_weights=(*begun_weights, answered, *weights),
    )


def _blocks(request: TracedRequest, name: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Return the blocks of a request and their tokens; without any, all of it is one."""
    if not request.blocks:
        return (name,), (float(request.input_tokens),)
    if request.block_weights:
        return request.blocks, request.block_weights
    full = len(request.blocks) - 1
    rest = max(1.0, float(request.input_tokens - full * request.block_tokens))
    return request.blocks, (*(float(request.block_tokens),) * full, rest)


def _requests(trace: Trace, row: Row) -> Sequence[TracedRequest]:
    if hasattr(trace, "requests"):
        found: Sequence[TracedRequest] = trace.requests(row)
        return found
    one = trace.request(row)
    return [] if one is None else [one]


def _recognise(name: str, row: Row) -> Trace:
    known = plugins.names("workload.traces")
    for kind in known:
        trace: Trace = plugins.load("workload.traces", kind)
        if trace.recognises(row.keys()):
            return trace
    raise UsageError(
        f"--dataset {name}: is no trace that we know ({', '.join(known)}); its columns"
        f" are {', '.join(map(str, row.keys()))}."
    )


def _check(request: TracedRequest) -> None:
    if not math.isfinite(request.due_s):
        raise ValueError(f"a time of {request.due_s}; must be a number")
    if not request.prompt and request.input_tokens < 1:
        raise ValueError(f"a prompt of {request.input_tokens} tokens; must be at least 1")
    if request.output_tokens is not None and request.output_tokens < 1:
        raise ValueError(f"an answer of {request.output_tokens} tokens; must be at least 1")
