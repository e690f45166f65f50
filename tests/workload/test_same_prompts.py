"""A seed's prompts stay the same, byte for byte, so that runs of different versions compare.

The hashes were taken before workloads became plug-ins. One that changes makes every run with that
workload incomparable with those before it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmdyno.spec import Workload
from llmdyno.units import Lengths
from llmdyno.workload.prompts import Prompts
from llmdyno.workload.share import Share

ROWS: list[dict[str, Any]] = [
    {"prompt": "Why?", "response": "Because it is.", "system_prompt": "Be kind."},
    {"instruction": "Add.", "input": "1 and 2", "output": "It is 3."},
    {
        "conversations": [
            {"from": "human", "value": "Hello?"},
            {"from": "gpt", "value": "x" * 400},
            {"from": "human", "value": "And then?"},
            {"from": "gpt", "value": "y" * 40},
        ]
    },
]
TRACE: list[dict[str, Any]] = [
    {"timestamp": 0, "input_length": 1100, "output_length": 5, "hash_ids": [46, 47, 48]},
    {"timestamp": 250, "input_length": 1200, "output_length": 3, "hash_ids": [46, 47, 49]},
    {"timestamp": 500, "input_length": 1700, "output_length": 2, "hash_ids": [50]},
]
DRAWS = 40

# Fields of the workload, then those of Prompts; a dataset is one of the files above.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "chat": ({}, {}),
    "chat, another seed and level": ({"seed": 7}, {"stream": "50/1"}),
    "chat, unique": ({"unique": True}, {}),
    "chat, lengths": ({"osl": Lengths("uniform", 3, 90), "system_prompt": "Be brief."}, {}),
    "chat-system": ({"name": "chat-system"}, {}),
    "chat-system, own": ({"name": "chat-system", "system_prompt": "Be brief."}, {}),
    "synthetic": (
        {"name": "synthetic", "isl": Lengths("normal", 60, 20), "osl": Lengths("fixed", 9)},
        {"tokens_per_word": 1.3, "tokens_fixed": 7.0},
    ),
    "synthetic, a share": (
        {"name": "synthetic", "isl": Lengths("uniform", 4, 40)},
        {"share": Share(index=1, of=3)},
    ),
    "file": ({"name": "file", "dataset": "rows"}, {}),
    "file, own lengths, unique": (
        {"name": "file", "dataset": "rows", "dataset_osl": True, "unique": True},
        {"share": Share(index=0, of=2)},
    ),
    "sessions": ({"name": "sessions"}, {}),
    "sessions, unique, lengths, a share": (
        {
            "name": "sessions",
            "unique": True,
            "osl": Lengths("lognormal", 30, 10),
            "turns": Lengths("uniform", 1, 3),
        },
        {"share": Share(index=1, of=2)},
    ),
    "sessions of a file": (
        {"name": "sessions", "dataset": "rows", "dataset_osl": True, "system_prompt": "Be brief."},
        {},
    ),
    "trace": (
        {"name": "trace", "dataset": "trace", "system_prompt": "Be brief."},
        {"tokens_per_word": 2.0, "tokens_fixed": 5.0},
    ),
}
HASHES: dict[str, str] = {
    "chat": "747acfe4ee303467",
    "chat, another seed and level": "cfc39bf7d3b8f5ee",
    "chat, unique": "eb98f9215a62699a",
    "chat, lengths": "5cbaef063008ecbd",
    "chat-system": "388e034a6d075cf8",
    "chat-system, own": "a5fd3b7a3426a53c",
    "synthetic": "33a5e4d289d11d5a",
    "synthetic, a share": "a403b7ccb30fa91b",
    "file": "a007beefdabb8f2e",
    "file, own lengths, unique": "03c2e70b8ff61af5",
    "sessions": "39239838f06440f3",
    "sessions, unique, lengths, a share": "eaf5aa5fc1107d35",
    "sessions of a file": "c36093d4330a6d46",
    "trace": "a5b2307f31138263",
}


def digest(case: str, tmp_path: Path) -> str:
    """Hash all that the first requests of a case consist of."""
    files = {"rows": ROWS, "trace": TRACE}
    for name, rows in files.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    fields, arguments = CASES[case]
    if "dataset" in fields:
        fields = {**fields, "dataset": str(tmp_path / f"{fields['dataset']}.jsonl")}
    prompts = Prompts(Workload(**fields), **arguments)
    draws = len(TRACE) if fields.get("name") == "trace" else DRAWS
    drawn = [prompts.draw_session() for _ in range(draws)]
    return hashlib.sha256(msgspec.json.encode(drawn)).hexdigest()[:16]


@pytest.mark.parametrize("case", CASES)
def test_a_seed_gives_the_prompts_that_it_has_always_given(case: str, tmp_path: Path) -> None:
    assert digest(case, tmp_path) == HASHES[case]


def test_at_most_so_many_tokens_are_asked_for_and_none_of_them_must_come(tmp_path: Path) -> None:
    def lengths(**spec: Any) -> list[tuple[int | None, bool]]:
        items = Prompts(Workload(**spec))
        drawn = [items.draw() for _ in range(3)]
        return [(item.max_tokens, item.exact_length) for item in drawn]

    trace = tmp_path / "trace.jsonl"
    trace.write_text("\n".join(map(json.dumps, TRACE)))

    assert lengths(max_tokens=900) == [(900, False)] * 3  # more than the usual most, too
    assert lengths(name="trace", dataset=str(trace)) == [(5, True), (3, True), (2, True)]
    cut = lengths(name="trace", dataset=str(trace), max_tokens=3)
    assert cut == [(3, False), (3, False), (2, False)]
