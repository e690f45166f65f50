"""The native front: the engine's own launch, on the host and port asked for, nothing between."""

from pathlib import Path

from llmdyno.engines.openvino import ENGINE
from llmdyno.fronts.native import FRONT


def test_the_launch_is_the_engines_own(tmp_path: Path) -> None:
    config = {"max_num_batched_tokens": 512}
    said: list[str] = []

    launch = FRONT.launch(
        ENGINE, "tiny", config, artifact=None, folder=tmp_path, host="127.0.0.1", port=8123,
        says=said.append,
    )  # fmt: skip

    assert launch == ENGINE.launch("tiny", config, artifact=None, host="127.0.0.1", port=8123)
    assert launch.url == "http://127.0.0.1:8123"
    assert list(tmp_path.iterdir()) == []
    assert said == []


def test_a_bundle_has_that_launch_and_writes_nothing(tmp_path: Path) -> None:
    portable = FRONT.bundle(
        ENGINE, "tiny", {}, artifact=None, folder=tmp_path, host="0.0.0.0", port=1,
        says=lambda _: None,
    )  # fmt: skip

    assert portable.launch == ENGINE.launch("tiny", {}, artifact=None, host="0.0.0.0", port=1)
    assert list(tmp_path.iterdir()) == []


def test_it_has_no_knobs_and_refuses_nothing() -> None:
    assert FRONT.knobs == ()
    FRONT.check(ENGINE, "tiny", {})
