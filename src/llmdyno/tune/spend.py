"""The budget of a study as the user gives it: a time, machine hours, or money."""

import re
from typing import Any, Literal

import msgspec

from llmdyno import units
from llmdyno.errors import UsageError

_HOUR_S = 3600.0
_MONEY = re.compile(r"[$€£]\s*(\d+(?:\.\d+)?|\.\d+)")
_MACHINE_HOURS = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*mh")


class Spend(msgspec.Struct, frozen=True, kw_only=True):
    """A budget that is no time: hours of machines, or money."""

    amount: float
    unit: Literal["machine-hours", "money"]

    def check(self, price_per_h: float | None) -> None:
        """Refuse a budget that is nothing, or money without a price.

        Raises:
            UsageError: says what would be right.
        """
        if self.amount <= 0:
            raise UsageError(f"--budget {show_budget(self)}: must be more than 0.")
        if self.unit == "money" and price_per_h is None:
            raise UsageError(
                f"--budget {show_budget(self)}: needs the machine's price, e.g. --price 3.50/h."
            )

    def machine_s(self, price_per_h: float | None) -> float:
        """Return for how many seconds one machine can be had for it; it is checked."""
        if self.unit == "machine-hours":
            return self.amount * _HOUR_S
        assert price_per_h is not None
        return self.amount / price_per_h * _HOUR_S


def parse_budget(value: Any, field: str) -> float | Spend:
    """Read 30m, 2mh or $20.

    Raises:
        UsageError: names the field, the text and what would be right.
    """
    text = str(value).strip()
    if match := _MONEY.fullmatch(text):
        return Spend(amount=float(match[1]), unit="money")
    if match := _MACHINE_HOURS.fullmatch(text):
        return Spend(amount=float(match[1]), unit="machine-hours")
    try:
        return units.seconds(text, field)
    except UsageError:
        raise UsageError(
            f"{field} {text}: write a time such as 30m or 2h, machine hours such as 2mh, or money"
            " such as $20."
        ) from None


def show_budget(budget: float | Spend) -> str:
    """Write a budget as the command line takes it."""
    if not isinstance(budget, Spend):
        return units.show_seconds(budget)
    return f"${budget.amount:g}" if budget.unit == "money" else f"{budget.amount:g}mh"


def money(price_per_h: float | None, seconds: float) -> float | None:
    """Return what a time costs, to two digits; None: there is no price."""
    return None if price_per_h is None else round(price_per_h * seconds / _HOUR_S, 2)
