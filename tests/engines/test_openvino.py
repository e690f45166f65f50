"""The openvino engine's table of knobs, its checks and what it would launch."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from llmdyno import knobs, plugins
from llmdyno.engines.openvino import ENGINE, KNOBS
from llmdyno.errors import UsageError
from llmdyno.fronts import native
from llmdyno.machine import hardware
from llmdyno.serve.stack import Stack


def test_it_is_found_by_its_name() -> None:
    assert plugins.load("engines", "openvino") is ENGINE
    assert ENGINE.name == "openvino"


def test_importing_it_does_not_import_the_library() -> None:
    code = (
        "import sys, llmdyno.engines.openvino as plugin; plugin.ENGINE.version();"
        "print([name for name in ('openvino', 'openvino_genai', 'gguf', 'numpy')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_defaults_are_the_librarys() -> None:
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    for knob in KNOBS:
        if knob.layer == "engine" and not knob.name.isupper():
            assert knobs.default(knob, ENGINE.version()) == getattr(scheduler, knob.name), knob.name


def test_what_the_tuner_may_try_is_accepted_and_what_alters_output_is_marked() -> None:
    for knob in KNOBS:
        for value in knob.search:
            others: dict[str, knobs.Value] = dict([knob.needs]) if knob.needs else {}
            knobs.check({**others, knob.name: value}, KNOBS)
    assert {knob.name for knob in KNOBS if knob.alters_output} == {
        "KV_CACHE_PRECISION",
        "INFERENCE_PRECISION_HINT",
        "use_cache_eviction",
        "use_sparse_attention",
        "weight_format",
        "int4_group_size",
        "int4_ratio",
        "int4_symmetric",
    }


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"cache_size": 1, "num_kv_blocks": 20}, ("cache_size=1", "num_kv_blocks=20")),
        ({"dynamic_split_fuse": False}, ("max_num_batched_tokens=256", "dynamic_split_fuse=false")),
        (
            {"dynamic_split_fuse": False, "max_num_batched_tokens": 511},
            ("max_num_batched_tokens=511", "at least 512"),
        ),
        ({"KV_CACHE_PRECISION": "f32"}, ("KV_CACHE_PRECISION=f32", "INFERENCE_PRECISION_HINT=f32")),
        (
            {"KV_CACHE_PRECISION": "bf16", "INFERENCE_PRECISION_HINT": "f32"},
            ("KV_CACHE_PRECISION=bf16", "f16 or f32"),
        ),
        (
            {"KV_CACHE_PRECISION": "bf16", "INFERENCE_PRECISION_HINT": "f16"},
            ("KV_CACHE_PRECISION=bf16", "INFERENCE_PRECISION_HINT=f16"),
        ),
        ({"KV_CACHE_PRECISION": "u4"}, ("KV_CACHE_PRECISION=u4", "cache_size or num_kv_blocks")),
        (
            {
                "dynamic_split_fuse": False,
                "max_num_batched_tokens": 512,
                "max_num_seqs": 513,
            },
            ("max_num_seqs=513", "max_num_batched_tokens=512"),
        ),
        (
            {
                "dynamic_split_fuse": False,
                "max_num_batched_tokens": 2048,
                "max_num_seqs": 32,
                "num_kv_blocks": 127,
            },
            ("max_num_batched_tokens=2048", "4,064 tokens", "at most 2032", "least 128 blocks"),
        ),
        (
            {"use_cache_eviction": True, "enable_prefix_caching": True},
            ("use_cache_eviction=true", "enable_prefix_caching=true"),
        ),
        (
            {"use_cache_eviction": True, "num_kv_blocks": 900},
            ("use_cache_eviction=true", "num_kv_blocks=900"),
        ),
        (
            {"use_cache_eviction": True, "cache_size": 1},
            ("use_cache_eviction=true", "cache_size=1"),
        ),
    ],
)
def test_wrong_combinations_are_refused_by_name(
    config: dict[str, knobs.Value], named: tuple[str, str]
) -> None:
    knobs.check(config, KNOBS)  # each value is right by itself
    with pytest.raises(UsageError) as caught:
        ENGINE.check("tiny", config)
    assert all(name in str(caught.value) for name in named)


def test_max_num_seqs_is_refused_where_the_library_ignores_it() -> None:
    with pytest.raises(UsageError, match="no effect while dynamic_split_fuse=true"):
        knobs.check({"max_num_seqs": 8}, KNOBS)


def test_weights_of_4_bits_have_settings_that_others_have_not() -> None:
    for name, value in (("int4_ratio", 0.8), ("int4_group_size", 64), ("int4_symmetric", True)):
        with pytest.raises(UsageError, match=f"{name}=.* has no effect while weight_format=int8"):
            knobs.check({"weight_format": "int8", name: value}, KNOBS)
        knobs.check({"weight_format": "int4", name: value}, KNOBS)


def test_a_checkpoint_is_served_only_if_it_is_converted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"nor config\.json with \.safetensors"):
        ENGINE.check(str(tmp_path), {"weight_format": "fp16"})
    (tmp_path / "model.safetensors").touch()

    ENGINE.check(str(tmp_path), {"weight_format": "fp16"})
    with pytest.raises(UsageError, match=r"is a Hugging Face checkpoint.*set weight_format=fp16"):
        ENGINE.check(str(tmp_path), {})


@pytest.mark.parametrize(
    ("flags", "hint", "taken"),
    [
        ({"avx2"}, None, False),
        ({"avx2"}, "bf16", False),
        ({"avx2", "avx512bw"}, None, False),
        ({"avx2", "avx512bw"}, "bf16", True),  # emulated
        ({"avx512bw", "avx512_bf16"}, None, True),
        ({"amx_bf16"}, "bf16", True),
        (set(), None, True),  # Linux does not tell: the library will
    ],
)
def test_a_cache_in_bfloat16_needs_a_cpu_that_has_it(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], hint: str | None, taken: bool
) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset(flags))
    config: dict[str, knobs.Value] = {"KV_CACHE_PRECISION": "bf16"}
    if hint:
        config["INFERENCE_PRECISION_HINT"] = hint
    if taken:
        ENGINE.check("tiny", config)
    else:
        with pytest.raises(UsageError, match="needs a CPU that computes in bfloat16"):
            ENGINE.check("tiny", config)


def test_right_combinations_pass() -> None:
    ENGINE.check("tiny", {"use_cache_eviction": True, "use_sparse_attention": True})
    ENGINE.check("tiny", {"use_cache_eviction": False, "enable_prefix_caching": True})
    ENGINE.check("tiny", {"use_cache_eviction": True, "cache_size": 0})
    ENGINE.check("tiny", {"KV_CACHE_PRECISION": "u4", "num_kv_blocks": 900})
    ENGINE.check("tiny", {})
    ENGINE.check("org/name", {"cache_size": 1, "enable_prefix_caching": True})
    ENGINE.check("small", {"dynamic_split_fuse": False, "max_num_batched_tokens": 2048})
    ENGINE.check("tiny", {"KV_CACHE_PRECISION": "f32", "INFERENCE_PRECISION_HINT": "f32"})


def test_a_model_that_cannot_be_is_refused_before_a_start() -> None:
    with pytest.raises(UsageError, match="Did you mean 'small'"):
        ENGINE.check("smal", {})


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert ENGINE.version() is None
    stack = Stack(engine=ENGINE, front=native.FRONT, model="tiny")
    with pytest.raises(UsageError, match=r"pip install 'llmdyno\[cpu\]'"):
        stack.require_engine()


def test_the_launch_starts_this_python_on_the_given_port() -> None:
    launch = ENGINE.launch("tiny", {"cache_size": 2}, artifact=None, host="127.0.0.1", port=8123)
    assert launch.argv[:3] == (sys.executable, "-m", "llmdyno.embedded.server")
    assert launch.argv[-1] == '{"cache_size": 2}'
    assert (launch.url, launch.endpoint) == ("http://127.0.0.1:8123", "openai-chat")
    assert launch.probe is not None


def test_what_is_built_is_no_setting_of_the_server(tmp_path: Path) -> None:
    config: dict[str, knobs.Value] = {"cache_size": 2, "weight_format": "int8"}
    launch = ENGINE.launch("tiny", config, artifact=tmp_path, host="127.0.0.1", port=8123)

    assert launch.argv[-1] == '{"cache_size": 2}'
    assert launch.argv[launch.argv.index("--artifact") + 1] == str(tmp_path)
    assert launch.model == "tiny"
