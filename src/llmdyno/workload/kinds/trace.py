"""Prompts of the lengths that a trace has, in its order and at its times."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from llmdyno.errors import UsageError
from llmdyno.spec import CHAT_OUTPUT_TOKENS
from llmdyno.workload import (
    Draws,
    Item,
    Session,
    Workload,
    WorkloadSpec,
    require_dataset,
    synthetic_text,
    traces,
    words,
)
from llmdyno.workload.traces import TracedRequest


class Trace:
    """Replays a recorded trace; where it has no prompts, they are made of random words."""

    name = "trace"
    takes = frozenset({"dataset"})
    calibrates = True
    alike_on_purpose = True

    def check(self, spec: WorkloadSpec) -> None:
        """Refuse what a trace cannot be replayed with, and read the whole file once.

        Raises:
            UsageError: no data set is given, or it cannot be read, or `osl` is given, though a
                trace has its own lengths.
        """
        require_dataset(spec)
        if spec.osl is not None:
            raise UsageError(f"--osl {spec.osl}: a trace has its own lengths.")
        _requests(spec)

    def notes(self, spec: WorkloadSpec) -> list[str]:
        """Say how many of the trace's requests are left out, because they failed."""
        if spec.osl is not None:  # check() refuses it, whatever the file is
            return []
        requests, failed = _whole(spec)
        if not failed:
            return []
        left = (
            "is of a request that failed, and left out"
            if failed == 1
            else "are of requests that failed, and left out"
        )
        return [f"--dataset {spec.dataset}: {failed:,} of {failed + len(requests):,} rows {left}."]

    def due_s(self, spec: WorkloadSpec) -> list[float]:
        """Return when each request is due, in seconds from the first."""
        return [request.due_s for request in _requests(spec)]

    def sessions(self, spec: WorkloadSpec, draws: Draws) -> Iterator[Session]:
        """Return as many single prompts as the trace has requests."""
        return _replayed(_requests(spec), spec, draws)


def _requests(spec: WorkloadSpec) -> Sequence[TracedRequest]:
    return _whole(spec)[0]


def _whole(spec: WorkloadSpec) -> tuple[Sequence[TracedRequest], int]:
    """Read the trace, unless it is the one that was read last and has not changed."""
    name = require_dataset(spec)
    path = Path(name)
    return _read(name, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=1)
def _read(name: str, _changed_ns: int) -> tuple[Sequence[TracedRequest], int]:
    requests, failed = traces.read_counted(name)
    return tuple(requests), failed


def _replayed(
    requests: Sequence[TracedRequest], spec: WorkloadSpec, draws: Draws
) -> Iterator[Session]:
    lengths: dict[str, int] = {}  # of blocks without a fixed one, in words, as first asked
    for number, request in enumerate(requests):
        item = Item(
            number=number,
            prompt=request.prompt or _prompt(request, spec.seed, draws, lengths),
            system_prompt=request.system_prompt or spec.system_prompt,
            history=request.history,
            max_tokens=request.output_tokens or CHAT_OUTPUT_TOKENS,
            exact_length=request.output_tokens is not None,
        )
        yield (item,)


def _prompt(request: TracedRequest, seed: int, draws: Draws, lengths: dict[str, int]) -> str:
    """Make a prompt of the request's length that begins as those with the same blocks do."""
    wanted = draws.words(request.input_tokens)
    if not request.blocks:
        return synthetic_text(wanted, draws.rng)
    if request.block_weights:
        _divide(request, wanted, lengths)
    fixed = max(1, round(request.block_tokens / draws.tokens_per_word))
    found: list[str] = []
    for name in request.blocks:
        found += words.block(f"{seed}/{name}", lengths.get(name, fixed))
    # The last block is rarely full: the words are cut. A trace may name too few blocks: random
    # words follow.
    missing = max(0, wanted - len(found))
    return " ".join(found[:wanted] + words.random_words(missing, draws.rng))


def _divide(request: TracedRequest, wanted: int, lengths: dict[str, int]) -> None:
    """Divide a prompt's words among its blocks that are new, in proportion to their weights.

    Args:
        request: with weights.
        wanted: words of the prompt.
        lengths: of the blocks known so far, in words; the new ones are added.
    """
    known = sum(lengths.get(name, 0) for name in request.blocks)
    new = {
        name: weight
        for name, weight in zip(request.blocks, request.block_weights, strict=True)
        if name not in lengths
    }
    left, whole = max(0, wanted - known), sum(new.values())
    done = given = 0.0
    for name, weight in new.items():
        done += weight
        upto = round(left * done / whole) if whole else 0
        lengths[name] = int(upto - given)
        given = upto


WORKLOAD: Workload = Trace()
