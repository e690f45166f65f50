"""A worker: a process that runs one share of a level and writes its records to its own file.

workers.py starts `python -m llmdyno.load.worker` for each share. No measurement goes through the
pipes between them, only the start and the stop:

    parent → worker   a line with the Assignment; a line with the moment to begin; end of file: stop
                      now, because the parent asks for it or is dead
    worker → parent   "ready", once everything is imported and the prompts are drawn

The moment is in perf_counter_ns, one clock for all processes of a machine (CLOCK_MONOTONIC). The
secret headers are passed in the environment. The exit status is 0 if the share was done or stopped;
otherwise a sentence on standard error says what happened.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from llmdyno import plugins
from llmdyno.errors import DynoError
from llmdyno.load.level import Level, rare_collections
from llmdyno.load.plan import Plan, Point, target_of
from llmdyno.load.progress import Progress
from llmdyno.load.recorder import Recorder
from llmdyno.machine import open_files
from llmdyno.records.entries import Entry, LevelEnded, LevelStarted, ShareEnded
from llmdyno.records.journal import Journal
from llmdyno.wire.exchange import Meter
from llmdyno.wire.headers import Header
from llmdyno.workload.share import Share

SECRETS = "LLMDYNO_WORKER_SECRETS"
READY = b"ready\n"


def environment(secrets: Sequence[Header]) -> dict[str, str]:
    """Return the variables of a worker's environment; the secret headers are one of them.

    BLAS gets one thread: a worker does not use it, but its threads, one per core, spin at start.
    """
    given = {SECRETS: msgspec.json.encode(secrets).decode()} if secrets else {}
    return {"OPENBLAS_NUM_THREADS": "1", **os.environ, **given}


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """The order to a worker: one share of one load point, and where its records go."""

    point: Point
    share: Share
    zero_ns: int  # when the run began, by this machine's perf_counter_ns
    journal: str  # the file to append to


async def work() -> None:
    """Run the share that standard input names, and wait for its end.

    Raises:
        UsageError: the workload's file of prompts cannot be read here.
        StorageError: a record could not be written.
    """
    orders = await _orders()
    line = await orders.readline()
    if not line:
        return
    assignment = msgspec.json.decode(line, type=Assignment)
    point, share = assignment.point, assignment.share
    spec = point.spec
    secrets = msgspec.json.decode(os.environ.get(SECRETS, "[]"), type=tuple[Header, ...])
    target = target_of(spec, secrets)
    prompts = point.prompts(share)
    plan = point.plan(prompts, target, plugins.load("endpoints", spec.endpoint), share)
    open_files.allow(connections(plan))
    journal = Journal(Path(assignment.journal))
    try:
        recorder = Recorder(
            sink=_own_lines(journal.append, share),
            zero_ns=assignment.zero_ns,
            meter=Meter(),
            progress=Progress(),
        )
        level = Level(plan, prompts, recorder)
        sys.stdout.buffer.write(READY)
        sys.stdout.flush()
        if not (begin := await orders.readline()):
            return
        stopping = asyncio.create_task(_stop_at_end(orders, level))
        with rare_collections():
            await level.run(int(begin))
        stopping.cancel()
    finally:
        journal.close()


def connections(plan: Plan) -> int:
    """Return the most connections that a share can have open; 0: there is no limit."""
    limit = plan.load.max_concurrency if plan.load.is_open else plan.users
    return plan.share.count(limit or 0)


def _own_lines(append: Callable[[Entry], None], share: Share) -> Callable[[Entry], None]:
    """Leave out the start of the level and make its end that of the share.

    The parent writes the start and the end of the whole level.
    """

    def sink(entry: Entry) -> None:
        match entry:
            case LevelStarted():
                return
            case LevelEnded():
                append(
                    ShareEnded(
                        level=entry.level,
                        worker=share.index,
                        end_ns=entry.end_ns,
                        full_until_ns=entry.full_until_ns,
                        unsent=entry.unsent,
                        unsent_due_ns=entry.unsent_due_ns,
                    )
                )
            case _:
                append(entry)

    return sink


async def _orders() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=2**24)  # the first line may hold a long system prompt
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    return reader


async def _stop_at_end(orders: asyncio.StreamReader, level: Level) -> None:
    await orders.read()
    level.interrupt()


def main() -> None:
    """Run one share and exit: status 0, or a sentence on standard error and another status."""
    try:
        if sys.platform == "win32":
            asyncio.run(work())
        else:
            import uvloop

            uvloop.run(work())
    except DynoError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
