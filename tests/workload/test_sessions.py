"""Sessions and data sets: each turn carries what was said before, in the model's own words."""

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import pytest

from conftest import last_json
from llmdyno import plugins, spec
from llmdyno.errors import UsageError
from llmdyno.load.level import Level
from llmdyno.load.plan import Plan
from llmdyno.load.progress import Progress
from llmdyno.load.recorder import Recorder
from llmdyno.records.entries import Entry, Record
from llmdyno.units import Lengths
from llmdyno.wire.exchange import Meter
from llmdyno.wire.target import parse_url
from llmdyno.workload.prompts import Conversation, Prompts
from llmdyno.workload.sessions import sessions_of
from scripted_server import DONE, END, HEAD, STOP, Client, chunk, framed, plain, scripted

Dyno = Callable[..., subprocess.CompletedProcess[str]]
Streamer = Callable[..., str]
Body = dict[str, Any]

SHAREGPT = [
    {
        "id": "a",
        "conversations": [
            {"from": "human", "value": "Hello?"},
            {"from": "gpt", "value": "x" * 400},
            {"from": "human", "value": "And then?"},
            {"from": "gpt", "value": "y" * 40},
        ],
    },
    {"id": "b", "conversations": [{"from": "gpt", "value": "Nobody asked."}]},
]


def _ask(load: spec.Load, workload: spec.Workload, *, refuse: int = -1) -> tuple[
    list[Body], list[Record]
]:  # fmt: skip
    """Run users against a server that answers "answer N"; return what it was asked."""
    bodies: list[Body] = []

    async def script(client: Client) -> None:
        while True:
            bodies.append(json.loads(await client.request()))
            number = len(bodies) - 1
            if number == refuse:
                await client.send(plain("500 Internal Server Error", b"no"), pause_s=0)
                continue
            answer = framed(chunk("answer ")) + framed(chunk(str(number)))
            await client.send(HEAD + answer + framed(STOP + DONE) + END, pause_s=0)

    async def level() -> list[Entry]:
        entries: list[Entry] = []
        async with scripted(script) as url:
            plan = Plan(
                level=0,
                users=load.users[0],
                load=load,
                target=parse_url(url),
                endpoint=plugins.load("endpoints", "openai-chat"),
                model="m",
            )
            recorder = Recorder(
                sink=entries.append,
                zero_ns=perf_counter_ns(),
                meter=Meter(),
                progress=Progress(),
            )
            await Level(plan, Prompts(workload), recorder).run()
        return entries

    records = [entry for entry in asyncio.run(level()) if isinstance(entry, Record)]
    return bodies, records


def _load(requests: int) -> spec.Load:
    return spec.Load(users=(1,), requests=requests, ramp_s=0.0, think_s=(0.0, 0.001))


def test_each_turn_carries_the_questions_and_the_models_own_answers() -> None:
    workload = spec.Workload(name="sessions", turns=Lengths("fixed", 3), system_prompt="Be brief.")

    bodies, records = _ask(_load(6), workload)

    for session in (0, 1):
        first, second, third = (bodies[3 * session + turn]["messages"] for turn in range(3))
        assert [message["role"] for message in first] == ["system", "user"]
        assert second[:2] == first
        assert second[2] == {"role": "assistant", "content": f"answer {3 * session}"}
        assert third[:4] == second
        assert third[4] == {"role": "assistant", "content": f"answer {3 * session + 1}"}
        assert third[5]["role"] == "user"
    assert bodies[0]["messages"][0] == bodies[3]["messages"][0]
    assert bodies[0]["messages"][1] != bodies[3]["messages"][1]
    assert [(record.session, record.turn) for record in records] == [
        (session, turn) for session in (0, 1) for turn in (0, 1, 2)
    ]
    # The server told no usage: what will be counted again is all that was sent.
    for body, record in zip(bodies, records, strict=True):
        said = [message["content"] for message in body["messages"]]
        assert record.input_text == "\n\n".join(said)


def test_a_turn_without_an_answer_ends_its_session() -> None:
    workload = spec.Workload(name="sessions", turns=Lengths("fixed", 3))

    _, records = _ask(_load(4), workload, refuse=1)

    assert [(r.session, r.turn, r.outcome) for r in records] == [
        (0, 0, "completed"),
        (0, 1, "failed"),
        (1, 0, "completed"),
        (1, 1, "completed"),
    ]


def test_other_workloads_have_no_history() -> None:
    conversation = Conversation(Prompts(spec.Workload()))

    items = [conversation.ask() for _ in range(20)]

    assert all(item.history == () and item.session == -1 for item in items)


def test_sharegpt_is_sessions_or_single_prompts(tmp_path: Path) -> None:
    path = tmp_path / "sharegpt.json"
    path.write_text(json.dumps(SHAREGPT))

    (session,) = sessions_of(str(path), "", own_lengths=True)
    single = Prompts(spec.Workload(name="file", dataset=str(path))).draw()

    assert [item.prompt for item in session] == ["Hello?", "And then?"]
    assert [item.max_tokens for item in session] == [100, 10]
    assert all(item.exact_length for item in session)
    assert (single.prompt, single.max_tokens, single.exact_length) == ("Hello?", 512, False)


ROWS: dict[str, tuple[Body, tuple[str, str, int | None]]] = {
    "dolly": (
        {"instruction": "When?", "context": "In 1876.", "response": "In 1876.", "category": "qa"},
        ("In 1876.\n\nWhen?", "", 2),
    ),
    "openorca": (
        {"id": "1", "system_prompt": "Be kind.", "question": "Why?", "response": "Because it is."},
        ("Why?", "Be kind.", 4),
    ),
    "alpaca": (
        {"instruction": "Add.", "input": "1 and 2", "output": "It is 3."},
        ("Add.\n\n1 and 2", "", 2),
    ),
    "messages": (
        {
            "messages": [
                {"role": "system", "content": "Be fair."},
                {"role": "user", "content": "Who?"},
                {"role": "assistant", "content": "You and I."},
            ]
        },
        ("Who?", "Be fair.", 2),
    ),
    "lengths": ({"prompt": "Go.", "output_tokens": 7}, ("Go.", "", 7)),
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_a_data_set_of_that_kind_is_read(name: str, suffix: str, tmp_path: Path) -> None:
    row, (prompt, system_prompt, tokens) = ROWS[name]
    path = tmp_path / f"set.{suffix}"
    if suffix == "parquet":
        pa = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pa.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps([row] if suffix == "json" else row))

    ((item,),) = sessions_of(str(path), "", own_lengths=True)

    assert (item.prompt, item.system_prompt, item.max_tokens) == (prompt, system_prompt, tokens)


def test_a_row_without_an_answer_has_no_length_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text('{"prompt": "Why?"}')

    with pytest.raises(UsageError, match="line 1: --dataset-osl needs an answer"):
        sessions_of(str(path), "", own_lengths=True)


def test_sessions_from_the_command_line(streamer: Streamer, dyno: Dyno, tmp_path: Path) -> None:
    url = streamer("--ttft", "10ms", "--itl", "1ms")
    (tmp_path / "sharegpt.json").write_text(json.dumps(SHAREGPT))

    done = dyno(
        *("bench", "--url", url, "--model", "m", "--endpoint", "openai-chat", "-c", "1"),
        *("--workload", "sessions", "--dataset", "sharegpt.json", "--dataset-osl"),
        *("--think-time", "5ms-20ms", "--requests", "4", "--ramp", "0s", "--json"),
    )
    assert done.returncode == 0, done.stderr
    (level,) = last_json(done.stdout)["levels"]

    # Turn 2 asks with one word, 100 words of answer, and two words; a word is a token there.
    assert level["tokens"]["input"] == 2 * (1 + (1 + 100 + 2))
    assert level["tokens"]["output"] == 2 * (100 + 10)


def test_what_a_request_does_not_carry_is_said_once_before_the_run(
    dyno: Dyno, tmp_path: Path
) -> None:
    (tmp_path / "sharegpt.json").write_text(json.dumps(SHAREGPT))

    done = dyno("bench", "--url", "http://127.0.0.1:9", "--dataset", "sharegpt.json", "-c", "1,2")

    left_out, talk, _refused = done.stderr.splitlines()
    assert left_out == "--dataset sharegpt.json: 1 of 2 rows holds no question and is left out."
    assert talk.startswith("--dataset sharegpt.json: 1 of 2 rows is a conversation: only its first")


def test_sessions_need_users(dyno: Dyno) -> None:
    done = dyno(
        *("bench", "--url", "http://127.0.0.1:9", "--workload", "sessions"),
        *("--request-rate", "2"),
    )

    assert done.returncode == 2
    assert "--workload sessions: needs users" in done.stderr
