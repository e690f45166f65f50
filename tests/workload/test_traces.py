"""Traces: each format as its authors publish it, replayed at its own times and lengths."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import last_json
from llmdyno import workload
from llmdyno.errors import UsageError
from llmdyno.records.entries import Record
from llmdyno.records.journal import read_journal
from llmdyno.spec import Workload
from llmdyno.workload import traces
from llmdyno.workload.prompts import Prompts
from llmdyno.workload.sessions import Item

Streamer = Callable[..., str]
Dyno = Callable[..., subprocess.CompletedProcess[str]]

# The first lines of the published files, but for the lengths in `plain`, which is ours.
MOONCAKE = """\
{"timestamp": 3000, "input_length": 1100, "output_length": 5, "hash_ids": [46, 47, 48]}
{"timestamp": 3250, "input_length": 1200, "output_length": 3, "hash_ids": [46, 47, 49]}
{"timestamp": 3500, "input_length": 400, "output_length": 2, "hash_ids": [50]}
"""
AZURE_2023 = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""
AZURE_2024 = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:00.509930+00:00,2399,6
"""
BURSTGPT = """\
Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,0,1087,Conversation log
118,GPT-4,417,276,693,Conversation log
"""
PLAIN = """\
{"due_s": 10.5, "input_tokens": 40, "output_tokens": 4}
{"due_s": 10.0, "prompt": "What is a dynamometer?"}
"""
_RECORDED: tuple[dict[str, Any], ...] = (
    {"arrival_s": 7.5, "session": 0, "input_tokens": 30, "output_tokens": 9}
    | {"part_characters": [64, 32], "hash_ids": [1, 2], "outcome": "completed"},
    {"arrival_s": 8.0, "session": 1, "input_tokens": 0, "output_tokens": 0}
    | {"part_characters": [], "hash_ids": [], "outcome": "failed"},
    {"arrival_s": 9.0, "session": 0, "input_tokens": 50, "output_tokens": 0}
    | {"part_characters": [64, 32, 64], "hash_ids": [1, 2, 3], "outcome": "cut"},
)
RECORDED = "\n".join(
    json.dumps({"schema": "llmdyno.trace/1", "block_characters": 64} | row) for row in _RECORDED
)

WEKA_REQUESTS: list[dict[str, Any]] = [
    {"t": 0.0, "type": "s", "model": "m", "in": 130, "out": 9, "hash_ids": [1, 2, 3]},
    {
        "t": 2.0,
        "type": "subagent",
        "agent_id": "a1",
        "requests": [{"t": 0.5, "type": "n", "model": "h", "in": 70, "out": 4, "hash_ids": [1, 9]}],
    },
    {"t": 8.0, "type": "s", "model": "m", "in": 200, "out": 5, "hash_ids": [1, 2, 3, 4]},
]
WEKA = json.dumps({"id": "w", "block_size": 64, "requests": WEKA_REQUESTS})
# A session: its later turns have a pause, and the tokens of what is new.
MOONCAKE_SESSIONS = """\
{"session_id": "a", "timestamp": 1000, "input_length": 100, "output_length": 10}
{"session_id": "b", "timestamp": 1500, "input_length": 50, "output_length": 5}
{"session_id": "a", "delay": 2000, "input_length": 30, "output_length": 7}
{"session_id": "a", "delay": 500, "input_length": 20, "output_length": 3}
"""

Times = list[tuple[float, int, int | None]]
PUBLISHED: dict[str, tuple[str, str, Times]] = {
    "mooncake": ("m.jsonl", MOONCAKE, [(0, 1100, 5), (0.25, 1200, 3), (0.5, 400, 2)]),
    "azure 2023": ("a.csv", AZURE_2023, [(0, 374, 44), (4.314579, 396, 109)]),
    "azure 2024": ("a.csv", AZURE_2024, [(0, 2162, 5), (0.5, 2399, 6)]),
    "burstgpt": ("b.csv", BURSTGPT, [(0, 472, 18), (113, 417, 276)]),
    "recorded": ("r.jsonl", RECORDED, [(0, 30, 9), (1.5, 50, 1)]),
    "weka": ("w.jsonl", WEKA, [(0, 130, 9), (2.5, 70, 4), (8, 200, 5)]),
    "mooncake sessions": (
        *("s.jsonl", MOONCAKE_SESSIONS),
        [(0, 100, 10), (0.5, 50, 5), (2, 140, 7), (2.5, 167, 3)],
    ),
    "plain": ("p.jsonl", PLAIN, [(0, 0, None), (0.5, 40, 4)]),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_format_is_read(name: str, tmp_path: Path) -> None:
    file, text, expected = PUBLISHED[name]
    (tmp_path / file).write_text(text)

    found = traces.read(str(tmp_path / file))

    assert [(one.input_tokens, one.output_tokens) for one in found] == [
        (tokens, output) for _, tokens, output in expected
    ]
    assert [one.due_s for one in found] == pytest.approx([due for due, _, _ in expected], abs=1e-5)


def test_prompts_with_the_same_blocks_begin_alike_and_only_so_far(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(MOONCAKE)
    prompts = Prompts(Workload(name="trace", dataset=str(path)), tokens_per_word=2.0)
    again = Prompts(Workload(name="trace", dataset=str(path)), "other", tokens_per_word=2.0)

    first, second, third = (prompts.draw().prompt.split() for _ in range(3))

    assert [len(words) for words in (first, second, third)] == [550, 600, 200]
    assert first[:512] == second[:512]
    assert first[512:] != second[512:550]
    assert third[:50] != first[:50]
    assert again.draw().prompt.split() == first


def test_a_trace_is_replayed_at_its_times_and_lengths(
    streamer: Streamer, dyno: Dyno, tmp_path: Path
) -> None:
    url = streamer("--ttft", "20ms", "--itl", "1ms")
    rows = [{"due_s": 0.3 * i, "input_tokens": 20 + i, "output_tokens": 3 + i} for i in range(10)]
    (tmp_path / "trace.jsonl").write_text("\n".join(map(json.dumps, rows)))

    done = dyno(
        *("bench", "--url", url, "--model", "m", "--endpoint", "openai-chat", "--requests", "8"),
        *("--arrival", "trace", "--dataset", "trace.jsonl", "--time-scale", "2"),
        *("--out", "run", "--json"),
    )
    assert done.returncode == 0, done.stderr
    (level,) = last_json(done.stdout)["levels"]
    records = sorted(
        (
            entry
            for entry in read_journal(tmp_path / "run" / "journal.jsonl")
            if isinstance(entry, Record)
        ),
        key=lambda record: record.due_ns,
    )

    assert (level["arrival"], level["requests"]["completed"]) == ("trace", 8)
    assert [record.input_tokens for record in records] == [20 + i for i in range(8)]
    assert [record.output_tokens for record in records] == [3 + i for i in range(8)]
    since_first_s = [(record.due_ns - records[0].due_ns) / 1e9 for record in records]
    assert since_first_s == pytest.approx([0.15 * i for i in range(8)], abs=1e-6)
    assert max(record.sent_ns - record.due_ns for record in records) < 0.1e9


def drawn(path: Path, rows: list[dict[str, Any]]) -> list[Item]:
    """Return the requests that a trace of these rows asks."""
    path.write_text("\n".join(map(json.dumps, rows)))
    prompts = Prompts(Workload(name="trace", dataset=str(path)))
    return [prompts.draw() for _ in rows]


def test_a_recorded_block_is_as_long_as_it_was_first(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in RECORDED.splitlines() if '"failed"' not in line]
    first, second = (item.prompt.split() for item in drawn(tmp_path / "t.jsonl", rows))

    assert [len(first), len(second)] == [30, 50]
    assert second[:30] == first


def test_kept_messages_are_asked_again_where_they_are_texts(tmp_path: Path) -> None:
    row = json.loads(RECORDED.splitlines()[0])
    said = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    called = {**said[2], "tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]}
    bodies: list[Any] = [
        {"messages": said},
        {"prompt": "once upon"},
        {"messages": [*said, {"role": "tool", "content": "four"}]},
        {"messages": said[:3]},
        {"messages": [said[1], called, said[3]]},
        {"messages": [said[1], {**called, "content": [{"type": "text", "text": "two"}]}, said[3]]},
    ]

    items = drawn(tmp_path / "t.jsonl", [{**row, "body": body} for body in bodies])

    assert (items[0].system_prompt, items[0].history, items[0].prompt) == (
        *("be brief", (("one", "two"),)),
        "three",
    )
    assert items[1].prompt == "once upon"
    assert [len(item.prompt.split()) for item in items[2:]] == [30] * 4
    assert items[2].prompt == items[3].prompt  # of the same blocks


def test_kept_messages_of_newer_protocols_are_asked_again(tmp_path: Path) -> None:
    row = json.loads(RECORDED.splitlines()[0])
    part = {"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}
    said = [{"role": "user", "content": [{"type": "text", "text": "one"}]}]
    bodies: list[Any] = [
        {"system": [part], "messages": said},
        {"instructions": "be brief", "input": said},
        {"instructions": "be brief", "input": "one"},
        {"input": "one", "previous_response_id": "resp_1"},  # the server has the rest
        {"input": [{"type": "function_call_output", "output": "x"}]},
    ]

    items = drawn(tmp_path / "t.jsonl", [{**row, "body": body} for body in bodies])

    assert [(item.system_prompt, item.prompt) for item in items[:3]] == [("be brief", "one")] * 3
    assert [len(item.prompt.split()) for item in items[3:]] == [30, 30]


def test_a_turn_that_has_only_what_is_new_begins_with_the_turns_before(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in MOONCAKE_SESSIONS.splitlines()]

    first, other, second, third = (item.prompt.split() for item in drawn(tmp_path / "t", rows))

    assert [len(first), len(other), len(second), len(third)] == [100, 50, 140, 167]
    assert second[:100] == first
    assert third[:140] == second
    assert other[:20] != first[:20]


def test_a_turn_that_has_all_of_it_stays_as_it_is(tmp_path: Path) -> None:
    row = {"session_id": 1, "timestamp": 0, "input_length": 600, "output_length": 10}
    rows: list[dict[str, Any]] = [
        {**row, "hash_ids": [1, 2]},
        {**row, "timestamp": 900, "input_length": 1100, "hash_ids": [1, 2, 3]},
    ]

    first, second = (item.prompt.split() for item in drawn(tmp_path / "t", rows))

    assert (len(first), len(second)) == (600, 1100)
    assert second[:600] == first


def test_sub_agents_share_what_their_hashes_say_at_either_count_of_time(tmp_path: Path) -> None:
    absolute = json.loads(WEKA)
    absolute["requests"][1]["requests"][0]["t"] = 2.5
    items = drawn(tmp_path / "a", [json.loads(WEKA), {**absolute, "id": "v"}])
    found = traces.read(str(tmp_path / "a"))

    assert [one.due_s for one in found] == [0, 0, 2.5, 2.5, 8, 8]
    assert {one.session for one in found} == {"w", "v", "w/a1", "v/a1"}
    assert items[0].prompt.split()[:64] != items[1].prompt.split()[:64]  # ids are each file's own
    prompts = Prompts(Workload(name="trace", dataset=str(tmp_path / "a")))
    words = [prompts.draw().prompt.split() for _ in found]
    assert words[2][:64] == words[0][:64]
    assert words[2][64:] != words[0][64:70]
    assert words[4][:130] == words[0]


WRONG: dict[str, tuple[str, str]] = {
    "no trace": ('{"question": "Why?"}', "is no trace that we know (azure, burstgpt, mooncake"),
    "no number": ('{"due_s": "soon", "prompt": "a"}', "line 1: could not convert"),
    "no tokens": ('{"due_s": 1, "input_tokens": 0}', "line 1: a prompt of 0 tokens"),
    "no time": ('{"due_s": NaN, "prompt": "a"}', "line 1: a time of nan; must be a number"),
    "endless": ('{"due_s": 1, "input_tokens": Infinity}', "line 1: cannot convert float infinity"),
    "no row": ("5\n6", "is no trace that we know"),
    "blocks amiss": (RECORDED.splitlines()[0].replace("[1, 2]", "[1]"), "line 1: hash_ids has 1"),
    "nothing": ("", "holds no requests"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_trace_is_told_with_its_line(name: str, tmp_path: Path) -> None:
    text, words = WRONG[name]
    path = tmp_path / "trace.jsonl"
    path.write_text(text)

    with pytest.raises(UsageError) as error:
        traces.read(str(path))

    assert words in str(error.value)


BURST = "Timestamp,Model,Request tokens,Response tokens\n5,m,30,4\n6,m,40,0\n7,m,50,0\n"


def test_requests_that_failed_when_a_trace_was_made_are_counted_and_said(tmp_path: Path) -> None:
    path = tmp_path / "burst.csv"
    asked = Workload(name="trace", dataset=str(path))
    path.write_text(BURST)
    assert workload.notes(asked) == [
        f"--dataset {path}: 2 of 3 rows are of requests that failed, and left out."
    ]

    path.write_text(BURST.replace("5,m,30,4\n", ""))
    with pytest.raises(UsageError, match=r"holds no requests: 2 rows are of requests that failed"):
        traces.read(str(path))


def test_a_trace_is_not_mixed_with_rates_and_durations(dyno: Dyno) -> None:
    wrong = {
        ("--duration", "5s"): "a trace ends with its last request",
        ("--request-rate", "5"): "a trace has its own rate",
        ("--osl", "5"): "a trace has its own lengths",
    }
    for arguments, words in wrong.items():
        done = dyno(
            *("bench", "--url", "http://127.0.0.1:9", "--arrival", "trace", "--dataset", "t.jsonl"),
            *arguments,
        )
        assert done.returncode == 2
        assert words in done.stderr
