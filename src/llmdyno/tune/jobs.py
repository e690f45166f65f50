"""A job of a team: as it stands in the database, and as a worker has it."""

import msgspec

from llmdyno.knobs import Value
from llmdyno.spec import Load
from llmdyno.tune.entries import Phase


class Posted(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it stands in the database."""

    phase: Phase
    number: int
    config: dict[str, Value]
    load: Load
    races: bool


class Leased(msgspec.Struct, frozen=True):
    """A job that a worker has."""

    id: int
    study: str  # that it is of, a combination of the whole or the whole itself
    posted: Posted
