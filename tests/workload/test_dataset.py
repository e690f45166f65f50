"""Data sets as people have them: every dress, every wrapper, and faults with their places."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from llmdyno import workload
from llmdyno.errors import UsageError
from llmdyno.spec import Workload
from llmdyno.workload.dataset import rows
from llmdyno.workload.prompts import Conversation, Prompts
from llmdyno.workload.sessions import sessions_of

A, B = {"prompt": "Why?"}, {"prompt": "How?"}
LINES = '{"prompt": "Why?"}\n\n{"prompt": "How?"}\n'

# A file's name, its text, and where its two rows stand.
FORMS: dict[str, tuple[str, str, list[str]]] = {
    "lines": ("a.jsonl", LINES, ["line 1", "line 3"]),
    "lines that are called json": ("a.json", LINES, ["line 1", "line 3"]),
    "a list": ("a.json", json.dumps([A, B]), ["row 1", "row 2"]),
    "a pretty list": ("a.json", json.dumps([A, B], indent=2), ["row 1", "row 2"]),
    "a pretty list in the wrong file": (
        "a.jsonl",
        json.dumps([A, B], indent=4),
        ["row 1", "row 2"],
    ),
    "data": ("a.json", json.dumps({"version": 1.5, "data": [A, B]}), ["row 1", "row 2"]),
    "pretty data": ("a.json", json.dumps({"data": [A, B]}, indent=1), ["row 1", "row 2"]),
    "the hub's rows": (
        "a.json",
        json.dumps({"features": [], "rows": [{"row_idx": 0, "row": A}, {"row_idx": 1, "row": B}]}),
        ["row 1", "row 2"],
    ),
    "splits": ("a.json", json.dumps({"test": [], "train": [A, B]}), ["row 1", "row 2"]),
    "nested": ("a.json", json.dumps({"data": {"train": [A, B]}}), ["row 1", "row 2"]),
    "an unknown wrapper": ("a.json", json.dumps({"n": 2, "mine": [A, B]}), ["row 1", "row 2"]),
    "columns": ("a.json", json.dumps({"prompt": ["Why?", "How?"]}), ["row 1", "row 2"]),
    "columns of pandas": (
        "a.json",
        json.dumps({"prompt": {"0": "Why?", "1": "How?"}}),
        ["row 1", "row 2"],
    ),
    "an index of pandas": ("a.json", json.dumps({"0": A, "1": B}), ["row 1", "row 2"]),
    "documents of jq": (
        "a.json",
        "\n".join(json.dumps(row, indent=2) for row in (A, B)),
        ["row 1", "row 2"],
    ),
    "texts": ("a.json", '["Why?", "How?"]', ["row 1", "row 2"]),
    "lines of texts": ("a.jsonl", '"Why?"\n"How?"\n', ["line 1", "line 2"]),
    "csv": ("a.csv", "prompt\nWhy?\nHow?\n", ["line 2", "line 3"]),
    "tsv": ("a.tsv", "id\tprompt\n1\tWhy?\n2\tHow?\n", ["line 2", "line 3"]),
    "csv with semicolons": ("a.csv", "id;prompt\n1;Why?\n2;How?\n", ["line 2", "line 3"]),
}


@pytest.mark.parametrize("dress", ["utf-8", "utf-8-sig", "utf-16", "gz"])
@pytest.mark.parametrize("form", FORMS)
def test_the_rows_of_every_form_are_found(form: str, dress: str, tmp_path: Path) -> None:
    name, text, places = FORMS[form]
    packed = dress == "gz"
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode(dress))

    found = list(rows(str(path)))

    assert [place.name for place, _ in found] == places
    assert [session[0].prompt for session in sessions_of(str(path), "", own_lengths=False)] == [
        "Why?",
        "How?",
    ]


def test_parquet_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.Table.from_pylist([A, B]), tmp_path / "data")

    assert [place.name for place, _ in rows(str(tmp_path / "data"))] == ["row 1", "row 2"]


WRONG: dict[str, tuple[str, bytes, str]] = {
    "half a line": (
        "a.jsonl",
        b'{"prompt": "a"}\n{"prompt": "b',
        "line 2: is not JSON: it ends in",
    ),
    "half a first line": ("a.jsonl", b'{"prompt\n{"prompt": "b"}\n', "line 1: is not JSON: "),
    "half a document": (
        "a.json",
        b'[\n {"prompt": "a"},\n {"pro',
        "line 3: is not JSON: it ends in",
    ),
    "a comma too many": ("a.json", b'[\n {"prompt": "a"},\n]', "line 3: is not JSON: "),
    "a fault in a line": ("a.jsonl", b'{"prompt": "a"}\n{"prompt": b}\n', "line 2: is not JSON: E"),
    "text": ("a.txt", b"Why is the sky blue?\nHow?\n", "line 1: is not JSON but text, 'Why is"),
    "csv by another name": ("a.txt", b"id,prompt\n1,a\n", "in a file that is named .csv."),
    "latin-1 lines": ("a.jsonl", b'{"prompt": "a"}\n{"prompt": "\xe9"}\n', "line 2: is not UTF-8"),
    "latin-1 csv": ("a.csv", b"prompt\na\n\xe9\n", "line 3: is not UTF-8 text (byte 0xe9)"),
    "latin-1 list": ("a.json", b'[\n"a",\n"\xe9"]', "line 3 is not UTF-8 text (byte 0xe9)"),
    "a comma in csv": ("a.csv", b"id,prompt\n1,a, b\n", "line 2: has more cells than the header"),
    "a workbook": ("a.csv", b"PK\x03\x04", "is a ZIP archive or an Excel workbook"),
    "a number": ("a.jsonl", b'{"prompt": "a"}\n{"prompt": 5}\n', "line 2: prompt is 5; must be a"),
    "token ids": ("a.json", b'[{"prompt": [1, 2]}]', "row 1: prompt is a list of token ids"),
    "no column": ("a.jsonl", b'{"title": "a", "id": 1}', "line 1: has no text under any of prompt"),
    "its columns": ("a.jsonl", b'{"title": "a", "id": 1}', "it has title, id."),
    "nothing": ("a.jsonl", b"\n\n", "holds no prompts."),
    "images alone": (
        "a.jsonl",
        b'{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}',
        "holds no prompts: 1 of 1 row holds no text but images or other parts, and is left out.",
    ),
    "a trace": (
        "m.jsonl",
        b'{"timestamp": 0, "input_length": 5, "output_length": 5, "hash_ids": [0]}',
        "is a trace (mooncake), which has times and lengths but no prompts; replay it with --arr",
    ),
    "no length": (
        "a.jsonl",
        b'{"prompt": "a", "max_tokens": {}}',
        "line 1: max_tokens is {}; must",
    ),
    "control codes": ("a.jsonl", b'{"a\\n\\u001b": 1}', r"it has a\n\x1b."),
    "a length": ("a.jsonl", b'{"prompt": "a", "max_tokens": 0}', "line 1: max_tokens is 0; must"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_with_its_place(name: str, tmp_path: Path) -> None:
    file, data, words = WRONG[name]
    (tmp_path / file).write_bytes(data)

    with pytest.raises(UsageError) as refused:
        sessions_of(str(tmp_path / file), "", own_lengths=False)

    assert words in str(refused.value)
    assert str(refused.value).startswith(f"--dataset {tmp_path / file}")


def said(*pairs: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": who, "content": content} for who, content in pairs]


def part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


IMAGE = {"type": "image_url", "image_url": {"url": "data:x"}}
TALK = said(("system", "s"), ("user", "u1"), ("assistant", "a1"), ("user", "u2"))

# A row, and the questions of its session.
QUESTIONS: dict[str, tuple[Any, list[str]]] = {
    "a batch of OpenAI": (
        {"custom_id": "1", "method": "POST", "body": {"messages": TALK}},
        ["u1", "u2"],
    ),
    "a batch of completions": ({"custom_id": "1", "body": {"prompt": "p", "max_tokens": 3}}, ["p"]),
    "a batch of Anthropic": ({"custom_id": "1", "params": {"messages": TALK[1:]}}, ["u1", "u2"]),
    "a batch of Gemini": (
        {"request": {"contents": [{"role": "user", "parts": [{"text": "g"}]}]}},
        ["g"],
    ),
    "parts of text": ({"messages": said(("user", [part("a"), part("b")]))}, ["a\nb"]),
    "text beside an image": ({"messages": said(("user", [part("what"), IMAGE]))}, ["what"]),
    "a prompt of messages": ({"prompt": TALK, "completion": "c"}, ["u1", "u2"]),
    "an input of messages": (
        {"input": said(("user", [{"type": "input_text", "text": "i"}]))},
        ["i"],
    ),
    "a list of messages": (TALK, ["u1", "u2"]),
    "messages of a table": ({"messages": json.dumps(TALK)}, ["u1", "u2"]),
    "turns": ({"question_id": 81, "turns": ["q1", "q2"]}, ["q1", "q2"]),
    "functions beside messages": (
        {"messages": TALK, "functions": [{"name": "f", "parameters": {}}]},
        ["u1", "u2"],
    ),
    "messages under data": ({"data": TALK}, ["u1", "u2"]),
    "a null answer": ({"messages": said(("user", "u"), ("assistant", None))}, ["u"]),
    "one prompt in a list": ({"prompt": ["a"]}, ["a"]),
    "a query": ({"query": "q", "positive": "p"}, ["q"]),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_questions_of_a_row_are_found(name: str, tmp_path: Path) -> None:
    row, questions = QUESTIONS[name]
    (tmp_path / "a.jsonl").write_text(json.dumps(row))

    (session,) = sessions_of(str(tmp_path / "a.jsonl"), "", own_lengths=False)

    assert [item.prompt for item in session] == questions


A_TALK = "a conversation: only its first question is sent; --workload sessions sends all"


def notes(tmp_path: Path, name: str, *given: Any) -> list[str]:
    """Return what is said of these rows, without the name of the file."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps(list(given)))
    found = workload.notes(Workload(name=name, dataset=str(path)))
    assert all(note.startswith(f"--dataset {path}: ") for note in found)
    return [note.removeprefix(f"--dataset {path}: ") for note in found]


def test_what_is_not_sent_is_counted_and_said_once(tmp_path: Path) -> None:
    with_image = {"messages": said(("user", [part("what"), IMAGE]))}
    given = [A, None, {"prompt": " "}, {"prompt": None}, with_image, with_image, {"messages": TALK}]

    assert notes(tmp_path, "file", *given) == [
        "3 of 7 rows are empty and left out.",
        "2 of 7 rows hold images: only their text is sent.",
        f"1 of 7 rows is {A_TALK}.",
    ]
    assert notes(tmp_path, "sessions", *given) == [
        "3 of 7 rows are empty and left out.",
        "2 of 7 rows hold images: only their text is sent.",
    ]
    assert workload.notes(Workload()) == []


NOTES: dict[str, tuple[Any, list[str]]] = {
    "audio": (
        {"messages": said(("user", [part("a"), {"type": "input_audio", "input_audio": {}}]))},
        ["1 of 1 row holds audio: only its text is sent."],
    ),
    "a tool": (
        {"messages": said(("user", "a"), ("assistant", None), ("tool", "5"), ("assistant", "b"))},
        ["1 of 1 row holds turns of tools, which are not sent."],
    ),
    "system prompts": (
        {"messages": said(("system", "a"), ("user", "b"), ("system", "c"))},
        ["1 of 1 row holds several system prompts: only the first is sent."],
    ),
    "a greeting": (
        {"messages": said(("assistant", "Hi."), ("user", "b"))},
        ["1 of 1 row begins with an answer, which is not sent."],
    ),
    "a column of images": (
        {"prompt": "a", "image": "a.jpg"},
        ["1 of 1 row holds images: only its text is sent."],
    ),
    "all is sent": ({"messages": TALK}, []),
}


@pytest.mark.parametrize("name", NOTES)
def test_a_kind_that_sessions_leave_out_is_said(name: str, tmp_path: Path) -> None:
    row, sentences = NOTES[name]

    assert notes(tmp_path, "sessions", row) == sentences


def asked(tmp_path: Path, row: Any) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
    """Return a session's questions with their histories; the model answers "own"."""
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    conversation = Conversation(Prompts(Workload(name="sessions", dataset=str(path))))
    found = []
    for _ in range(len(sessions_of(str(path), "", own_lengths=False)[0])):
        item = conversation.ask()
        found.append((item.prompt, item.history))
        conversation.hear("own")
    return found


def test_messages_are_sent_with_their_recorded_answers(tmp_path: Path) -> None:
    assert asked(tmp_path, {"messages": TALK}) == [("u1", ()), ("u2", (("u1", "a1"),))]


def test_a_talk_has_the_models_own_answers(tmp_path: Path) -> None:
    talk = [
        {"from": "human", "value": "u1"},
        {"from": "gpt", "value": "a1"},
        {"from": "human", "value": "u2"},
    ]

    assert asked(tmp_path, {"conversations": talk}) == [("u1", ()), ("u2", (("u1", "own"),))]


def test_where_an_answer_was_not_recorded_the_models_own_ones_are_sent(tmp_path: Path) -> None:
    row = {"messages": said(("user", "u1"), ("user", "u2"), ("assistant", "a2"), ("user", "u3"))}

    assert asked(tmp_path, row) == [
        ("u1", ()),
        ("u2", (("u1", "own"),)),
        ("u3", (("u1", "own"), ("u2", "own"))),
    ]


def test_a_data_set_that_has_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "one"}')
    before = sessions_of(str(path), "", own_lengths=False)
    path.write_text('{"prompt": "another"}')

    after = sessions_of(str(path), "", own_lengths=False)

    assert [before[0][0].prompt, after[0][0].prompt] == ["one", "another"]
