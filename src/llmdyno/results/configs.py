"""Configs in words: a whole one, and what one sets otherwise than a baseline."""

from collections.abc import Mapping
from typing import Any

from llmdyno.knobs import show


def described(config: Mapping[str, Any]) -> str:
    """Return a config in one line: "knob=value, knob=value", or "all defaults"."""
    return ", ".join(f"{name}={show(value)}" for name, value in config.items()) or "all defaults"


def set_anew(config: Mapping[str, Any], baseline: Mapping[str, Any]) -> str:
    """Return what a config sets otherwise than a baseline; empty: nothing."""
    said = [f"{name}={show(config[name])}" for name in config if config[name] != baseline.get(name)]
    said += [f"{name} unset" for name in baseline if name not in config]
    return ", ".join(said)
