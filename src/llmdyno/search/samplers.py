"""The searches by name, as `--sampler` offers them."""

from collections.abc import Callable, Mapping
from typing import Any

from llmdyno.search.own import OwnSearch
from llmdyno.search.simple import GridSearch, HillClimb, RandomSearch
from llmdyno.search.tpe import TpeSearch

SAMPLERS: Mapping[str, Callable[..., Any]] = {
    "own": OwnSearch,
    "tpe": TpeSearch,
    "random": RandomSearch,
    "hill-climb": HillClimb,
    "grid": GridSearch,
}
