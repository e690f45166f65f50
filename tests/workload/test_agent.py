"""`--workload agent`: so much of each prompt is alike, and no more; the same for the same seed."""

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
from llmdyno.spec import Load, Workload
from llmdyno.units import Lengths
from llmdyno.workload.prompts import Conversation, Prompts


def agent(**more: Any) -> Workload:
    return Workload(**{"name": "agent", "turns": Lengths("uniform", 3, 5), **more})


def test_all_sessions_have_one_beginning_of_the_length_asked_for() -> None:
    prompts = Prompts(agent(isl=Lengths("fixed", 1000), prefix_share=0.6), "5")

    sessions = [prompts.draw_session() for _ in range(30)]

    (system,) = {item.system_prompt for session in sessions for item in session}
    assert len(system.split()) == pytest.approx(600, rel=0.02)
    assert "tool " in system
    assert {len(item.prompt.split()) for session in sessions for item in session} == {400}
    assert {len(session) for session in sessions} == {3, 4, 5}
    every = [item.prompt for session in sessions for item in session]
    assert len({prompt[:40] for prompt in every}) == len(every)


def test_levels_differ_but_for_the_beginning_and_seeds_in_that_too() -> None:
    ten, fifty = Prompts(agent(), "10").draw(), Prompts(agent(), "50").draw()
    other = Prompts(agent(seed=1), "10").draw()

    assert ten.system_prompt == fifty.system_prompt
    assert ten.prompt != fifty.prompt
    assert other.system_prompt[:100] != ten.system_prompt[:100]


def test_a_turn_has_all_that_was_said_before() -> None:
    user = Conversation(Prompts(agent()))

    first = user.ask()
    user.hear("done")
    second = user.ask()

    assert second.history == ((first.prompt, "done"),)
    assert (second.session, second.turn) == (0, 1)


def test_a_file_of_instructions_goes_before_the_tools() -> None:
    item = Prompts(agent(system_prompt="Be an agent.")).draw()
    alone = Prompts(agent(system_prompt="Be an agent.", prefix_share=0.0)).draw()

    assert item.system_prompt.startswith("Be an agent.\n\n")
    assert len(item.system_prompt) > 1000
    assert alone.system_prompt == "Be an agent."


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prefix_share": 0.9, "isl": Lengths("fixed", 5)}, "--prefix-share 90%: leaves nothing"),
        ({"name": "chat", "prefix_share": 0.9}, "--prefix-share 90%: only for --workload agent"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as error:
        workload.check(agent(**fields), Load())

    assert words in str(error.value)


def test_a_share_is_a_share() -> None:
    with pytest.raises(UsageError, match=r"--prefix-share 100%: must be from 0% to below 100%"):
        agent(prefix_share=1.0)


def test_the_summary_says_what_a_cache_could_hit(
    streamer: Callable[..., str],
    dyno: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    url = streamer("--ttft", "2ms", "--itl", "1ms")

    done = dyno(
        *("bench", "--url", url, "-c", "3", "--requests", "40", "--ramp", "0s", "--turns", "4"),
        *("--isl", "400", "--prefix-share", "50%", "--osl", "8", "--no-calibration"),
        *("--workers", "2", "--out", "run", "--json"),
    )

    assert done.returncode == 0, done.stderr
    summary = last_json(done.stdout)
    (level,) = summary["levels"]
    records = [
        one for one in read_journal(tmp_path / "run" / "journal.jsonl") if isinstance(one, Record)
    ]
    assert summary["spec"]["workload"]["name"] == "agent"
    assert {record.turn for record in records} == {0, 1, 2, 3}
    # A first turn shares half of 400 words; each later one all but its own 200 (and 8 answered).
    shared = [200 if r.turn == 0 else 200 + 208 * r.turn for r in records]
    whole = [400 + 208 * r.turn for r in records]
    ideal = (sum(shared) - 200) / sum(whole)  # the very first hits nothing
    assert level["prefix"]["method"] == "hashes"
    assert level["prefix"]["ideal_hit_rate"] == pytest.approx(ideal, abs=0.02)
    assert "Prefix cache, input tokens hit, ideal / by the server: 3 users" in done.stderr
