"""An endpoint of somebody else's package: it proves itself in five lines, and `dyno` uses it."""

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import last_json
from llmdyno.bench.detect import detect
from llmdyno.bench.prober import Prober
from llmdyno.testing.endpoints import EndpointContract, Stream
from llmdyno.testing.scripted_server import END, HEAD, Client, framed, plain, scripted
from llmdyno.wire.target import parse_url
from outside.lines import ENDPOINT

Dyno = Callable[..., subprocess.CompletedProcess[str]]
TESTS = str(Path(__file__).parent.parent)


def line(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "done": False, **fields}, ensure_ascii=False).encode() + b"\n"


def end(tokens: int) -> bytes:
    return line(response="", done=True, prompt_eval_count=9, eval_count=tokens)


class TestLines(EndpointContract):
    endpoint = ENDPOINT
    stream = Stream(
        fields={
            "prompt": 'A "quoted" é\n',
            "system": "Be brief.",
            "options": {"num_predict": 7, "temperature": 0.5},
        },
        text=lambda text: line(response=text),
        silent=line(response=""),
        failure=line(error="out of memory"),
        end=end,
    )


def answer(asked: str, body: bytes) -> tuple[bytes, ...]:
    """Answer as Ollama does: a list of models, or as many tokens as were asked for."""
    if asked == "GET /v1/models":
        return (plain("200 OK", b'{"data": [{"id": "m"}]}'),)
    if asked != "POST /api/generate":
        return (plain("404 Not Found", b"no such page"),)
    tokens = json.loads(body)["options"]["num_predict"]
    parts = [line(response=f" {number}") for number in range(tokens)]
    return (HEAD, *(framed(part) for part in [*parts, end(tokens)]), END)


async def script(client: Client) -> None:
    while True:
        await client.send(*answer(*await client.asked()), pause_s=0.001)


@pytest.fixture
def url() -> Iterator[str]:
    """A server that speaks lines, on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    serving = scripted(script)
    try:
        yield asyncio.run_coroutine_threadsafe(serving.__aenter__(), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(serving.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()


def test_dyno_benchmarks_with_an_endpoint_and_a_workload_from_outside(
    dyno: Dyno, url: str, tmp_path: Path
) -> None:
    done = dyno(
        *("bench", "--url", url, "--endpoint", "outside.lines", "--workload", "outside.riddles"),
        *("-c", "2", "--requests", "6", "--ramp", "0s", "--think-time", "0s"),
        *("--no-calibration", "--no-scrape", "--out", "run", "--json"),
        PYTHONPATH=os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")]),
    )

    assert done.returncode == 0, done.stderr
    summary = last_json(done.stdout)
    (level,) = summary["levels"]
    assert (summary["spec"]["model"], summary["spec"]["endpoint"]) == ("m", "outside.lines")
    assert level["requests"] == level["requests"] | {"completed": 6, "failed": 0}
    tokens = level["tokens"]
    assert (tokens["input"], tokens["output"], tokens["source"]) == (54, 54, "usage")

    # Elsewhere, where the workload is not installed, the run is still read.
    again = dyno("report", "run")

    assert again.returncode == 0, again.stderr
    assert (tmp_path / "run" / "report.html").exists()


def test_an_endpoint_without_optional_members_is_given_the_model_that_is_listed(url: str) -> None:
    async def ask() -> tuple[str, str]:
        prober = Prober(parse_url(url), timeout_s=5.0)
        try:
            return await detect(prober, "outside.lines", "")
        finally:
            prober.close()

    assert asyncio.run(ask()) == ("outside.lines", "m")
