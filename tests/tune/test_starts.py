"""What earlier studies teach a new one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmdyno.errors import UsageError
from llmdyno.knobs import Value
from llmdyno.tune.entries import Began, Step
from llmdyno.tune.folder import stack_of
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.narrator import Narrator
from llmdyno.tune.runner import Runner
from llmdyno.tune.search import space
from llmdyno.tune.spec import Study
from llmdyno.tune.starts import learnt, suggested


def earlier(
    folder: Path, *trials: tuple[Mapping[str, Value], float | None], engine: str = "timed.engine"
) -> str:
    """Write a study that tried these configs, and return its name."""
    folder.mkdir()
    ledger = Ledger(folder)
    spec = Study(engine=engine, model="m")
    ledger.append(Began(study=folder.name, spec=spec, environment={}))
    for number, (config, value) in enumerate(trials):
        step = Step(
            phase="trial", number=number, config=dict(config), state="measured", value=value
        )
        if value is None:
            step = msgspec.structs.replace(step, state="failed")
        ledger.append(step)
    return str(folder)


def starts(
    *names: str, trials: int = 12, going_on: bool = False, search: tuple[str, ...] = ()
) -> list[dict[str, Value]]:
    study = Study(engine="timed.engine", model="m", learn_from=names, trials=trials, search=search)
    stack = stack_of(study)
    searched = space(stack.knobs, only=study.search, allow_altered_output=False, baseline={})
    return learnt(study, stack, searched, [], going_on=going_on)


def test_the_best_of_an_earlier_study_come_first(tmp_path: Path) -> None:
    name = earlier(
        tmp_path / "s",
        ({"itl_ms": 30}, 30.0),
        ({"itl_ms": 20}, 50.0),
        ({"mode": "dies"}, None),
        ({"itl_ms": 10}, 100.0),
        ({"itl_ms": 35}, 10.0),
    )

    assert starts(name) == [{"itl_ms": 10}, {"itl_ms": 20}, {"itl_ms": 30}]
    assert starts(name, trials=3) == [{"itl_ms": 10}, {"itl_ms": 20}]


def test_what_cannot_be_served_or_is_the_baseline_is_left_out(tmp_path: Path) -> None:
    name = earlier(
        tmp_path / "s",
        ({"itl_ms": 13}, 90.0),  # refused
        ({"lossy": True}, 80.0),  # may change the tokens: no more than the baseline without it
        ({"itl_ms": 12, "idle": True}, 70.0),
    )

    assert starts(name) == [{"itl_ms": 12, "idle": True}]


def test_only_searched_knobs_are_taken_over(tmp_path: Path) -> None:
    name = earlier(tmp_path / "s", ({"itl_ms": 12, "idle": True}, 70.0))

    assert starts(name, search=("itl_ms",)) == [{"itl_ms": 12}]


def test_a_study_of_another_engine_and_one_that_is_not_there_are_refused(tmp_path: Path) -> None:
    other = earlier(tmp_path / "other", engine="openvino")
    (tmp_path / "empty").mkdir()

    with pytest.raises(UsageError, match="is a study of openvino; its knobs are not those of"):
        starts(other)
    with pytest.raises(UsageError, match="holds no study"):
        starts(str(tmp_path / "empty"))
    with pytest.raises(UsageError):
        starts(str(tmp_path / "gone"))


def test_a_study_that_goes_on_does_without_one_that_is_gone(tmp_path: Path) -> None:
    assert starts(str(tmp_path / "gone"), going_on=True) == []


def first_tries(
    folder: Path, prefix: Mapping[str, Any] | None, baseline: dict[str, Value]
) -> tuple[list[dict[str, Value]], str]:
    """Return what a reference run with this key `prefix` says to try first with OpenVINO."""
    study = Study(engine="openvino", model="tiny", baseline=baseline)
    stack = stack_of(study)
    searched = space(stack.knobs, only=(), allow_altered_output=False, baseline=baseline)
    (folder / "run").mkdir()
    (folder / "run" / "summary.json").write_text(json.dumps({"levels": [{"prefix": prefix}]}))
    reference = Step(phase="reference", number=0, config=baseline, state="measured", run="run")
    silent = Narrator(notify=print, notify_waiting=print, display=lambda *_: lambda *_: None)
    runner = Runner(study, folder, stack, silent)
    return suggested(runner, reference, searched, [])


def test_a_prefix_cache_that_is_off_comes_first_where_prompts_repeat(tmp_path: Path) -> None:
    configs, why = first_tries(tmp_path, {"ideal_hit_rate": 0.9496, "observed_hit_rate": None}, {})

    assert configs == [{"enable_prefix_caching": True}]
    assert why == "95 % of the input tokens repeat and are computed again"


@pytest.mark.parametrize(
    ("prefix", "baseline"),
    [
        (None, {}),
        ({"ideal_hit_rate": None, "observed_hit_rate": None}, {}),
        ({"ideal_hit_rate": 0.02, "observed_hit_rate": None}, {}),
        ({"ideal_hit_rate": 0.9, "observed_hit_rate": 0.88}, {}),
        ({"ideal_hit_rate": 0.9, "observed_hit_rate": None}, {"enable_prefix_caching": True}),
        ({"ideal_hit_rate": 0.9, "observed_hit_rate": None}, {"use_cache_eviction": True}),
    ],
)
def test_no_prefix_cache_comes_first_where_it_cannot_help(
    tmp_path: Path, prefix: dict[str, Any] | None, baseline: dict[str, Value]
) -> None:
    assert first_tries(tmp_path, prefix, baseline)[0] == []
