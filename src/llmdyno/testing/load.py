"""One level of load against a server, in this process: what becomes of each request.

On uvloop, because that is what a benchmark runs on.
"""

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

import uvloop

from llmdyno import spec
from llmdyno.endpoints import Endpoint
from llmdyno.load.level import Level
from llmdyno.load.plan import Plan
from llmdyno.load.progress import Progress
from llmdyno.load.recorder import Recorder
from llmdyno.records.entries import Record
from llmdyno.testing.scripted_server import Script, scripted
from llmdyno.wire.exchange import Meter
from llmdyno.wire.target import parse_url
from llmdyno.workload.prompts import Prompts


async def drive(
    url: str,
    endpoint: Endpoint,
    *,
    users: int = 1,
    then: Callable[[Level], None] = lambda _level: None,
    target: Any = None,
    prompt: str = "",
    **load: Any,
) -> list[Record]:
    """Run one level and return its records; `prompt` is put before each one's own."""
    entries: list[Any] = []
    plan = Plan(
        level=0,
        users=users,
        load=spec.Load(**{"users": (users,), "ramp_s": 0.0, "think_s": 0.0, **load}),
        target=target or parse_url(url),
        endpoint=endpoint,
        model="m",
    )
    recorder = Recorder(
        sink=entries.append, zero_ns=perf_counter_ns(), meter=Meter(), progress=Progress()
    )
    level = Level(plan, Prompts(spec.Workload(system_prompt=prompt)), recorder)
    await level.run()
    then(level)
    return [entry for entry in entries if isinstance(entry, Record)]


def run(script: Script, endpoint: Endpoint, **load: Any) -> list[Record]:
    """Serve a script, run one level against it, and return the records."""

    async def main() -> list[Record]:
        async with scripted(script) as url:
            return await drive(url, endpoint, **load)

    records: list[Record] = uvloop.run(main())
    return records
