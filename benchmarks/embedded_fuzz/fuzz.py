"""Random configs of the embedded engine under random loads: does one of them kill or wedge it?

    python benchmarks/embedded_fuzz/fuzz.py --configs 200 --seed 1 --out fuzz.jsonl

draws configs that `dyno` lets through, serves the model `tiny` with each, lets users stream from it
who hang up in between and all at once at the end, and asks the engine for one more answer. A line
of the file is a config and what came of it; started again with the same file it goes on where it
stopped, and `--only 17` runs one of them again. The status is 1 if anything but `survived` came.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import math
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from llmdyno.engines.openvino import ENGINE
from llmdyno.errors import UsageError
from llmdyno.knobs import Config, Value
from llmdyno.processes.ports import free_port

HOST = "127.0.0.1"
MODEL = "tiny"
START_S = 60.0
LAST_ANSWER_S = 90.0  # an engine that makes nothing for so long is wedged, however busy the machine
STOP_S = 30.0
DEATH_S = 10.0  # what a server may take to end after its engine
BATCH = (32, 8192)
BLOCKS = (40, 2000)
SEQUENCES = (1, 300)
PROMPT_WORDS = ((4, 60), (60, 500), (500, 2500))  # short, middling, beyond sparse attention's start


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks for what while a config is tried."""

    users: int
    words: tuple[int, int]  # of a prompt
    tokens: tuple[int, int]  # of an answer
    shared: float  # of the prompts that begin alike
    sampled: float  # of the requests that are not greedy
    hang_up: float  # of the requests whose client leaves in between
    stops: float  # of the requests with a stop string that may come


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the file: what came of one config."""

    number: int
    config: Config
    load: Load
    outcome: str  # "survived", or what is wrong
    words: str = ""  # the engine's last ones, if it died
    refused: int = 0  # configs drawn before this one that the checks refused
    answers: dict[str, int] = {}
    seconds: float = 0.0


def draw_config(rng: random.Random, blocks: tuple[int, int]) -> dict[str, Value]:
    """Return any config, each knob set more often than not."""
    config: dict[str, Value] = {}
    if rng.random() < 0.8:
        config["max_num_batched_tokens"] = _log_uniform(rng, *BATCH)
    if rng.random() < 0.7:
        config["dynamic_split_fuse"] = rng.random() < 0.5
    if rng.random() < 0.6:
        config["max_num_seqs"] = _log_uniform(rng, *SEQUENCES)
    match rng.choice(("blocks", "blocks", "size", "unlimited")):
        case "blocks":
            config["num_kv_blocks"] = _log_uniform(rng, *blocks)
        case "size":
            config["cache_size"] = rng.choice((1, 2))
    for name in ("enable_prefix_caching", "use_cache_eviction", "use_sparse_attention"):
        if rng.random() < 0.6:
            config[name] = rng.random() < 0.6
    if rng.random() < 0.4:
        config["KV_CACHE_PRECISION"] = rng.choice(("f32", "bf16", "f16", "u8", "u4"))
    if rng.random() < 0.3:
        config["INFERENCE_PRECISION_HINT"] = rng.choice(("f32", "bf16", "f16"))
    return config


def draw_allowed(
    rng: random.Random, blocks: tuple[int, int] = BLOCKS
) -> tuple[dict[str, Value], int]:
    """Return a config that the checks let through, and how many they refused before it."""
    refused = 0
    while True:
        config = draw_config(rng, blocks)
        try:
            ENGINE.check(MODEL, config)
        except UsageError:
            refused += 1
        else:
            return config, refused


def draw_load(rng: random.Random, users: int) -> Load:
    """Return any load of so many users."""
    return Load(
        users=users,
        words=rng.choice(PROMPT_WORDS),
        tokens=rng.choice(((1, 20), (20, 120), (100, 900))),
        shared=rng.choice((0.0, 0.5, 1.0)),
        sampled=rng.choice((0.0, 0.5)),
        hang_up=rng.choice((0.0, 0.2, 0.6)),
        stops=rng.choice((0.0, 0.3)),
    )


def draw_request(rng: random.Random, load: Load) -> dict[str, Any]:
    """Return the fields of one request for a completion."""
    words = rng.randint(*load.words)
    own = [rng.choice(("tree", "river", "stone", "light", "é", "8", "of")) for _ in range(words)]
    if rng.random() < load.shared:
        own[: words * 3 // 4] = ["again"] * (words * 3 // 4)
    return {
        "model": MODEL,
        "prompt": " ".join(own),
        "max_tokens": rng.randint(*load.tokens),
        "ignore_eos": rng.random() < 0.7,
        "temperature": 1.0 if rng.random() < load.sampled else 0.0,
        "stop": ["e"] if rng.random() < load.stops else None,
        "stream": rng.random() < 0.8,
        "stream_options": None,
    }


def _log_uniform(rng: random.Random, low: int, high: int) -> int:
    return round(math.exp(rng.uniform(math.log(low), math.log(high))))


async def ask(port: int, fields: dict[str, Any]) -> str:
    """Send one request, read its answer to the end, and say what kind of answer it was."""
    body = json.dumps({name: value for name, value in fields.items() if value is not None}).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return "no connection"
    try:
        writer.write(head.encode() + body)
        answer = await reader.read()
    except ConnectionError:
        return "reset"
    finally:
        writer.close()
    return _kind(answer)


def _kind(answer: bytes) -> str:
    """Name an answer: whole, refused, an error that says so, or an end without a word."""
    status = answer[9:12].decode() or "nothing"
    if status != "200":
        return f"http-{status}"
    if b"engine_died" in answer:
        return "engine died"
    if b'"error"' in answer:
        return "error event"
    whole = b"[DONE]" in answer or b'"usage"' in answer
    return "whole" if whole else "ended without a word"


async def user(
    port: int, rng: random.Random, load: Load, until_s: float, seen: dict[str, int]
) -> None:
    """Ask until the time is over; then, and sometimes in between, hang up."""
    while (left_s := until_s - time.monotonic()) > 0:
        fields = draw_request(rng, load)
        patience_s = rng.uniform(0.0, 1.0) if rng.random() < load.hang_up else left_s
        try:
            async with asyncio.timeout(min(patience_s, left_s)):
                kind = await ask(port, fields)
        except TimeoutError:
            kind = "hung up"
        seen[kind] += 1
        if kind in {"no connection", "engine died"}:
            return


async def put_under_load(
    port: int, rng: random.Random, load: Load, seconds: float
) -> dict[str, int]:
    """Let all users ask, and count the kinds of their answers."""
    seen: dict[str, int] = collections.Counter()
    until_s = time.monotonic() + seconds
    users = [random.Random(rng.random()) for _ in range(load.users)]
    await asyncio.gather(*(user(port, own, load, until_s, seen) for own in users))
    return dict(seen)


def last_answer(port: int) -> str:
    """Ask for one more small answer, and say what kind it was."""
    fields = {"model": MODEL, "prompt": "One more", "max_tokens": 8, "ignore_eos": True}

    async def once() -> str:
        try:
            async with asyncio.timeout(LAST_ANSWER_S):
                return await ask(port, fields)
        except TimeoutError:
            return "hung"

    return asyncio.run(once())


async def _ready(port: int, server: subprocess.Popen[bytes]) -> bool:
    began_s = time.monotonic()
    while server.poll() is None and time.monotonic() - began_s < START_S:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(f"GET /health HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())
            answer = await reader.read()
            writer.close()
            if b" 200 " in answer[:16]:
                return True
        await asyncio.sleep(0.05)
    return False


def judge(server: subprocess.Popen[bytes], port: int, answers: dict[str, int]) -> str:
    """Say what is wrong with a server after its load, or that it survived."""
    last = last_answer(port)
    if last != "whole" or "engine died" in answers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return f"died with status {server.wait(DEATH_S)}"
        return "hung" if last == "hung" else f"last answer: {last}"
    silent = [kind for kind in ("ended without a word", "reset", "http-500") if kind in answers]
    if silent:
        return ", ".join(silent)
    server.send_signal(signal.SIGTERM)
    try:
        status = server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        return "does not stop"
    return "survived" if status == 0 else f"stopped with status {status}"


def attempt(number: int, seed: int, users: int, seconds: float) -> Outcome:
    """Try the config of this number."""
    rng = random.Random(f"{seed}/{number}")
    config, refused = draw_allowed(rng)
    load = draw_load(rng, users)
    port = free_port(HOST)
    launch = ENGINE.launch(MODEL, config, artifact=None, host=HOST, port=port)
    began_s = time.monotonic()
    answers: dict[str, int] = {}
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(launch.argv, stderr=log, stdout=log)
        try:
            if asyncio.run(_ready(port, server)):
                answers = asyncio.run(put_under_load(port, rng, load, seconds))
                outcome = judge(server, port, answers)
            else:
                outcome = "does not start"
        finally:
            server.kill()
            server.wait()
        log.seek(0)
        said = log.read().decode(errors="replace").strip().splitlines()
    return Outcome(
        number=number,
        config=config,
        load=load,
        outcome=outcome,
        words="" if outcome == "survived" else " | ".join(said[-6:]),
        refused=refused,
        answers=answers,
        seconds=round(time.monotonic() - began_s, 1),
    )


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Try random configs of the embedded engine.")
    parser.add_argument("--configs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--users", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=Path("fuzz.jsonl"))
    parser.add_argument("--only", type=int, help="one config again, printed and not kept")
    given = parser.parse_args()
    if given.only is not None:
        one = attempt(given.only, given.seed, given.users, given.seconds)
        print(msgspec.json.format(msgspec.json.encode(one)).decode())
        return one.outcome != "survived"
    lines = given.out.read_text().splitlines() if given.out.exists() else []
    done = {one.number: one for one in (msgspec.json.decode(line, type=Outcome) for line in lines)}
    for number in range(given.configs):
        if number in done:
            continue
        one = done[number] = attempt(number, given.seed, given.users, given.seconds)
        with given.out.open("ab") as out:
            out.write(msgspec.json.encode(one) + b"\n")
        print(f"{number:4} {one.outcome:12} {one.seconds:5.1f} s  {json.dumps(one.config)}")
        print(f"     {one.answers} {one.words[-300:]}", flush=True)
    kinds = collections.Counter(done[number].outcome for number in range(given.configs))
    refused = sum(one.refused for one in done.values())
    print(f"{given.configs} configs: {dict(kinds)}; {refused} others were refused by the checks")
    return kinds["survived"] != given.configs


if __name__ == "__main__":
    sys.exit(main())
