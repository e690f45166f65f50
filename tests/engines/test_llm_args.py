"""What TensorRT-LLM is told on its PyTorch road, against its fields, flags and tensors by release.

tests/engines/arguments/tensorrt_llm.json holds them as its sources declare them: each field with
its type, default and choices, from the release on that has it so; the flags of `trtllm-serve` and
the inputs of Triton's llmapi model of the newest source. Nothing of it is started here.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from llmdyno.engines._trtllm.llm_args import FLAGS, document, llm_arguments
from llmdyno.engines._trtllm.pytorch_knobs import PATHS, PYTORCH
from llmdyno.engines._trtllm.table import BY_NAME
from llmdyno.engines._trtllm.template_knobs import SERVE_PATHS
from llmdyno.engines._trtllm.values import SINCE, UNTIL, check_values
from llmdyno.engines.tensorrt_llm import ENGINE
from llmdyno.errors import UsageError
from llmdyno.fronts._triton.backends import _llmapi
from llmdyno.knobs import Knob, Value, at_least, default

TABLE = json.loads((Path(__file__).parent / "arguments" / "tensorrt_llm.json").read_text())
VERSIONS = tuple(TABLE["versions"])
ROAD = tuple(BY_NAME[name] for name in (*FLAGS, "dtype", "tokens_per_block") if name in BY_NAME)
KNOBS = tuple({knob.name: knob for knob in (*ROAD, *PYTORCH)}.values())
SECTIONS = {"cuda_graph": "cuda_graph_config", "torch_compile": "torch_compile_config"}
# Declared as unset or nought, and decided on later, by trtllm-serve or a validator.
DECIDED: dict[str, Value] = {
    "cuda_graph_max_batch_size": 128,
    "free_gpu_memory_fraction": 0.9,
    "max_batch_size": 2048,
    "max_num_tokens": 8192,
    "max_beam_width": 1,
}
# Still taken, with a warning: one does nothing any more, the other has a new name.
SUPERSEDED = {"perf_metrics_max_requests", "enable_piecewise_cuda_graph"}
# Knobs whose field a text fills: a sample of it, and what is then written.
TEXTS: dict[str, tuple[str, Any]] = {
    "max_attention_window": ("4096,512", [4096, 512]),
    "cuda_graph_batch_sizes": ("1,8", [1, 8]),
    "prefill_capture_num_tokens": ("256,512", [256, 512]),
    "disk_cache_path": ("/mnt/cache", "/mnt/cache"),
    "moe_load_balancer": ("/etc/experts.yaml", "/etc/experts.yaml"),
    "speculative_model": ("org/heads", "org/heads"),
}
TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool, str),  # auto, of one of them
    "str": (str,),
    "ints": (list,),
}


def row(field: str, version: str) -> list[Any] | None:
    """Return a field's type, default and choices in a version; None if it has none."""
    found = None
    for since, declared in TABLE["fields"].get(field, {}).items():
        if VERSIONS.index(since) <= VERSIONS.index(version):
            found = declared
    return found


def has(knob: Knob, version: str) -> bool:
    """Say whether our table gives the knob to a version."""
    gone = bool(knob.until) and at_least(version, knob.until)
    first = "1.1" if knob.name == "tokens_per_block" else knob.defaults[-1][0]
    return at_least(version, first) and not gone


def values(knob: Knob) -> tuple[Value, ...]:
    """Return all choices, both ends of a range, or a sample of a text."""
    if knob.kind == "text":
        return (TEXTS[knob.name][0],)
    if knob.kind in {"bool", "choice"}:
        return knob.choices or (True, False)
    ends = [end for end in (knob.low, knob.high) if end is not None]
    return tuple(int(end) if knob.kind == "int" else float(end) for end in ends)


def written(knob: Knob, value: Value, version: str) -> tuple[str, Any]:
    """Return the one field that a setting fills, with its dots, and what it is filled with."""
    settings = llm_arguments({knob.name: value}, version)
    ((name, inner),) = settings.items()
    if not isinstance(inner, dict) or knob.name in SECTIONS:
        return name, inner
    ((key, held),) = inner.items()
    return f"{name}.{key}", held


CASES = [(knob, version) for version in VERSIONS for knob in KNOBS if knob.name not in SECTIONS]


@pytest.mark.parametrize(("knob", "version"), CASES, ids=[f"{k.name}-{v}" for k, v in CASES])
def test_a_knob_is_a_field_of_the_releases_that_have_it(knob: Knob, version: str) -> None:
    field, _ = written(knob, values(knob)[0], version)
    declared = row(field, version)

    if not has(knob, version):
        assert declared is None or knob.name in SUPERSEDED
        return
    assert declared is not None, f"{version} has no {field}"
    kind, theirs, *choices = declared
    ours = default(knob, version)
    assert ours in {theirs if not isinstance(theirs, list) else None, DECIDED.get(knob.name)}
    for value in values(knob):
        try:
            check_values({knob.name: value}, version)
        except UsageError:
            assert choices
            assert _spelt(knob, value, version) not in choices[0]
            continue
        _, held = written(knob, value, version)
        assert isinstance(held, TYPES[kind]), f"{field}: {held!r} is no {kind}"
        assert not isinstance(held, bool) or kind == "bool"
        if knob.kind == "text":
            assert held == TEXTS[knob.name][1]
        if choices:
            assert held in choices[0], f"{field}={held} in {version}"


def _spelt(knob: Knob, value: Value, version: str) -> Any:
    return written(knob, value, version)[1]


def test_every_bound_of_a_value_is_of_a_value_that_there_is() -> None:
    for name, value in (*SINCE, *UNTIL):
        assert value in BY_NAME[name].choices


@pytest.mark.parametrize("version", VERSIONS)
def test_the_two_switches_are_whole_sections(version: str) -> None:
    assert document({"cuda_graph": False}, version) == {"cuda_graph_config": None}
    assert document({"cuda_graph": True}, version) == {}
    assert document({"torch_compile": True}, version) == {"torch_compile_config": {}}
    assert document({"torch_compile": True, "torch_compile_streams": 2}, version) == {
        "torch_compile_config": {"max_num_streams": 2}
    }
    assert set(SECTIONS.values()) <= {name.split(".")[0] for name in TABLE["fields"]}


def test_no_two_knobs_fill_one_field() -> None:
    paths = [path for name, path in PATHS.items() if name in BY_NAME]

    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize(
    ("version", "kind", "section"),
    [
        ("1.0.0", "DraftTarget", {"decoding_type": "DraftTarget", "max_draft_len": 4}),
        ("1.2.1", "DraftTarget", {"decoding_type": "DraftTarget", "max_draft_len": 4}),
        ("1.3.0rc26", "DraftTarget", {"decoding_type": "Draft_Target", "max_draft_len": 4}),
        ("1.4.0rc4", "DraftTarget", {"decoding_type": "Draft_Target", "max_draft_len": 4}),
        ("1.2.1", "Eagle", {"decoding_type": "Eagle", "max_draft_len": 4}),
        ("1.3.0rc1", "Eagle", {"decoding_type": "Eagle3", "max_draft_len": 4}),
        ("1.3.0rc1", "Eagle3", {"decoding_type": "Eagle3", "max_draft_len": 4}),
        # There MTP overwrites max_draft_len by this one.
        ("1.2.1", "MTP", {"decoding_type": "MTP", "num_nextn_predict_layers": 4}),
        ("1.4.0rc4", "MTP", {"decoding_type": "MTP", "max_draft_len": 4}),
        ("1.2.1", "NGram", {"decoding_type": "NGram", "max_draft_len": 4}),
    ],
)
def test_speculation_is_spelt_as_the_release_spells_it(
    version: str, kind: str, section: dict[str, Value]
) -> None:
    config: dict[str, Value] = {"speculative_decoding": kind, "max_draft_len": 4}

    assert document(config, version) == {"speculative_config": section}


def test_triton_is_given_the_same_fields_as_the_server() -> None:
    config: dict[str, Value] = {"max_batch_size": 8, "moe_backend": "TRTLLM"}

    assert llm_arguments(config, "1.2.1") == {
        "max_batch_size": 8,
        "moe_config": {"backend": "TRTLLM"},
    }
    assert document(config, "1.2.1") == {"moe_config": {"backend": "TRTLLM"}}


def test_the_server_takes_all_flags_that_a_launch_can_say() -> None:
    config: dict[str, Value] = dict.fromkeys(FLAGS, 2)
    config["print_iter_log"] = True
    launch = ENGINE.launch("org/model", config, artifact=None, host="127.0.0.1", port=8000)
    words = launch.argv[2:]  # after the program and the model

    for flag, text in zip(words[::2], words[1::2], strict=True):
        kind, *_ = TABLE["serve"][flag]
        assert kind in {"int", "str"}
        assert kind == "str" or int(text) >= 0
    assert set(FLAGS.values()) < set(words)


def test_llmapis_model_has_the_tensors_that_our_ensemble_maps() -> None:
    for kind, theirs in _llmapi._LLMAPI.values():
        declared, dims = TABLE["tensors"][theirs]
        assert (kind, dims == [-1]) == (declared, theirs in {"text_input", "sampling_param_stop"})


def test_what_a_built_engine_is_served_with_are_fields_of_1_2() -> None:
    of_engines = "extended_runtime_perf_knob_config"  # of TrtLlmArgs, which the table leaves out
    for path in SERVE_PATHS.values():
        field = ".".join(path)
        assert path[0] == of_engines or field == "normalize_log_probs" or row(field, "1.2.1")
