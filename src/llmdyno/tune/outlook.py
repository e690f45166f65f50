"""How a study stands between two steps, as the terminal and the dashboard tell it."""

from datetime import datetime, timedelta

import msgspec

from llmdyno.results.wording import seconds, short
from llmdyno.tune.entries import Step


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """What is tried next and why, the best so far, and how long it will go on."""

    number: int  # of the next trial, from 1
    trials: int  # that there are to be
    config: str  # of the next trial, in words
    why: str  # it is tried, in words; empty: the search does not say
    best: Step | None  # the best so far, which may be the baseline; None: nothing has a value
    times: float | None  # its value, divided by the baseline's; None: there is none
    left_s: float | None  # until the study ends, about; None: it is a part of another one
    unit: str = ""  # of the best's value
    where: str = ""  # on what part of the machine it is measured; empty: on all of it


class Proving(msgspec.Struct, frozen=True, kw_only=True):
    """What of the proof is measured next, and how long the study will go on."""

    comes: str  # in words: "pair 2 of 3"
    left_s: float  # until the study ends, about


def proving_sentence(proving: Proving, now: datetime) -> str:
    """Say before a step of the proof what it is, and when the study will end.

    Args:
        proving: of the study.
        now: in local time, as the end is told.
    """
    return f"next, {proving.comes}; {_end(proving.left_s, now)}"


def sentences(outlook: Outlook, now: datetime) -> list[str]:
    """Say before a trial how the study stands, and what is tried next and why.

    Args:
        outlook: of the study.
        now: in local time, as the end is told.
    """
    stands = []
    if outlook.best is not None:
        stands.append(f"best so far {_standing(outlook)}")
    if outlook.left_s is not None:
        stands.append(_end(outlook.left_s, now))
    why = f" ({outlook.why})" if outlook.why else ""
    where = f" on {outlook.where}" if outlook.where else ""
    comes = f"next, {outlook.number} of {outlook.trials}{where}: {outlook.config}{why}"
    return ["; ".join(stands), comes] if stands else [comes]


def _end(left_s: float, now: datetime) -> str:
    end = now + timedelta(seconds=left_s)
    day = "" if end.date() == now.date() else f"{end:%a} "
    return f"ends about {day}{end:%H:%M}, in {seconds(left_s)}"


def _standing(outlook: Outlook) -> str:
    """Say what the best so far has reached, and by which trial."""
    best, times = outlook.best, outlook.times
    assert best is not None, "whoever calls has one"
    value = "no value" if best.value is None else f"{short(best.value)} {outlook.unit}".rstrip()
    missed = ", SLO missed" if best.slo_met is False else ""
    if best.phase != "trial":
        return f"{value} (the baseline{missed})"
    ratio = "" if times is None else f", {times:.2f}x the baseline"
    return f"{value} (trial {best.number + 1}{ratio}{missed})"
