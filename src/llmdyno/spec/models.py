"""Which models are asked: one, or several with the share of the requests that each gets.

A name may hold a colon itself (`llama3:8b`), so shares are read only where there is a comma.
"""

import math
import random
import re

import msgspec

from llmdyno.errors import UsageError

_SHARES_OFF_MAX = 0.015  # from 1; 0.33,0.33,0.33 is meant as a third each


class Asked(msgspec.Struct, frozen=True):
    """One model, or an adapter that goes by a model's name."""

    name: str
    share: float  # of the requests


def parse_models(text: str) -> tuple[Asked, ...]:
    """Read 'base', 'base:0.5,lora-a:0.3,lora-b:0.2' or, in equal shares, 'base,lora-a'.

    Raises:
        UsageError: names the text and what would be right.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 1:
        return (Asked(text, 1.0),)
    found = [re.fullmatch(r"(.+):(\d*\.\d+|1)", part) for part in parts]
    shared = [(match[1], float(match[2])) for match in found if match]
    if not shared and all(parts):
        shared = [(part, 1 / len(parts)) for part in parts]
    total = math.fsum(share for _, share in shared)
    names = [name for name, _ in shared]
    if len(shared) < len(parts) or len(set(names)) < len(names):
        raise UsageError(
            f"--model {text}: write each model once with its share, e.g."
            " base:0.5,lora-a:0.3,lora-b:0.2, or all without."
        )
    if abs(total - 1) > _SHARES_OFF_MAX or min(share for _, share in shared) <= 0:
        raise UsageError(
            f"--model {text}: the shares are {total:g} together; they must be above 0 and 1"
            " together."
        )
    return tuple(Asked(name, share / total) for name, share in shared)


def draw(models: tuple[Asked, ...], key: str) -> str:
    """Return the model of a request or session; the same key gives the same model."""
    if len(models) == 1:
        return models[0].name
    shares = [one.share for one in models]
    return random.Random(key).choices([one.name for one in models], shares)[0]
