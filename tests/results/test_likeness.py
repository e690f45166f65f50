"""What makes runs unlike, and what cannot be compared for it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from compared_runs import PLACE, SPEC, changed, side
from llmdyno.results.likeness import differences, obstacles, rounds_that_differ
from llmdyno.results.sides import Side
from llmdyno.results.slo import parse_slos

AT = "2 users"
SLOS = msgspec.to_builtins(parse_slos("ttft:p99<2s"))


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Side:
    """A run, made once."""
    return side(tmp_path_factory.mktemp("before"), "a")


def spec(**changes: Any) -> dict[str, Any]:
    return {"spec": changed(SPEC, **changes)}


def place(**changes: Any) -> dict[str, Any]:
    return {"place": changed(PLACE, **changes)}


def test_equal_runs_are_like(before: Side, tmp_path: Path) -> None:
    after = side(tmp_path, "b", seed=1)

    assert differences(before.first, after.first) == []
    assert obstacles(before, after, AT).to("token_rate") == ""


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (spec(workload__name="chat"), "workload.name: synthetic before, chat after"),
        (spec(workload__osl__a=20.0), "workload.osl: 10 before, 20 after"),
        (spec(workload__dataset="a.jsonl"), "workload.dataset: none before, a.jsonl after"),
        (spec(load__arrival="poisson"), "load.arrival: closed before, poisson after"),
        ({"input_tokens": 32}, "prompts of 30.0 against 32.0 tokens: the work was not the same"),
        ({"output_tokens": 11}, "answers of 10.0 against 11.0 tokens: the work was not the same"),
        ({"ramp_s": 20.0, "seconds": 20}, "the window of b holds ramp and drain"),
    ],
    ids=["workload", "osl", "dataset", "arrival", "prompts", "answers", "window"],
)
def test_unlike_work_or_load_makes_every_number_incomparable(
    before: Side, tmp_path: Path, how: dict[str, Any], why: str
) -> None:
    found = obstacles(before, side(tmp_path, "b", **how), AT)

    assert why in found.to("token_rate")
    assert found.to("ttft_ms") == found.to("token_rate")


def test_a_model_that_answered_for_another_is_told(before: Side, tmp_path: Path) -> None:
    after = side(tmp_path, "b", seed=1)
    mixed = {"m": {"small": 3, "m": 40}}
    after.first.levels = {AT: {**after.first.levels[AT], "answered_by": mixed}}

    (found,) = differences(before.first, after.first)

    assert (found.kind, found.warns) == ("model", True)
    assert found.sentence == f"{AT}, model that answered for m: m before, m and small after"


def test_a_side_whose_answers_name_no_model_is_not_called_another_model(
    before: Side, tmp_path: Path
) -> None:
    after = side(tmp_path, "b", seed=1)
    after.first.levels = {AT: {**after.first.levels[AT], "answered_by": {}}}

    assert before.first.levels[AT]["answered_by"]
    assert differences(before.first, after.first) == []


def test_a_machine_that_was_busy_on_one_side_is_named(before: Side, tmp_path: Path) -> None:
    busy = place(load_average=[30.0, 30.0, 30.0])
    after = side(tmp_path, "b", **busy)

    [one] = differences(before.first, after.first)
    assert (one.kind, one.sentence, one.warns) == (
        "hardware",
        "load average: 0.1 before, 30.0 after",
        True,
    )
    assert differences(after.first, side(tmp_path, "c", **busy).first) == []


@pytest.mark.parametrize(
    ("how", "kind", "sentence"),
    [
        (spec(endpoint="openai-completions"), "endpoint", "openai-chat before, openai-comp"),
        (spec(model="n"), "model", "model: m before, n after"),
        (spec(load__duration_s=60.0), "window", "load.duration_s: 20 before, 60 after"),
        (spec(slos=SLOS), "SLO", "SLO: none before, ttft:p99<2s after"),
        (spec(workload__seed=1), "workload", "workload.seed: 0 before, 1 after"),
        (place(cpu__cores_usable=8), "hardware", "usable cores: 16 before, 8 after"),
        (place(cpu__governor="powersave"), "clocks", "governor: performance before, powersave"),
        (place(packages={"vllm": "0.12.0"}), "versions", "vllm: 0.11.0 before, 0.12.0 after"),
        (place(llmdyno="0.3.0"), "versions", "llmdyno: 0.2.0 before, 0.3.0 after"),
        ({"place": {}}, "hardware", "machine: known before, not known after"),
        ({"seconds": 30}, "window", "length of the window"),
        (spec(url="http://127.0.0.1:9000"), "settings", "url: http://127.0.0.1:8000 before"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_unlike_place_or_target_is_a_warning_and_a_setting_is_none(
    before: Side, tmp_path: Path, how: dict[str, Any], kind: str, sentence: str
) -> None:
    after = side(tmp_path, "b", **how)

    (found,) = (one for one in differences(before.first, after.first) if one.kind == kind)

    assert sentence in found.sentence
    assert (found.warns, found.spoils) == (kind != "settings", False)
    assert not obstacles(before, after, AT).to("token_rate")


def test_tokens_counted_otherwise_spoil_what_rests_on_their_number(
    before: Side, tmp_path: Path
) -> None:
    found = obstacles(before, side(tmp_path, "b", source="chunks"), AT)

    assert found.to("token_rate") == "tokens are counted by usage before, chunks after"
    assert found.to("ttft_ms") == ""


def test_other_slos_or_prices_spoil_what_rests_on_them(before: Side, tmp_path: Path) -> None:
    found = obstacles(before, side(tmp_path, "b", **spec(slos=SLOS)), AT)

    assert (found.to("goodput"), found.to("token_rate")) == ("the SLOs are not the same", "")


def test_a_client_that_was_too_slow_spoils_its_metrics(before: Side, tmp_path: Path) -> None:
    after = side(tmp_path, "b")
    level = {**after.first.levels[AT], "doubtful": ["ttft_ms"]}
    after.first.levels = {AT: level}

    found = obstacles(before, after, AT)

    assert (found.to("ttft_ms"), found.to("token_rate")) == ("client-bound in b", "")


def test_lengths_that_are_drawn_may_differ_by_chance(before: Side, tmp_path: Path) -> None:
    after = side(tmp_path, "b")
    lengths = after.first.lengths(AT)
    assert lengths["answers"] == (10.0, 0.0)
    before_lengths = before.first.lengths(AT)["prompts"]
    drawn = before_lengths._replace(mean=before_lengths.mean * 1.04, error=0.5)
    after.first.lengths = lambda _: {"prompts": drawn}  # type: ignore[method-assign,assignment]

    assert not obstacles(before, after, AT).to("token_rate")


def test_runs_of_unlike_work_are_no_rounds_of_one_another(before: Side, tmp_path: Path) -> None:
    same = side(tmp_path, "b", seed=3)
    other = side(tmp_path, "c", **spec(workload__isl__a=99.0))

    assert rounds_that_differ(Side("x", "rounds of runs", [before.first, same.first])) == ""
    said = rounds_that_differ(Side("x", "rounds of runs", [before.first, other.first]))
    assert said == "a0 and c0 differ in workload.isl"
