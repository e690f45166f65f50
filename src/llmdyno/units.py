"""Reads the command line's notations for durations, shares and token counts, and writes them.

20s  5m  1h  30d  250ms  durations; a bare number is seconds
2%                      shares of one; a bare number is a share as it stands: 0.02
500ms-2s                durations, uniform between the two
128                     always 128 tokens
64-256                  tokens, uniform between the two, both included
normal:128,32           tokens: mean and standard deviation; a length below 1 becomes 1
lognormal:128,64        tokens: mean and standard deviation of the lengths, not of their logarithm
"""

import math
import random
import re
from typing import Literal

import msgspec

from llmdyno.errors import UsageError

# No model takes a longer text, and a longer prompt would not fit into this machine.
TOKENS_MAX = 10_000_000
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str, field: str) -> float:
    """Read a duration and return it in seconds.

    Raises:
        UsageError: names `field`, the text and what would be right.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(us|ms|s|m|h|d|)", text.strip())
    if match is None:
        raise UsageError(f"{field} {text}: write a duration such as 20s, 5m, 250ms or 1h.")
    return float(match[1]) * _SECONDS[match[2]]


def share(text: str, field: str) -> float:
    """Read a share, such as 2% or 0.02, and return it as a number where 1 is the whole.

    Raises:
        UsageError: names `field`, the text and what would be right.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(%|)", text.strip())
    if match is None:
        raise UsageError(f"{field} {text}: write a share such as 2% or 0.02.")
    return float(match[1]) / (100 if match[2] else 1)


def percent(share: float) -> str:
    """Write a share as share() reads it: 0.02 is 2%."""
    return f"{100 * share:.6g}%"


def seconds_between(text: str, field: str) -> float | tuple[float, float]:
    """Read a duration, or two with a dash (uniform between them), and return seconds.

    Raises:
        UsageError: names `field`, the text and what would be right.
    """
    low, dash, high = text.partition("-")
    if not dash:
        return seconds(text, field)
    try:
        low_s, high_s = seconds(low, field), seconds(high, field)
    except UsageError as error:
        raise UsageError(
            f"{field} {text}: write a duration such as 20s, 5m, 250ms or 1h, or two, as 1s-5s."
        ) from error
    if low_s > high_s:
        raise UsageError(f"{field} {text}: the shorter one goes first.")
    return low_s, high_s


def show_seconds(value_s: float) -> str:
    """Write a duration in seconds in the notation of the command line, e.g. 300 as 5m."""
    for unit, size in (("h", 3600), ("m", 60)):
        if value_s >= size and value_s % size == 0:
            return f"{value_s / size:g}{unit}"
    return f"{value_s:g}s" if value_s >= 1 or value_s == 0 else f"{value_s * 1e3:g}ms"


def show_seconds_between(value_s: float | tuple[float, float]) -> str:
    """Write what seconds_between() has read the way the command line takes it."""
    if isinstance(value_s, tuple):
        return "-".join(map(show_seconds, value_s))
    return show_seconds(value_s)


def price_per_h(text: str, field: str) -> float:
    """Read a price, e.g. 3.50/h, in whatever currency.

    Raises:
        UsageError: names `field`, the text and what would be right.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?/ ?h", text.strip())
    price = float(match[1]) if match else 0.0
    if not 0 < price < math.inf:
        raise UsageError(f"{field} {text}: write a price an hour above 0, e.g. 3.50/h.")
    return price


def counted(count: float, noun: str, plural: str = "") -> str:
    """Write a number of things: "1 request", "2,000 requests"; the plural, if an s is not it."""
    written = f"{count:,.0f}"
    return f"{written} {noun if written == '1' else plural or f'{noun}s'}"


class Lengths(msgspec.Struct, frozen=True):
    """A distribution of token counts; `a` and `b` are low/high or mean/standard deviation."""

    shape: Literal["fixed", "uniform", "normal", "lognormal"]
    a: float
    b: float = 0.0

    def draw(self, rng: random.Random) -> int:
        """Draw one length, at least 1."""
        if self.shape == "fixed":
            return round(self.a)
        if self.shape == "uniform":
            return rng.randint(round(self.a), round(self.b))
        if self.shape == "normal":
            return max(1, round(rng.gauss(self.a, self.b)))
        # The parameters of the underlying normal from the mean m and deviation s of the lengths:
        # sigma^2 = ln(1 + s^2/m^2), mu = ln(m) - sigma^2/2.
        variance = math.log1p((self.b / self.a) ** 2)
        return max(1, round(rng.lognormvariate(math.log(self.a) - variance / 2, variance**0.5)))

    @property
    def typical(self) -> float:
        """The mean of the lengths, before those below 1 become 1."""
        return (self.a + self.b) / 2 if self.shape == "uniform" else self.a

    def __str__(self) -> str:
        """Write it the way the command line takes it."""
        if self.shape == "fixed":
            return f"{self.a:g}"
        if self.shape == "uniform":
            return f"{self.a:g}-{self.b:g}"
        return f"{self.shape}:{self.a:g},{self.b:g}"


def lengths(text: str, field: str) -> Lengths:
    """Read a distribution of token counts.

    Raises:
        UsageError: names `field`, the text and what would be right.
    """
    if any(float(number) > TOKENS_MAX for number in re.findall(r"\d+(?:\.\d+)?", text)):
        raise UsageError(f"{field} {text}: must be at most {TOKENS_MAX:,}.")
    if re.fullmatch(r"[1-9]\d*", text):
        return Lengths("fixed", int(text))
    if match := re.fullmatch(r"([1-9]\d*)-([1-9]\d*)", text):
        low, high = int(match[1]), int(match[2])
        if low <= high:
            return Lengths("uniform", low, high)
    if match := re.fullmatch(r"(normal|lognormal):(\d+(?:\.\d+)?),(\d+(?:\.\d+)?)", text):
        mean, deviation = float(match[2]), float(match[3])
        if mean >= 1:
            return Lengths("normal" if match[1] == "normal" else "lognormal", mean, deviation)
    raise UsageError(
        f"{field} {text}: write a number as 128, 64-256 (uniform), normal:128,32 or"
        " lognormal:128,64 (mean, standard deviation)."
    )
