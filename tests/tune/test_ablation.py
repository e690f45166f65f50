"""The ablation, over a runner whose configs have known speeds: what it measures, what it says."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmdyno.errors import UsageError
from llmdyno.knobs import Knob, Value
from llmdyno.results import conclusions
from llmdyno.results.slo import HEADLINES
from llmdyno.tune.ablation import Ablation, pairs_of
from llmdyno.tune.entries import Phase, Step
from llmdyno.tune.explained import Explained
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.noise import noise_of

Speed = Callable[[Mapping[str, Value]], float]
Meets = Callable[[Mapping[str, Value]], bool]
NOISE = 0.01


def knob(name: str, needs: tuple[str, Value] | None = None) -> Knob:
    return Knob(
        name=name,
        layer="engine",
        kind="bool",
        defaults=(("1", False),),
        needs=needs,
        does="-",
        turn="-",
        trades="-",
        source="-",
    )


class FakeRunner:
    """Measures by a function instead of a server, into a real ledger."""

    def __init__(
        self,
        folder: Path,
        speed: Speed,
        knobs: list[Knob],
        *,
        runs_max: int,
        meets: Meets | None = None,
    ) -> None:
        self.ledger = Ledger(folder)
        self.study = SimpleNamespace(
            pairs=3, budget_s=100.0, limit_s=100.0, objective=SimpleNamespace(maximise=True)
        )
        self.stack = SimpleNamespace(knobs=knobs, check=self._check)
        self.measured: list[tuple[str, bool]] = []
        self.order: list[int] = []
        self._speed = speed
        self._meets = meets  # the SLOs; None: there are none
        self._random = random.Random(1)
        self._runs_max = runs_max
        self.said: list[str] = []
        self.say = self.said.append
        self.foretold: list[tuple[str, float]] = []

    def foretell_proof(self, comes: str, left_s: float) -> None:
        self.foretold.append((comes, left_s))

    def lasts_s(self, _load: str) -> float:
        return 1.0

    def left_s(self) -> float:
        return 100.0 - len(self.measured)

    def _check(self, config: Mapping[str, Value]) -> None:
        if config.get("bad"):
            raise UsageError("bad=True: cannot be served.")

    def over_budget(self, _share: float) -> bool:
        return len(self.measured) >= self._runs_max

    def trial_load(self, *, confirm: bool) -> str:
        assert confirm
        return "load"

    def step(
        self,
        phase: Phase,
        number: int,
        config: Mapping[str, Value],
        _load: str,
        *,
        knob: str = "",
        contender: int = 0,
    ) -> Step:
        done = self.ledger.find(phase, number, contender)
        if done is not None:
            assert done.config == config
            return done
        value = self._speed(config) * self._random.gauss(1, NOISE)
        step = Step(
            phase=phase,
            number=number,
            config=dict(config),
            state="measured",
            run=f"runs/{phase}-{number}",
            value=value,
            slo_met=None if self._meets is None else self._meets(config),
            knob=knob,
            contender=contender,
        )
        self.ledger.append(step)
        if phase == "ablation":
            self.measured.append((knob, number % 2 == 1))
            self.order.append(number)
        return step


def winner(config: Mapping[str, Value], contender: int = 0) -> Step:
    return Step(phase="best", number=0, config=dict(config), state="measured", contender=contender)


def studied(
    folder: Path,
    speed: Speed,
    names: str,
    *,
    runs_max: int = 100,
    more: tuple[Knob, ...] = (),
    meets: Meets | None = None,
) -> tuple[FakeRunner, Explained]:
    """Confirm the winner that sets all these knobs, take it apart, and say what was found."""
    after: dict[str, Value] = dict.fromkeys(names, True)
    runner = FakeRunner(folder, speed, [*map(knob, names), *more], runs_max=runs_max, meets=meets)
    for number in range(6):
        runner.step("confirm", number, {} if number % 4 in {0, 3} else after, "load")
    Ablation(runner, {}, winner(after)).run()  # type: ignore[arg-type]
    values = {step.run: step.value for step in runner.ledger.steps}

    def ratio(runs: Any, _of: Any) -> dict[str, Any]:
        (without, whole), *_ = runs
        return {"mean": (values[whole] or 0) / (values[without] or 1), "ci95": None}

    return runner, Explained(
        pairs=pairs_of(runner.ledger, 0),
        objectives=[HEADLINES[0]],
        noise=noise_of(runner.ledger.of("confirm")),
        ratio=ratio,
        value=lambda _name, is_after: is_after,
    )


def counts(runner: FakeRunner) -> dict[str, int]:
    knobs = [name for name, is_whole in runner.measured if not is_whole]
    return {name: knobs.count(name) for name in dict.fromkeys(knobs)}


def test_what_matters_gets_more_pairs_and_the_rest_is_grouped(tmp_path: Path) -> None:
    runner, found = studied(tmp_path, lambda c: 200 if c.get("a") else 100, "abcd")

    assert counts(runner) == {"a": 3, "b": 1, "c": 1, "d": 1, "b,c,d": 1}
    rows = found.rows()
    assert rows[0]["knob"] == "a"
    assert {row["knob"]: row["matters"] for row in rows} == {
        "a": True,
        "b": False,
        "c": False,
        "d": False,
    }
    assert rows[0]["pairs"] == 3
    (group,) = found.interactions()
    assert (group["knobs"], group["kind"]) == (["b", "c", "d"], "no effect")
    assert group["why"].endswith("% is not ruled out.")
    # The order of the arms changes from pair to pair, so that a drift cancels.
    first_of_pair = [number % 2 for number in runner.order[::2]]
    assert set(first_of_pair) == {0, 1}


@pytest.mark.parametrize(
    ("speed", "kind"),
    [
        (lambda c: 200 if c.get("a") and c.get("b") else 100, "only together"),
        (lambda c: 200 if c.get("a") or c.get("b") else 100, "either is enough"),
        (lambda c: 100 * (2 if c.get("a") else 1) * (1.5 if c.get("b") else 1), "independent"),
        (
            lambda c: 100 * (1.3 if c.get("a") else 1) * (2 if c.get("a") and c.get("b") else 1),
            "help one another",
        ),
        (
            lambda c: 300 if c.get("a") and c.get("b") else 200 if {*c} & {"a", "b"} else 100,
            "replace one another",
        ),
    ],
)
def test_two_knobs_are_told_apart_by_what_they_do_together(
    tmp_path: Path, speed: Speed, kind: str
) -> None:
    _, found = studied(tmp_path, speed, "ab")

    (told,) = found.interactions()
    assert told["knobs"] == ["a", "b"]
    assert told["kind"] == kind
    assert told["why"].startswith("a and b:")
    # One that replaces another must not read as if the two helped one another.
    assert ("a part of what the other does" in told["why"]) == (kind == "replace one another")
    assert ("gives more where the other" in told["why"]) == (kind == "help one another")


def test_small_effects_that_add_up_replace_nothing(tmp_path: Path) -> None:
    """None of three settings of 2 % each is beyond a noise of 1 %; all together are."""
    each = 1.02
    _, found = studied(tmp_path, lambda c: 100 * each ** len({*c} & {"a", "b", "c"}), "abc")

    assert [row["matters"] for row in found.rows()] == [False] * 3
    kinds = {one["kind"] for one in found.interactions()}
    assert kinds <= {"small parts", "no effect"}
    assert "small parts" in kinds


def test_what_costs_together_is_not_told_as_a_gain(tmp_path: Path) -> None:
    """Each alone put back changes nothing, as the other costs as much; both put back gain."""
    _, found = studied(tmp_path, lambda c: 80 if {*c} & {"a", "b"} else 100, "ab")

    (told,) = found.interactions()
    assert told["kind"] == "harm"
    assert "together they cost (0." in told["why"]


@pytest.mark.parametrize(
    "meets",
    [
        lambda c: bool(c.get("a") and c.get("b")),  # each is needed
        lambda c: bool(c.get("a") or c.get("b")),  # one of them is
    ],
)
def test_what_meets_the_slos_is_no_harm_whatever_it_costs(tmp_path: Path, meets: Meets) -> None:
    """Neither costs anything alone, both together do: who followed "harm" would lose the SLOs."""
    _, found = studied(tmp_path, lambda c: 80 if {*c} & {"a", "b"} else 100, "ab", meets=meets)

    (told,) = found.interactions()
    assert told["kind"] == "slo"
    assert conclusions.interactions({"interactions": [told]}) == []


def test_one_pair_does_not_show_that_the_slos_hang_on_a_knob(tmp_path: Path) -> None:
    """It asks for more pairs; where the budget has none, the knob is not said to decide."""
    meets: Meets = lambda c: bool(c.get("a"))  # noqa: E731
    (tmp_path / "all").mkdir()
    (tmp_path / "short").mkdir()
    runner, found = studied(tmp_path / "all", lambda _: 100, "ab", meets=meets)
    assert counts(runner)["a"] == 3
    a, b = sorted(found.rows(), key=lambda row: str(row["knob"]))
    assert (a["slo_met"]["decides"], a["matters"]) == (True, True)
    assert (b["slo_met"]["decides"], b["matters"]) == (False, False)

    _, short = studied(tmp_path / "short", lambda _: 100, "ab", runs_max=2, meets=meets)
    (only,) = short.rows()
    assert only["slo_met"] == {"without": [False], "with": [True], "decides": False}
    assert not only["matters"]


def test_a_knob_is_not_taken_back_with_what_acts_only_with_it(tmp_path: Path) -> None:
    """Both are back where the first one is: it would be the same config under another name."""
    child = knob("child", needs=("a", True))
    after = {"a": True, "child": True}
    speed: Speed = lambda c: 200 if c.get("child") else 100  # noqa: E731
    runner = FakeRunner(tmp_path, speed, [knob("a"), child], runs_max=100)
    Ablation(runner, {}, winner(after)).run()  # type: ignore[arg-type]

    assert set(counts(runner)) == {"a", "child"}


def test_a_redundant_couple_is_found_within_a_group(tmp_path: Path) -> None:
    _, found = studied(tmp_path, lambda c: 200 if c.get("b") or c.get("c") else 100, "abcde")

    kinds = {",".join(one["knobs"]): one["kind"] for one in found.interactions()}
    assert kinds["a,b,c,d,e"] == "some together"
    assert any(kind == "either is enough" or "b,c" in names for names, kind in kinds.items())


def test_a_knob_takes_back_what_acts_only_with_it(tmp_path: Path) -> None:
    child = knob("child", needs=("a", True))
    after = {"a": True, "b": True, "child": True}
    runner = FakeRunner(tmp_path, lambda _: 100, [knob("a"), knob("b"), child], runs_max=100)
    Ablation(runner, {}, winner(after)).run()  # type: ignore[arg-type]

    first = runner.ledger.find("ablation", 0)
    assert first is not None
    assert (first.knob, first.config) == ("a", {"b": True})


def test_the_only_change_needs_no_run_of_its_own(tmp_path: Path) -> None:
    runner, _ = studied(tmp_path, lambda c: 200 if c.get("a") else 100, "a")
    assert not runner.measured


def test_what_cannot_be_served_is_left_out(tmp_path: Path) -> None:
    runner = FakeRunner(tmp_path, lambda _: 100, [knob("a"), knob("bad")], runs_max=100)
    Ablation(runner, {"bad": True}, winner({"a": True, "bad": False})).run()  # type: ignore[arg-type]
    assert {name for name, _ in runner.measured} == {"a"}


def test_it_ends_with_the_budget_and_goes_on_where_it_was(tmp_path: Path) -> None:
    def speed(config: Mapping[str, Value]) -> float:
        return 200 if config.get("a") else 100

    runner, _ = studied(tmp_path, speed, "abc", runs_max=3)
    assert len(runner.measured) == 4  # the pair that was begun is finished
    assert "budget" in runner.said[-1]

    again, found = studied(tmp_path, speed, "abc")

    assert counts(again) == {"c": 1, "b,c": 1, "a": 2}
    assert {row["knob"]: row["pairs"] for row in found.rows()} == {"a": 3, "b": 1, "c": 1}
    assert not studied(tmp_path, speed, "abc")[0].measured


def test_half_a_pair_is_finished_first(tmp_path: Path) -> None:
    def speed(config: Mapping[str, Value]) -> float:
        return 200 if config.get("a") else 100

    studied(tmp_path, speed, "ab")
    lines = Ledger(tmp_path).path.read_text().splitlines(keepends=True)
    Ledger(tmp_path).path.write_text("".join(lines[:7]))  # six of the confirmation, half a pair

    runner, _ = studied(tmp_path, speed, "ab")
    assert runner.order[:2] == [1, 2] or runner.order[:2] == [1, 3]


def test_steps_of_an_earlier_winner_explain_nothing(tmp_path: Path) -> None:
    studied(tmp_path, lambda c: 200 if c.get("a") else 100, "abc")
    assert pairs_of(Ledger(tmp_path), 0) != []
    assert pairs_of(Ledger(tmp_path), 1) == []


@pytest.mark.parametrize(("maximise", "first"), [(True, "cache"), (False, "batch")])
def test_the_knob_that_the_trials_missed_most_is_taken_back_first(
    tmp_path: Path, maximise: bool, first: str
) -> None:
    runner = FakeRunner(
        tmp_path, lambda _: 100, [knob("batch"), knob("cache"), knob("threads")], runs_max=2
    )
    runner.study.objective.maximise = maximise
    tried: list[tuple[dict[str, Value], float]] = [
        ({}, 540),
        ({"cache": True}, 3440),
        ({"batch": True, "threads": True}, 887),
        ({"batch": True, "cache": True}, 3960),
        ({"batch": True, "cache": True, "threads": True}, 4280),
    ]
    for number, (config, value) in enumerate(tried):
        runner.ledger.append(
            Step(phase="trial", number=number, config=config, state="measured", value=value)
        )
    best = winner({"batch": True, "cache": True, "threads": True})

    Ablation(runner, {}, best).run()  # type: ignore[arg-type]

    assert [name for name, _ in runner.measured] == [first] * 2
    assert runner.said == ["The budget is nearly used up; the ablation ends here."]


def test_the_parts_of_a_group_that_has_an_effect_are_foretold(tmp_path: Path) -> None:
    """Any two of three settings are enough: none has an effect alone, all three together do."""
    runner, _ = studied(tmp_path, lambda c: 200 if {*c} & {"a", "b", "c"} else 100, "abc")

    parts = [left_s for comes, left_s in runner.foretold if comes.count(" and ") == 1]
    assert len(parts) == 3
    assert parts == sorted(parts, reverse=True)
    assert min(parts) >= 2 * runner.lasts_s("load")  # the pair itself
