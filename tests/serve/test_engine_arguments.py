"""--engine-arg: words at the end of the engine's command, refused where they are not the user's."""

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmdyno import deploy, plugins
from llmdyno.engines import Engine
from llmdyno.errors import UsageError
from llmdyno.serve.engine_arguments import EngineWithArguments, extended
from llmdyno.serve.stack import Stack, load_stack

HUB = "org/name"
AWKWARD = (
    "--async-scheduling-of-mine",
    '--hf-overrides={"a": "it\'s $HOME `id` $(id)"}',
    "--max-log-len",
    "-1",
    "--served-at=ünder a\nline",
)


def stack(*words: str, engine: str = "vllm", front: str = "native") -> Stack:
    return load_stack(engine, front, "tiny" if engine == "openvino" else HUB, words)


def argv(found: Stack, config: dict[str, Any] | None = None) -> tuple[str, ...]:
    return found.engine.launch(HUB, config or {}, artifact=None, host="127.0.0.1", port=8000).argv


@pytest.mark.parametrize("engine", ["vllm", "sglang", "lmdeploy", "tgi", "mlc-llm", "tensorrt-llm"])
def test_words_stand_last_on_the_command_of_every_engine(engine: str) -> None:
    words = ("--some-new-flag=3", "--other")
    found = stack(*words, engine=engine)

    assert argv(found)[-2:] == words
    assert argv(found)[:-2] == argv(stack(engine=engine))
    assert found.engine.name == engine
    assert found.engine.version() == plugins.load("engines", engine).version()


def test_without_words_the_engine_is_itself() -> None:
    assert stack().engine is plugins.load("engines", "vllm")


@pytest.mark.parametrize("front", ["native", "bentoml"])
def test_a_front_that_starts_the_engines_server_hands_them_on(front: str, tmp_path: Path) -> None:
    found = stack(*AWKWARD[1:], front=front)
    files = deploy.write(tmp_path, found, {}, notify=lambda _: None)

    if front == "bentoml":
        spec = json.loads((tmp_path / "llmdyno_front" / "spec.json").read_text())
        assert tuple(spec["argv"][-4:]) == AWKWARD[1:]
    else:
        compose = yaml.safe_load((tmp_path / "compose.yaml").read_text())
        command = compose["services"]["llm"]["command"][-4:]
        assert tuple(word.replace("$$", "$") for word in command) == AWKWARD[1:]
        for document in yaml.safe_load_all((tmp_path / "kubernetes.yaml").read_text()):
            if document["kind"] == "Deployment":
                (container,) = document["spec"]["template"]["spec"]["containers"]
                args = [word.replace("$$(", "$(") for word in container["args"][-4:]]
                assert tuple(args) == AWKWARD[1:]
    readme = (tmp_path / "README.md").read_text()
    assert shlex.join(AWKWARD[1:]) in readme or front == "bentoml"
    assert "serve.sh" in files


def test_a_script_passes_awkward_words_on_as_they_are(tmp_path: Path) -> None:
    deploy.write(tmp_path, stack(*AWKWARD), {}, target="script", notify=lambda _: None)
    programs = tmp_path / "bin"
    programs.mkdir()
    # Any program of that name, and any Python, that says what it was given.
    for name in ("vllm", "python3"):
        (programs / name).write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n')
        (programs / name).chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"

    done = subprocess.run(
        ["sh", str(tmp_path / "serve.sh")],
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )

    assert tuple(done.stdout.split("\0")[-1 - len(AWKWARD) : -1]) == AWKWARD


REFUSED: dict[str, tuple[str, tuple[str, ...], str]] = {
    "a knob": ("vllm", ("--max-num-seqs=4",), "is the knob max_num_seqs of vllm; use --set max_nu"),
    "a knob, two words": ("vllm", ("--max-num-seqs", "4"), "use --set max_num_seqs=VALUE."),
    "a knob, underscores": ("vllm", ("--max_num_seqs=4",), "is the knob max_num_seqs"),
    "a switch": ("vllm", ("--no-enable-prefix-caching",), "use --set enable_prefix_caching=false."),
    "a short name": ("vllm", ("-tp=2",), "is the knob tensor_parallel_size"),
    "an alias": ("sglang", ("--tp=2",), "is the knob tp_size"),
    "a renamed flag": ("tensorrt-llm", ("--tp_size=2",), "is the knob tensor_parallel_size"),
    "the port": ("vllm", ("--port=9",), "dyno sets --port itself"),
    "the host": ("tgi", ("--hostname", "::"), "dyno sets --hostname itself"),
    "the model": ("sglang", ("--model-path=x",), "dyno sets --model-path itself"),
    "its name": ("vllm", ("--served-model-name=x",), "dyno sets --served-model-name itself"),
    "what dyno adds": ("sglang", ("--enable-metrics",), "dyno sets --enable-metrics itself"),
    "many knobs at once": ("mlc-llm", ("--overrides=a=1",), "dyno sets --overrides itself"),
    "no flag": ("vllm", ("serve",), "serve: is no flag; write --engine-arg=--flag=value"),
    "two values": ("vllm", ("--a", "1", "2"), "2: is no flag"),
    "nothing": ("vllm", ("",), "is empty"),
    "one word of two": ("vllm", ("--a b",), "is one word for the engine; write --engine-arg=--a="),
    "a key": ("vllm", ("--api-key=abc",), "--api-key=•••: looks like a secret"),
    "a key, two words": ("vllm", ("--api-key", "abc"), "--api-key=•••: looks like a secret"),
    "a token": ("vllm", ("--hf-token=abc",), "looks like a secret"),
    "a token by its form": ("vllm", (f"--a=hf_{'x' * 30}",), "looks like a secret"),
    "a password": ("vllm", ("--a=https://me:pw@host",), "looks like a secret"),
    "no flags": ("openvino", ("--a=1",), "openvino has no flags beside its knobs; use --set"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_word_that_is_not_the_users_is_refused(name: str) -> None:
    engine, words, sentence = REFUSED[name]
    with pytest.raises(UsageError) as raised:
        stack(*words, engine=engine)
    assert sentence in str(raised.value)
    assert "abc" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_value_of_a_secret_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "open sesame")
    with pytest.raises(UsageError, match="looks like a secret") as raised:
        stack("--greeting=open sesame!")
    assert "sesame" not in str(raised.value)


@pytest.mark.parametrize(
    "word", ["--tokenizer-mode=slow", "--max-tokens-per-key-block=3", "--eos-token=a"]
)
def test_a_flag_that_only_sounds_like_a_secret_is_taken(word: str) -> None:
    assert argv(stack(word))[-1] == word


def test_triton_has_no_server_of_the_engines_to_hand_them_to() -> None:
    with pytest.raises(UsageError, match="the front triton does not start vllm's own server"):
        stack("--a=1", front="triton")
    assert stack("--log-level=info", engine="sglang", front="triton").engine_args


def test_a_flag_that_only_some_configs_hold_is_refused_with_those() -> None:
    engine: Engine = plugins.load("engines", "tensorrt-llm")
    config = {"return_perf_metrics": True}
    words = EngineWithArguments(engine, ("--extra_llm_api_options=mine",))

    words.launch(HUB, {}, artifact=None, host="127.0.0.1", port=1)
    with pytest.raises(UsageError, match="dyno sets --extra_llm_api_options itself"):
        words.launch(HUB, config, artifact=None, host="127.0.0.1", port=1)


def test_a_path_of_this_machine_is_doubted_in_a_bundle(tmp_path: Path) -> None:
    template = tmp_path / "t.jinja"
    template.write_text("")
    said: list[str] = []

    deploy.write(tmp_path / "bundle", stack(f"--chat-template={template}"), {}, notify=said.append)

    assert any(f"--engine-arg names {template}, which the bundle" in line for line in said)
    assert str(template) in (tmp_path / "bundle" / "README.md").read_text()


def test_somebody_elses_engine_takes_them_too() -> None:
    class Mine:
        name, knobs, install, image = "mine", (), "install it", ""

        def launch(self, *_: Any, **__: Any) -> Any:
            return plugins.load("engines", "vllm").launch(
                HUB, {}, artifact=None, host="127.0.0.1", port=1
            )

    found = extended(Mine(), plugins.load("fronts", "native"), HUB, ("--a=1",))  # type: ignore[arg-type]
    assert found.launch(HUB, {}, artifact=None, host="h", port=1).argv[-1] == "--a=1"
