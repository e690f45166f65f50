"""Commands as data: frozen, complete with a few fields, equal when they say the same."""

import msgspec
import pytest

from llmdyno.processes.launch import Launch, Step, elsewhere


def test_a_launch_needs_what_differs_and_has_defaults_for_the_rest() -> None:
    launch = Launch(argv=("serve",), url="http://127.0.0.1:1", endpoint="openai-chat", model="m")

    assert (launch.health_path, launch.start_timeout_s, launch.gpus) == ("/health", 600.0, 0)
    assert (launch.probe, launch.environment, launch.files) == (None, {}, {})


def test_equal_commands_are_equal_and_a_change_is_another() -> None:
    step = Step(what="convert", argv=("a", "b"))

    assert step == Step(what="convert", argv=("a", "b"))
    assert msgspec.structs.replace(step, argv=("a",)) != step
    with pytest.raises(AttributeError, match="immutable"):
        step.what = "compress"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("program", "named"),
    [
        ("/opt/own/bin/python", "python3"),
        ("/opt/own/bin/python3.12", "python3"),
        ("python3", "python3"),
        ("/opt/own/bin/trtllm-build", "trtllm-build"),
        ("/usr/bin/python-config", "python-config"),
    ],
)
def test_whatever_python_it_is_here_it_is_python3_elsewhere(program: str, named: str) -> None:
    assert elsewhere((program, "convert.py")) == named
