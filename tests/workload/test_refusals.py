"""A workload that cannot be asked is refused in one sentence, whatever it is given."""

from typing import Any

import pytest

from llmdyno import workload
from llmdyno.cli.flags import bench_spec
from llmdyno.errors import UsageError
from llmdyno.spec import Load, Workload
from llmdyno.units import Lengths

FIVE = Lengths("fixed", 5)
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no length": (
        {"name": "synthetic"},
        {},
        "--workload synthetic: needs an input length, e.g. --isl 128.",
    ),
    "a length of no use": (
        {"name": "chat-system", "isl": FIVE},
        {},
        "only for --workload agent, synthetic; 'chat-system' has its own prompts.",
    ),
    "turns of no use": (
        {"name": "chat", "turns": FIVE},
        {},
        "--turns 5: only for --workload agent, sessions.",
    ),
    "no file": ({"name": "file"}, {}, "--workload file: needs --dataset FILE."),
    "no trace": (
        {"name": "trace"},
        {"arrival": "trace"},
        "--workload trace: needs --dataset FILE.",
    ),
    "a file of no use": (
        {"name": "chat", "dataset": "x.jsonl"},
        {},
        "--dataset x.jsonl: 'chat' has its own prompts.",
    ),
    "answers of no file": (
        {"name": "sessions", "dataset_osl": True},
        {},
        "--dataset-osl: needs --dataset FILE with answers or their lengths.",
    ),
    "answers of a trace": (
        {"name": "trace", "dataset": "x.jsonl", "dataset_osl": True},
        {"arrival": "trace"},
        "--dataset-osl: needs --dataset FILE with answers or their lengths.",
    ),
    "two lengths": (
        {"name": "file", "dataset": "x.jsonl", "dataset_osl": True, "osl": FIVE},
        {},
        "not together with --dataset-osl.",
    ),
    "unique": (
        {"name": "trace", "dataset": "x.jsonl", "unique": True},
        {"arrival": "trace"},
        "--unique: not for --workload trace, whose prompts are as alike as they are meant to be.",
    ),
    "the lengths of a trace": (
        {"name": "trace", "dataset": "x.jsonl", "osl": FIVE},
        {"arrival": "trace"},
        "a trace has its own lengths.",
    ),
    "the times of a trace": (
        {"name": "trace", "dataset": "x.jsonl"},
        {},
        (
            "--arrival closed: does not go with --workload trace; a trace has both the times and"
            " the prompts."
        ),
    ),
    "times of no use": (
        {"name": "chat"},
        {"arrival": "trace"},
        (
            "--arrival trace: does not go with --workload chat; a trace has both the times and"
            " the prompts."
        ),
    ),
    "turns at a rate": (
        {"name": "sessions"},
        {"arrival": "poisson", "rates": (2.0,)},
        "--workload sessions: needs users, -c; a turn follows an answer.",
    ),
    "unknown": ({"name": "synthetik"}, {}, "unknown. Did you mean 'synthetic'?"),
    "a file that is not there": (
        {"name": "sessions", "dataset": "nowhere.jsonl"},
        {},
        "--dataset nowhere.jsonl: cannot be read: No such file or directory.",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_sentence(name: str) -> None:
    fields, load, sentence = REFUSED[name]

    with pytest.raises(UsageError) as refused:
        workload.check(Workload(**fields), Load(**load))

    assert str(refused.value).endswith(sentence)
    assert str(refused.value).startswith("--")


MEANT = {
    "chat": {},
    "synthetic": {"isl": "128"},
    "file": {"dataset": "x.jsonl"},
    "trace": {"dataset": "x.jsonl", "arrival": "trace"},
    "sessions": {"workload": "sessions", "dataset": "x.jsonl"},
}


@pytest.mark.parametrize("name", MEANT)
def test_who_names_no_workload_means_the_one_that_the_fields_tell(name: str) -> None:
    assert bench_spec({"url": "http://x:1", **MEANT[name]}).workload.name == name


def test_a_file_goes_before_a_length() -> None:
    both = {"url": "http://x:1", "dataset": "x.jsonl", "isl": "128"}

    assert bench_spec(both).workload.name == "file"
