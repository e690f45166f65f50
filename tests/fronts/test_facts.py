"""What fronts say of themselves, and that those written before need not say it."""

from types import SimpleNamespace
from typing import Any

import pytest

from llmdyno import plugins
from llmdyno.errors import UsageError
from llmdyno.fronts import Facts, check_load, facts


def test_a_front_that_says_nothing_has_the_defaults() -> None:
    old: Any = SimpleNamespace(name="old", knobs=())

    assert facts(old) == Facts()
    check_load(old, {"decoupled_mode": False}, streams=True)


@pytest.mark.parametrize("name", plugins.names("fronts"))
def test_our_fronts_take_a_load_that_streams(name: str) -> None:
    check_load(plugins.load("fronts", name), {}, streams=True)


def test_triton_refuses_one_response_a_request_only_where_a_load_streams() -> None:
    triton = plugins.load("fronts", "triton")

    check_load(triton, {"decoupled_mode": False}, streams=False)
    check_load(triton, {"decoupled_mode": True}, streams=True)
    with pytest.raises(UsageError, match="decoupled_mode=false: a study's load streams"):
        check_load(triton, {"decoupled_mode": False}, streams=True)


def test_every_target_is_one_fronts_own() -> None:
    targets = [facts(plugins.load("fronts", name)).target for name in plugins.names("fronts")]
    named = [target for target in targets if target]

    assert sorted(named) == ["bento", "triton"]
