"""Traces: recorded arrivals to replay. One file a format; `TRACE` is its last line.

A format is recognised by its columns. A trace says when each request came and how long its prompt
and its answer were, but rarely what was asked. kinds/trace.py makes prompts of those lengths. Where
a format tells which prompts began alike (`blocks`), they begin alike again, so that a prefix cache
hits as often as it did then.
"""

from collections.abc import Collection
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

        Raises:
            KeyError: a column is missing.
            ValueError, TypeError: a value is of the wrong kind.
        """


def read(name: str) -> list[TracedRequest]:
    """Return a trace's requests in order of time, the first due at 0 s.

    Raises:
        UsageError: the file cannot be read, or is no trace that we know; names the line.
    """
    trace: Trace | None = None
    found: list[TracedRequest] = []
    for place, row in dataset.rows(name):
        if trace is None:
            trace = _recognise(name, row)
        try:
            request = trace.request(row)
            if request is not None:
                _check(request)
        except KeyError as error:
            raise UsageError(f"--dataset {name}, line {place}: has no {error}.") from error
        except (ValueError, TypeError) as error:
            raise UsageError(f"--dataset {name}, line {place}: {error}.") from error
        if request is not None:
            found.append(request)
    if not found:
        raise UsageError(f"--dataset {name}: holds no requests.")
    found.sort(key=lambda request: request.due_s)
    first_s = found[0].due_s
    return [msgspec.structs.replace(one, due_s=one.due_s - first_s) for one in found]


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
    if not request.prompt and request.input_tokens < 1:
        raise ValueError(f"a prompt of {request.input_tokens} tokens; must be at least 1")
    if request.output_tokens is not None and request.output_tokens < 1:
        raise ValueError(f"an answer of {request.output_tokens} tokens; must be at least 1")
