"""A search that is asked while trials are out."""

from collections.abc import Mapping
from typing import Any

import pytest

from llmdyno.knobs import Value
from llmdyno.search.samplers import SAMPLERS, sampler
from llmdyno.tune.pending import Asking, Tried
from timed.engine import KNOBS

Config = Mapping[str, Value]
SPACE = [knob for knob in KNOBS if knob.name in {"itl_ms", "idle"}]


def asking(name: str = "own", **named: Any) -> Asking:
    def make(seed: int) -> Any:
        return sampler(name)(SPACE, trials=20, maximise=True, seed=seed, fixed={})

    return Asking(make, 0, **named)


def tried(value: float | None, **config: Value) -> Tried:
    return Tried(config=config, value=value, missed={})


def rate(config: Config) -> float:
    return 1000.0 / float(config.get("itl_ms", 40))


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_search_proposes_another_config_while_some_are_out(name: str) -> None:
    search = asking(name)
    search.start({}, 25.0, {})
    known = [tried(40.0, itl_ms=25)]
    out: list[Config] = [{}]

    for _ in range(5):
        config, _ = search.ask(known, out[1:], [{"itl_ms": 25}, *out])
        assert config is not None
        assert config not in out
        out.append(config)


def test_a_search_is_told_each_result_once_and_forgets_what_was_out() -> None:
    made = []

    def make(seed: int) -> Any:
        made.append(sampler("own")(SPACE, trials=20, maximise=True, seed=seed, fixed={}))
        return made[-1]

    search = Asking(make, 0)
    search.start({}, 25.0, {})
    known = [tried(rate({"itl_ms": ms}), itl_ms=ms) for ms in (12, 20, 30)]
    configs: list[Config] = [{}, *(one.config for one in known)]
    before = len(made)

    alone, _ = search.ask(known, [], configs)
    assert alone is not None
    # It expects the lowest number to be the best; with that out it looks elsewhere, though nobody
    # forbids that one.
    other, asked = search.ask(known, [alone], configs)
    after = search.told([*known, tried(None, **alone)])

    assert other != alone
    assert asked is after
    assert len(made) == before + 1
    assert len(after.told) == 5  # type: ignore[attr-defined]
    assert after._out == []  # type: ignore[attr-defined]
    # What was taken back, as its run is gone, is not known any more.
    assert len(search.told(known[1:]).told) == 3  # type: ignore[attr-defined]
    assert len(made) == before + 2


def test_what_cannot_be_assumed_is_told_as_one_in_the_middle_and_is_forgotten() -> None:
    search = asking("random")
    search.start({}, 25.0, {})
    known = [tried(rate({"itl_ms": ms}), itl_ms=ms) for ms in (12, 20, 30)]
    config, believed = search.ask(known, [{"itl_ms": 15}], [{}])

    key = believed.space.key({"itl_ms": 15})  # type: ignore[attr-defined]
    assert config is not None
    assert believed.told[key].value == rate({"itl_ms": 20})  # type: ignore[attr-defined]
    assert key not in search.told(known).told  # type: ignore[attr-defined]


def test_before_anything_is_measured_nothing_is_believed() -> None:
    search = asking("random")

    first, _ = search.ask([], [], [])
    second, told = search.ask([], [first or {}], [first or {}])

    assert first != second
    assert told.told == {}  # type: ignore[attr-defined]


def test_what_has_failed_or_missed_is_told_as_such() -> None:
    search = asking()
    search.start({}, 25.0, {"ttft:p99<1s": -0.5})

    told = search.told(
        [tried(None, itl_ms=11), Tried(config={"itl_ms": 12}, value=80.0, missed={"s": 0.4})]
    ).told  # type: ignore[attr-defined]

    assert [one.value for one in told.values()] == [25.0, None, 80.0]
    assert [one.missed for one in told.values()] == [-0.5, 0.0, 0.4]


def test_a_hint_reaches_every_search_that_takes_one() -> None:
    own, tpe = asking(), asking("tpe")

    own.hint({"itl_ms": "lower"})

    assert own.told([])._turns == {"itl_ms": "lower"}  # type: ignore[attr-defined]
    assert not hasattr(tpe, "hint")


def test_one_that_goes_on_does_not_draw_again_what_it_drew_first() -> None:
    first, _ = asking("random").ask([], [], [])
    again, _ = asking("random", asked=7).ask([], [], [])

    assert first != again
