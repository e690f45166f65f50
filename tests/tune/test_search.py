"""The search by itself, without a server."""

import msgspec
import pytest

from llmdyno import plugins
from llmdyno.errors import UsageError
from llmdyno.knobs import Knob, Value
from llmdyno.search import samplers
from llmdyno.search.samplers import SAMPLERS
from llmdyno.tune.search import Search, space

UNSET = "unset"

KNOBS: tuple[Knob, ...] = plugins.load("engines", "timed.engine").knobs


def search(*names: str, fixed: dict[str, Value] | None = None, trials: int = 12) -> Search:
    knobs = space(KNOBS, only=names, allow_altered_output=False, baseline={})
    return Search(knobs, trials=trials, maximise=True, seed=1, fixed=fixed or {})


def test_what_may_change_the_tokens_is_searched_only_when_that_is_allowed() -> None:
    def names(*, allowed: bool) -> set[str]:
        found = space(KNOBS, only=(), allow_altered_output=allowed, baseline={})
        return {knob.name for knob in found}

    assert names(allowed=True) - names(allowed=False) == {"lossy"}


@pytest.mark.parametrize(
    ("only", "words"),
    [
        (("itl",), "--search itl: no such knob. Did you mean 'itl_ms'?"),
        (("itl_ms", "itl_ms"), "--search itl_ms: named twice; once is enough."),
        (("lossy",), "--search lossy: may change the tokens; add --allow-altered-output."),
        (("itl_ms=9..2",), "--search itl_ms=9..2: a range is LOW..HIGH, the lower number first."),
        (
            ("itl_ms=2..4..8",),
            "--search itl_ms=2..4..8: a range is LOW..HIGH, the lower number first.",
        ),
        (("itl_ms=4/8/4",), "--search itl_ms=4/8/4: names a value twice."),
        (("itl_ms=4",), "--search itl_ms=4: one value is no search; write --set itl_ms=4."),
        (("itl_ms=4", "itl_ms=5/6"), "--search itl_ms: named twice; once is enough."),
        (
            ("mode=good..dies",),
            "--search mode=good..dies: only numbers have a range; write its values with /.",
        ),
        (
            ("lossy=false/true",),
            "--search lossy: may change the tokens; add --allow-altered-output.",
        ),
    ],
)
def test_a_wrong_name_is_one_sentence(only: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        space(KNOBS, only=only, allow_altered_output=False, baseline={})

    assert str(caught.value) == words


def test_no_config_is_asked_for_twice_and_the_end_of_the_space_is_told() -> None:
    asking = search("mode", trials=8)
    known: list[dict[str, Value]] = []
    while (config := asking.ask(known)) is not None:
        assert config not in known
        known.append(config)
        asking.tell(1.0, {})

    assert sorted(str(config.get("mode", "good")) for config in known) == [
        *("dies", "good", "hangs", "refuses"),
    ]


def test_the_same_answers_bring_the_same_questions() -> None:
    def asked() -> list[dict[str, Value] | None]:
        asking = search("itl_ms", "idle")
        found: list[dict[str, Value] | None] = []
        for number in range(8):
            found.append(asking.ask([one for one in found if one is not None]))
            asking.tell(float(number), {})
        return found

    assert asked() == asked()


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize(
    ("asked", "allowed"),
    [("itl_ms=3..6", {3, 4, 5, 6, UNSET}), ("itl_ms=2/7/16", {2, 7, 16, UNSET})],
)
def test_the_user_says_which_values_are_tried(
    sampler: str, asked: str, allowed: set[Value]
) -> None:
    knobs = space(KNOBS, only=[asked], allow_altered_output=False, baseline={})
    asking = samplers.sampler(sampler)(knobs, trials=12, maximise=False, seed=3, fixed={})
    known: list[dict[str, Value]] = []
    while len(known) < 12 and (config := asking.ask(known)) is not None:
        known.append(config)
        asking.tell(float(config.get("itl_ms", 40)), {})

    tried = {config.get("itl_ms", UNSET) for config in known}
    assert tried <= allowed
    assert len(tried) >= 3


def test_a_climb_over_named_values_goes_from_each_to_the_next() -> None:
    knobs = space(KNOBS, only=["itl_ms=1/3/9/81"], allow_altered_output=False, baseline={})
    asking = samplers.sampler("hill-climb")(knobs, trials=3, maximise=True, seed=3, fixed={})
    asking.start({"itl_ms": 81}, 1.0, {})
    known: list[dict[str, Value]] = [{"itl_ms": 81}]
    for value in (2.0, 3.0, 4.0):
        config = asking.ask(known)
        assert config is not None
        known.append(config)
        asking.tell(value, {})

    assert [config.get("itl_ms", 40) for config in known] == [81, 40, 9, 3]


def test_a_knob_without_a_range_is_searched_over_the_users_values() -> None:
    gpus = {knob.name: knob for knob in plugins.load("engines", "vllm").knobs}
    with pytest.raises(UsageError, match="--search tensor_parallel_size=1/2, or set it with --set"):
        space(
            [*gpus.values()], only=["tensor_parallel_size"], allow_altered_output=False, baseline={}
        )

    (knob,) = space(
        [*gpus.values()], only=["tensor_parallel_size=2/1"], allow_altered_output=False, baseline={}
    )

    assert knob.search == (1, 2)


def test_what_the_user_set_is_in_every_config_and_a_default_is_not() -> None:
    asking = search("itl_ms", fixed={"idle": True})

    for _ in range(4):
        config = asking.ask([])
        assert config is not None
        assert config.pop("idle") is True
        assert config.keys() <= {"itl_ms"}
        assert config.get("itl_ms") != 40  # the engine's own
        asking.tell(1.0, {})


def test_the_search_goes_where_values_are_better() -> None:
    asking = search("itl_ms", trials=40)
    values = []
    for _ in range(40):
        config = asking.ask([])
        assert config is not None
        itl_ms = int(config.get("itl_ms", 40))
        values.append(itl_ms)
        asking.tell(-abs(itl_ms - 17.0), {})

    late = values[-10:]
    assert sum(late) / 10 == pytest.approx(17, abs=4)


def test_a_knob_whose_one_value_the_baseline_has_is_no_search() -> None:
    knobs = [msgspec.structs.replace(knob, search=(10,)) for knob in KNOBS if knob.name == "itl_ms"]

    with pytest.raises(UsageError, match="--search itl_ms: 10 is all that there is to try"):
        space(knobs, only=("itl_ms",), allow_altered_output=False, baseline={"itl_ms": 10})

    (found,) = space(knobs, only=("itl_ms",), allow_altered_output=False, baseline={})
    assert found.name == "itl_ms"
