"""The gate within a study: what is asked when, who may win, and what stands in the document."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmdyno.errors import DynoError, ServerError, UsageError
from llmdyno.flag import PERMISSION
from llmdyno.knobs import Knob, Value
from llmdyno.quality import likelihoods, lm_eval
from llmdyno.quality.answers import Answers
from llmdyno.quality.lm_eval import Scores
from llmdyno.results.configs import described
from llmdyno.results.quality import sentences
from llmdyno.tune.checked import read, told
from llmdyno.tune.entries import Event
from llmdyno.tune.exam import Exam
from llmdyno.tune.gate import Gate
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.spec import Study
from study_lab import LENGTH, Start, StudyLab, answers, fast


def knob(name: str, *, alters: bool) -> Knob:
    return Knob(
        name=name,
        layer="engine",
        kind="int",
        defaults=(("1", 0),),
        alters_output=alters,
        does="-",
        turn="-",
        trades="-",
        source="-",
    )


KNOBS = (knob("speed", alters=False), knob("lossy", alters=True))


class Asked(Gate):
    """A gate whose servers answer by their config: the lossier, the earlier they differ."""

    def __init__(self, folder: Path, allowed: bool | float, **more: Any) -> None:
        study = Study(allow_altered_output=allowed, **more)
        self.said: list[str] = []
        self.asked: list[dict[str, Value]] = []
        self.broken = self.used_up = False
        self.looks: Callable[[], None] = lambda: None
        runner: Any = SimpleNamespace(
            study=study,
            folder=folder,
            stack=SimpleNamespace(knobs=KNOBS),
            say=self.said.append,
            over_budget=lambda _: self.used_up,
            ledger=Ledger(folder),
            look_around=self._look_around,
            named=described,
        )
        self.ledger: Ledger = runner.ledger
        super().__init__(runner)

    def _look_around(self) -> None:
        self.looks()

    def _ask(self, config: Any, like: Answers | None) -> Answers:
        assert (like is None) == (not config)
        if self.broken and config:
            raise ServerError("died", "it died")
        self.asked.append(dict(config))
        lossy = int(config.get("lossy", 0))
        return answers(LENGTH - lossy if lossy else LENGTH)


def test_without_a_limit_nobody_is_asked_before_the_confirmation(tmp_path: Path) -> None:
    for allowed in (False, True):
        gate_ = Asked(tmp_path, allowed)
        assert gate_.admits({"speed": 1, "lossy": 9})
        assert gate_.asked == []


def test_a_limit_lets_those_win_that_keep_it(tmp_path: Path) -> None:
    # lossy=1 differs at the last of 20 tokens: one in 20 positions; lossy=11 at one in 10.
    gate_ = Asked(tmp_path, 0.06)

    assert gate_.admits({"speed": 1})  # nothing in it alters tokens: it is not asked
    assert gate_.asked == []
    assert gate_.admits({"speed": 1, "lossy": 1})
    assert not gate_.admits({"speed": 1, "lossy": 11})
    assert "may not win: Output: differs." in gate_.said[-1]
    asked = len(gate_.asked)
    assert not gate_.admits({"speed": 2, "lossy": 11})  # the same loss, whatever else is set
    assert len(gate_.asked) == asked == 3  # the baseline once

    document = told(tmp_path, {"speed": 1, "lossy": 1})
    assert document is not None
    assert document["verdict"] == "differs"
    (refused,) = document["refused"]
    assert refused["config"] == {"speed": 1, "lossy": 11}
    assert refused["said"][0].startswith("Output: differs.")


def test_no_disagreement_at_all_is_a_limit_too(tmp_path: Path) -> None:
    gate_ = Asked(tmp_path, 0.0)
    assert not gate_.admits({"lossy": 1})


def test_the_winner_is_compared_after_the_confirmation_once(tmp_path: Path) -> None:
    Asked(tmp_path, False).after_confirmation({"speed": 1})
    again = Asked(tmp_path, False)
    again.after_confirmation({"speed": 1})

    assert again.asked == []
    assert again.said == ["  " + line for line in _sentences(tmp_path)]
    document = told(tmp_path, {"speed": 1})
    assert document is not None
    assert (document["verdict"], document["refused"]) == ("the same", [])
    assert told(tmp_path, {"speed": 2}) is None


def _sentences(folder: Path) -> list[str]:
    return sentences(read(folder).checked[0].document)[:2]


def test_it_can_be_left_out(tmp_path: Path) -> None:
    gate_ = Asked(tmp_path, False, quality=False)
    gate_.after_confirmation({"speed": 1})
    assert gate_.asked == []


def test_a_server_that_fails_is_told_and_asked_again_later(tmp_path: Path) -> None:
    gate_ = Asked(tmp_path, 0.5)
    gate_.broken = True
    gate_.after_confirmation({"speed": 1})
    assert gate_.said[-1] == "  Quality was not compared: it died"
    document = told(tmp_path, {"speed": 1})
    assert document is not None
    assert document["why"] == "it died"
    assert not gate_.admits({"lossy": 1})  # nothing shows that it keeps the limit

    mended = Asked(tmp_path, 0.5)
    mended.after_confirmation({"speed": 1})
    assert mended.asked == [{"speed": 1}]


def test_in_another_place_the_baseline_is_asked_again(tmp_path: Path) -> None:
    gate_ = Asked(tmp_path, False)
    gate_.after_confirmation({"speed": 1})
    gate_.ledger.append(Event(kind="moved", why="m 1 → m 2"))
    gate_.asked.clear()

    gate_.after_confirmation({"speed": 2})
    gate_.after_confirmation({"speed": 3})

    assert gate_.asked == [{}, {"speed": 2}, {"speed": 3}]


def test_an_engine_replaced_between_the_two_makes_the_baseline_answer_again(tmp_path: Path) -> None:
    """It may go on so (--elsewhere), but both have to answer in one place."""
    gate_ = Asked(tmp_path, False)
    looks: list[int] = []

    def look() -> None:
        looks.append(len(gate_.asked))
        if len(looks) == 2:  # the baseline has answered
            gate_.ledger.append(Event(kind="moved", why="m 1 → m 2"))

    gate_.looks = look
    gate_.after_confirmation({"speed": 1})

    assert gate_.asked == [{}, {}, {"speed": 1}]
    assert read(tmp_path).baseline_place == 1


@pytest.mark.parametrize("asks", ["quality", "lm_eval"])
@pytest.mark.parametrize("after", ["proof", "baseline"])
def test_an_engine_that_is_replaced_before_one_is_asked_stops_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks: str, after: str
) -> None:
    lab = StudyLab(tmp_path / "s", monkeypatch)
    asked: list[Any] = []

    def ask(config: Any, found: Any) -> Any:
        asked.append(dict(config))
        if after == "baseline" and len(asked) == 1:
            monkeypatch.setenv("FAULTY_VERSION", "2.0")
        return found

    def world(start: Start) -> Any:
        if after == "proof" and start.phase == "confirm":
            monkeypatch.setenv("FAULTY_VERSION", "2.0" if len(lab.starts) == 7 else "1.0")
        return fast(start)

    monkeypatch.setattr(Gate, "_ask", lambda _, config, __: ask(config, answers(LENGTH)))
    scores = Scores(version="", scores=[])
    monkeypatch.setattr(Exam, "_scores", lambda _, __, config, *___: ask(config, scores))
    monkeypatch.setattr(lm_eval, "require", lambda *_: None)
    monkeypatch.setattr(likelihoods, "require", lambda *_: None)
    study = lab.study(**({"quality": True} if asks == "quality" else {"lm_eval": "t"}))

    error = lab.fails(world, study)

    assert type(error) is DynoError
    assert error.exit_status == 3
    assert "it was replaced while the study ran" in str(error)
    assert asked == ([{}] if after == "baseline" else [])
    monkeypatch.setenv("FAULTY_VERSION", "1.0")  # put back
    lab.run(fast, study)
    assert lab.starts == []
    assert asked == [{}, {"fast": True}]


def test_what_is_asked_is_charged_and_a_used_up_budget_is_told(tmp_path: Path) -> None:
    gate_ = Asked(tmp_path, False)
    gate_.used_up = True
    gate_.after_confirmation({"speed": 1})
    said = "Quality was not compared: the budget was used up before the answers could be asked for."
    assert gate_.said == [f"  {said}"]
    document = told(tmp_path, {"speed": 1})
    assert document is not None
    assert sentences(document) == [said]

    gate_.used_up = False
    gate_.after_confirmation({"speed": 1})
    assert gate_.asked == [{}, {"speed": 1}]
    assert [event.kind for event in Ledger(tmp_path).events] == ["asked", "asked"]


@pytest.mark.parametrize(
    ("given", "value"),
    [("any", True), ("0.5%", 0.005), ("0.02", 0.02), (0.02, 0.02), (True, True), (False, False)],
)
def test_the_permission_is_a_yes_or_a_share(given: Any, value: bool | float) -> None:
    found = PERMISSION.read(given, "--allow-altered-output")
    assert found == value
    assert type(found) is type(value)


def test_another_permission_is_refused_by_its_name() -> None:
    with pytest.raises(UsageError, match="--allow-altered-output some: write a share"):
        PERMISSION.read("some", "--allow-altered-output")


def test_an_older_study_has_none(tmp_path: Path) -> None:
    assert told(tmp_path, {}) is None
