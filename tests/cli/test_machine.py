"""`dyno knobs` and `dyno env`."""

import json
import subprocess
from collections.abc import Callable

import pytest

from llmdyno import plugins

Dyno = Callable[..., subprocess.CompletedProcess[str]]


def test_the_guide_says_what_a_knob_does_when_to_turn_it_and_what_it_costs(dyno: Dyno) -> None:
    table, guide = dyno("knobs", "openvino"), dyno("knobs", "openvino", "max_num_seqs")

    assert (table.returncode, guide.returncode) == (0, 0)
    assert "enable_prefix_caching=false    true or false" in table.stdout
    assert max(map(len, table.stdout.splitlines())) < 100
    for words in ("what it does", "when to turn it", "what it trades", "dynamic_split_fuse=false"):
        assert words in guide.stdout


def test_every_engine_has_a_guide(dyno: Dyno) -> None:
    guide = dyno("knobs", "vllm").stdout

    assert "max_num_batched_tokens=unset" in guide
    here = plugins.load("engines", "vllm").version()
    assert guide.startswith(f"vllm {here}" if here else "vllm, not installed here: ")
    assert dyno("knobs", "openvino").stdout.startswith("openvino 2")
    excluded = dyno("knobs", "vllm", "quantization").stdout
    assert "does not go with\n    dtype=float32;" in excluded


def test_the_facts_of_the_machine_are_one_line_each_or_one_document(dyno: Dyno) -> None:
    lines, document = dyno("env"), dyno("env", "--json")

    assert "cpu: model " in lines.stdout
    assert "memory: " in lines.stdout
    assert "_" not in "".join(line.partition(":")[0] for line in lines.stdout.splitlines())
    assert json.loads(document.stdout)["llmdyno"]


def test_the_engines_that_are_installed_are_named_with_their_versions(dyno: Dyno) -> None:
    lines, document = dyno("env").stdout.splitlines(), json.loads(dyno("env", "--json").stdout)
    known = {name: plugins.load("engines", name).version() for name in plugins.names("engines")}

    assert document["engines"] == known
    (here,) = [line for line in lines if line.startswith("engines: ")]
    (elsewhere,) = [line for line in lines if line.startswith("engines not installed here: ")]
    for name, version in known.items():
        assert (f"{name} {version}" in here) == (version is not None)
        assert (name in elsewhere) == (version is None)


def test_a_variable_that_is_wrong_is_told_and_all_else_too(
    dyno: Dyno, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYNO_VLLM_PYTHON", "/no/such/python")
    said = "! DYNO_VLLM_PYTHON=/no/such/python: give the Python that vllm is installed in"

    lines, document, guide = dyno("env"), dyno("env", "--json"), dyno("knobs", "vllm")

    assert (lines.returncode, document.returncode, guide.returncode) == (0, 0, 0)
    assert said in lines.stdout
    (missing,) = [line for line in lines.stdout.splitlines() if line.startswith("engines not")]
    assert "vllm" in missing
    assert said in document.stderr
    assert json.loads(document.stdout)["engines"]["vllm"] is None
    assert said in guide.stderr
    assert guide.stdout.startswith("vllm, not installed here: ")
    assert "max_num_seqs" in guide.stdout
