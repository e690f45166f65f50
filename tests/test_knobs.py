"""Knobs by version, knobs that are text, and which of them are searched."""

from typing import Any

import msgspec
import optuna
import pytest
from optuna.trial import TrialState

from llmdyno import plugins
from llmdyno.errors import UsageError
from llmdyno.knobs import (
    Knob,
    Value,
    accepts,
    at_least,
    check,
    check_version,
    default,
    parse_settings,
)
from llmdyno.search.tpe import TpeSearch
from llmdyno.tune.search import space

ROAD = Knob(
    name="road",
    layer="engine",
    kind="choice",
    choices=("new", "old"),
    defaults=(("1.0", "new"), ("0.9", "old")),
    does="",
    turn="",
    trades="",
    source="",
)
SHARE = Knob(
    name="share",
    layer="engine",
    kind="float",
    low=0,
    high=1,
    search=(0.5, 0.9),
    defaults=(("0.12", 0.9), ("0.10", 0.8)),
    until="1.3.0rc21",
    needs=("road", "old"),
    instead="part",
    does="",
    turn="",
    trades="",
    source="",
)
PART = Knob(
    name="part",
    layer="engine",
    kind="int",
    low=1,
    search=(1, 8),
    defaults=(("1.0", 4),),
    needs=("road", "new"),
    does="",
    turn="",
    trades="",
    source="",
)
WINDOW = Knob(
    name="window",
    layer="engine",
    kind="text",
    pattern=r"\d+(,\d+)*",
    form="tokens with commas between",
    defaults=(("0.9", None),),
    does="",
    turn="",
    trades="",
    source="",
)
KNOBS = (ROAD, SHARE, PART, WINDOW)


@pytest.mark.parametrize(
    ("version", "lowest", "held"),
    [
        ("0.10.0", "0.9", True),
        ("0.9.0", "0.10", False),
        ("1.2.1", "1.2", True),
        ("1.3.0rc20", "1.3", True),
        ("1.3.0rc20", "1.3.0rc21", False),
        ("1.3.0rc21", "1.3.0rc21", True),
        ("1.3.0", "1.3.0rc21", True),
        ("1.2.0rc6.post2", "1.2", True),
        ("1.1.0", "1.2.0rc1", False),
        ("2026.4.1.0", "2026.4", True),
        ("unknown", "0.1", False),
    ],
)
def test_versions_are_ordered_as_releases_are(version: str, lowest: str, held: bool) -> None:
    assert at_least(version, lowest) is held


def test_a_default_is_that_of_the_version() -> None:
    assert default(SHARE, "0.10.0") == 0.8
    assert default(SHARE, "0.12.0") == 0.9
    assert default(SHARE, None) == 0.9


@pytest.mark.parametrize("version", ["0.9.0", "1.3.0rc21", "1.4.0"])
def test_a_knob_that_a_version_lacks_is_refused(version: str) -> None:
    with pytest.raises(
        UsageError, match=rf"share=0.5: version {version} does not have it; .*0\.10"
    ):
        check_version({"share": 0.5}, KNOBS, version)
    check_version({"share": 0.5}, KNOBS, "1.3.0rc20")


def test_a_text_is_checked_by_its_form() -> None:
    assert parse_settings(["window=512,1024"], KNOBS) == {"window": "512,1024"}
    with pytest.raises(UsageError, match="window=many: must be tokens with commas between"):
        parse_settings(["window=many"], KNOBS)


def test_the_knob_to_use_instead_is_named() -> None:
    with pytest.raises(UsageError, match="set road=old or use part instead"):
        check({"share": 0.5}, KNOBS)


def test_only_what_bites_is_searched() -> None:
    new = space(KNOBS, only=(), allow_altered_output=False, baseline={})
    old = space(KNOBS, only=(), allow_altered_output=False, baseline={"road": "old"})

    assert [knob.name for knob in new] == ["part"]
    assert [knob.name for knob in old] == ["share"]
    assert new[0].needs is None
    with pytest.raises(UsageError, match="--search share: has no effect while road=new"):
        space(KNOBS, only=("share",), allow_altered_output=False, baseline={})


def searched(name: str, **row: Any) -> Knob:
    return Knob(name=name, layer="engine", does="", turn="", trades="", source="", **row)


def test_the_search_learns_from_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    knobs = (
        searched("many", kind="int", search=(16, 64), defaults=(("1", None),)),
        searched("choice", kind="choice", search=("a", "b"), defaults=(("1", None),)),
        searched("switch", kind="bool", search=(False, True), defaults=(("1", False),)),
        searched("part", kind="int", search=(1, 8), defaults=(("1", 2),), needs=("choice", "b")),
    )
    studies: list[optuna.Study] = []
    create = optuna.create_study

    def listen(**given: Any) -> optuna.Study:
        studies.append(create(**given))
        return studies[-1]

    monkeypatch.setattr(optuna, "create_study", listen)
    search = TpeSearch(knobs, trials=20, maximise=True, seed=1, fixed={})
    given: list[dict[str, Value]] = [
        {"many": 32, "switch": True, "elsewhere": 1},
        {"many": 8, "choice": "b"},  # fewer than it would suggest
        {},  # many has no value by itself
    ]
    for config in given:
        search.give(config)
        search.tell(1.0, {})
    assert search.ask([]) is not None
    search.give({"many": 48, "choice": "b", "part": 7})  # instead of what it asked for
    search.tell(2.0, {"ttft:p99<1s": -0.5})
    assert search.ask([]) is not None

    trials = studies[0].get_trials(states=(TrialState.COMPLETE,))
    assert [trial.params for trial in trials] == [
        {"many": 32, "choice": None, "switch": True},
        {"choice": "b", "switch": False, "part": 2},
        {"choice": None, "switch": False},
        {"many": 48, "choice": "b", "switch": False, "part": 7},
    ]
    assert [trial.value for trial in trials] == [1.0, 1.0, 1.0, 2.0]


# What somebody writes for a knob of TensorRT-LLM, and what is said on the PyTorch road.
MEANT = {
    "kv_cache_config.free_gpu_memory_fraction": "Did you mean 'free_gpu_memory_fraction'?",
    "kv_cache_config.dtype": "Did you mean 'kv_cache_dtype'?",
    "kv_cache_config.max_tokens": "Did you mean 'kv_cache_max_tokens'?",
    "build_config.max_batch_size": "Did you mean 'max_batch_size'?",
    "cuda_graph_config.max_batch_size": "Did you mean 'cuda_graph_max_batch_size'?",
    "KvCacheConfig.Enable-Block-Reuse": "Did you mean 'enable_block_reuse'?",
    "--max-num-tokens": "Did you mean 'max_num_tokens'?",
    "kv_cache_free_gpu_mem_fractio": "Did you mean 'free_gpu_memory_fraction'?",
    "plugin_config.gemm_plugin": (
        "'gemm_plugin' is a knob that takes effect only with backend=tensorrt."
    ),
}


@pytest.mark.parametrize("written", MEANT)
def test_a_knob_by_another_name_is_suggested_if_it_would_be_accepted(written: str) -> None:
    knobs = plugins.load("engines", "tensorrt-llm").knobs

    with pytest.raises(UsageError) as refused:
        parse_settings([f"{written}=1"], knobs)

    assert str(refused.value) == f"--set {written}=1: no knob '{written}'. {MEANT[written]}"


def test_a_slip_of_the_pen_in_a_knob_without_effect_says_what_it_needs() -> None:
    knobs = plugins.load("engines", "openvino").knobs

    with pytest.raises(UsageError) as refused:
        parse_settings(["max_num_sqs=4"], knobs)

    assert str(refused.value).endswith(
        " Did you mean 'max_num_seqs'? It is a knob that takes effect only with"
        " dynamic_split_fuse=false."
    )


def test_the_other_settings_say_which_knob_would_be_accepted() -> None:
    knobs = plugins.load("engines", "tensorrt-llm").knobs
    written = "kv_cache_config.free_gpu_memory_fraction"

    with pytest.raises(UsageError, match=r"Did you mean 'kv_cache_free_gpu_mem_fraction'\?"):
        parse_settings([f"{written}=0.8", "backend=tensorrt"], knobs)
    with pytest.raises(UsageError, match=r"Did you mean 'kv_cache_free_gpu_mem_fraction'\?"):
        check({written: 0.8, "backend": "tensorrt"}, knobs)


def test_every_knob_that_is_suggested_would_be_accepted() -> None:
    for engine in plugins.names("engines"):
        knobs = plugins.load("engines", engine).knobs
        for knob in knobs:
            with pytest.raises(UsageError) as refused:
                check({f"group.{knob.name}": 1}, knobs)
            named = knob.name if knob.takes_effect(knobs, {}) else knob.instead
            assert str(refused.value).endswith((f"Did you mean '{named}'?", f" {knob.only_with}."))


# What one of each unit of the shipped knobs is called, as a dictionary has it.
SINGULARS = {
    "GB": "GB",
    "GPUs": "GPU",
    "GiB": "GiB",
    "blocks": "block",
    "bytes": "byte",
    "copies": "copy",
    "microseconds": "microsecond",
    "ms": "ms",
    "processes": "process",
    "requests": "request",
    "restarts": "restart",
    "s": "s",
    "sequences": "sequence",
    "stages": "stage",
    "steps": "step",
    "streams": "stream",
    "threads": "thread",
    "tokens": "token",
    "weights": "weight",
}


def test_one_of_every_shipped_unit_has_the_right_word() -> None:
    units = {
        knob.unit
        for kind in ("engines", "fronts")
        for name in plugins.names(kind)
        for knob in plugins.load(kind, name).knobs
        if knob.unit
    }

    knobs = {unit: msgspec.structs.replace(ROAD, unit=unit) for unit in units}
    assert {unit: knob.unit_of(1) for unit, knob in knobs.items()} == SINGULARS
    assert {knob.unit_of(2) for knob in knobs.values()} == units


@pytest.mark.parametrize(
    ("low", "said"), [(1, "a whole number of at least 1 copy"), (2, "of at least 2 copies")]
)
def test_a_bound_of_one_has_the_unit_of_one(low: int, said: str) -> None:
    knob = msgspec.structs.replace(ROAD, kind="int", low=low, unit="copies")

    assert accepts(knob).endswith(said)
