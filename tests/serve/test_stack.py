"""An engine behind a front with a model: checked, placed and launched, or refused by name."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmdyno import plugins
from llmdyno.errors import UsageError
from llmdyno.machine import hardware
from llmdyno.serve.stack import Stack


def stack(engine: str = "openvino", front: str = "native", model: str = "tiny") -> Stack:
    return Stack(
        engine=plugins.load("engines", engine), front=plugins.load("fronts", front), model=model
    )


@pytest.mark.parametrize(
    ("model", "config", "words"),
    [
        ("", {}, "--model: is empty"),
        ("tiny", {"max_num_batched_token": 512}, "max_num_batched_tokens"),
        ("tiny", {"max_num_batched_tokens": "many"}, "max_num_batched_tokens"),
        ("no-such-model", {}, "no-such-model"),
    ],
)
def test_what_cannot_work_is_refused_by_name(
    model: str, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        stack(model=model).check(config)


def test_a_right_config_passes() -> None:
    stack().check({"max_num_batched_tokens": 512})
    stack().check_served({"max_num_batched_tokens": 512})


def test_an_engine_that_is_not_here_is_said_with_what_installs_it() -> None:
    absent = stack("tgi")
    if absent.engine.version() is not None:
        pytest.skip("needs a machine without this engine")

    with pytest.raises(UsageError, match="--engine tgi: it is not installed here; "):
        absent.require_engine()
    with pytest.raises(UsageError, match="--engine tgi: it is not installed here; "):
        absent.placed("none")
    assert absent.placed("none", here=False) is absent  # to be described only


@pytest.mark.parametrize("wanted", ["none", "auto"])
def test_an_engine_that_is_here_runs_natively(wanted: str) -> None:
    assert stack().placed(wanted).container is None


@pytest.mark.parametrize(
    ("engine", "front", "words"),
    [
        ("openvino", "native", "--container docker: openvino has no container image."),
        ("vllm", "triton", "--container docker: the front triton runs natively"),
    ],
)
def test_what_cannot_be_put_into_a_container_is_said(engine: str, front: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        stack(engine, front).placed("docker", here=False)


def test_a_launch_makes_its_folder_and_tells_its_doubts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    served = stack()
    own = served.front.launch

    def doubtful(*positional: Any, **named: Any) -> Any:
        return msgspec.structs.replace(own(*positional, **named), doubts=("seldom meant",))

    monkeypatch.setattr(served.front, "launch", doubtful, raising=False)
    launch = served.launch(
        {},
        artifact=None,
        folder=tmp_path / "new" / "folder",
        host="127.0.0.1",
        port=1,
        notify=said.append,
    )

    assert (tmp_path / "new" / "folder").is_dir()
    assert launch.url == "http://127.0.0.1:1"
    assert said == ["! seldom meant"]


def test_more_gpus_than_can_be_seen_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "gpus_visible", lambda: 1)

    with pytest.raises(UsageError, match="--engine vllm: this config takes 2 GPUs, and 1 can be"):
        stack("vllm", model="org/model").launch(
            {"tensor_parallel_size": 2}, artifact=None, folder=tmp_path, host="127.0.0.1", port=1,
            notify=lambda _: None,
        )  # fmt: skip
