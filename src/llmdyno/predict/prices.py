"""What a GPU costs an hour: one price for all that are asked, or each its own."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmdyno import units
from llmdyno.errors import UsageError
from llmdyno.flag import Kind
from llmdyno.predict.gpus import Gpu, gpu_of, is_figure
from llmdyno.predict.shapes import closest

Prices = float | Mapping[str, float]  # by GPU where it is a mapping


_RIGHT = (
    "write GPU=PRICE/h, e.g. h200=3.5/h,h100=2.4/h; a described GPU's price stands behind its last"
    " figure, e.g. memory=80,bandwidth=3350,bf16=989=2/h."
)


def _read(value: Any, field: str) -> Prices:
    text = str(value)
    if "=" not in text:
        return units.price_per_h(text, field)
    found: dict[str, float] = {}
    figures: list[str] = []  # of a GPU that is described: its price stands behind the last one
    for part in text.split(","):
        name, _, price = (word.strip() for word in part.rpartition("="))
        if is_figure(name):
            figures.append(part.strip())
            continue
        name, figures = ",".join([*figures, name]), []
        if not name or ("=" in name and not is_figure(name.partition("=")[0])):
            raise UsageError(f"{field} {text}: {_RIGHT}")
        found[name] = units.price_per_h(price, f"{field} {name}:")
    if figures:
        raise UsageError(f"{field} {text}: {','.join(figures)} has no price; {_RIGHT}")
    return found


def _show(prices: Prices) -> str:
    if isinstance(prices, Mapping):
        return ",".join(f"{name}={price:g}/h" for name, price in prices.items())
    return f"{prices:g}/h"


PRICES = Kind(_read, _show)


def by_name(prices: Prices | None, asked: Sequence[Gpu], others: Sequence[Gpu]) -> dict[str, float]:
    """Return the price of a GPU by its full name.

    Args:
        prices: as they were given; one price is that of each GPU that is asked.
        asked: the GPUs that are compared: all have a price, or none has.
        others: further GPUs that may have one, those of what-ifs.

    Raises:
        UsageError: a GPU is none of these, or has no price, or two.
    """
    if prices is None:
        return {}
    if not isinstance(prices, Mapping):
        return {gpu.name: prices for gpu in asked}
    names = [gpu.name for gpu in (*asked, *others)]
    found: dict[str, float] = {}
    for given, price in prices.items():
        name = gpu_of(given, "--price").name
        if name not in names:
            raise UsageError(
                f"--price {given}={price:g}/h: {name} is not among the GPUs that are asked."
                f"{closest(name, list(dict.fromkeys(names)))}"
            )
        if name in found:
            raise UsageError(f"--price {given}={price:g}/h: {name} has a price already.")
        found[name] = price
    for gpu in asked:
        if gpu.name not in found:
            raise UsageError(
                f"--price {_show(prices)}: has none for {gpu.name}; each GPU of --gpu needs one, or"
                " one price is that of all, e.g. 3.5/h."
            )
    return found
