"""MLC-LLM: flags and overrides, and the models that it can serve."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from llmdyno import plugins
from llmdyno.engines.mlc_llm import ENGINE, MODEL_FILE
from llmdyno.errors import UsageError
from llmdyno.knobs import Value


def test_the_overrides_of_mlc_are_one_flag() -> None:
    config = {"mode": "server", "max_num_sequence": 64, "gpu_memory_utilization": 0.9}
    launch = plugins.load("engines", "mlc-llm").launch(
        "HF://org/model", config, artifact=None, host="127.0.0.1", port=8000
    )

    assert launch.argv[-4:] == (
        *("--mode", "server", "--overrides", "max_num_sequence=64;gpu_memory_utilization=0.9"),
    )
    assert launch.health_path == "/v1/models"


def test_without_overrides_there_is_no_such_flag() -> None:
    launch = ENGINE.launch("HF://org/m", {}, artifact=None, host="127.0.0.1", port=8000)

    assert launch.argv[-5:] == ("HF://org/m", "--host", "127.0.0.1", "--port", "8000")


def test_a_model_is_a_folder_that_mlc_has_compiled(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"has no {MODEL_FILE}"):
        ENGINE.check(str(tmp_path), {})

    (tmp_path / MODEL_FILE).write_text("{}")
    ENGINE.check(str(tmp_path), {})


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("org/model", "there is no such folder"),
        ("HF://model", r"--model HF://model: write HF://org/name\."),
        ("HF://org/model/more", "write HF://org/name"),
    ],
)
def test_a_model_that_is_none_is_refused_by_name(model: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ENGINE.check(model, {})


WRONG: tuple[tuple[Mapping[str, Value], str], ...] = (
    ({"attention_sink_size": 4}, "attention_sink_size=4 has no effect without sliding_window"),
    ({"mode": "interactive", "max_num_sequence": 8}, "max_num_sequence=8 contradicts mode=int"),
)


@pytest.mark.parametrize(("config", "words"), WRONG)
def test_what_it_would_take_and_ignore_is_refused(config: Mapping[str, Value], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ENGINE.check("HF://org/model", config)
