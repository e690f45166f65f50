"""Configs in words."""

from llmdyno.results.configs import described, set_anew


def test_a_config_is_one_line() -> None:
    assert described({"size": 64, "fast": True}) == "size=64, fast=true"
    assert described({}) == "all defaults"


def test_what_a_config_sets_otherwise_and_no_longer_sets() -> None:
    base = {"size": 64, "mode": "good"}

    assert set_anew({"size": 128, "fast": True}, base) == "size=128, fast=true, mode unset"
    assert set_anew(base, base) == ""
    assert set_anew({"size": 1}, {}) == "size=1"
