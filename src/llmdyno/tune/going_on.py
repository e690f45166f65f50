"""What a study that goes on may add, what it keeps, and whether it is still where it began."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmdyno.errors import DynoError, UsageError
from llmdyno.flag import Field, all_fields
from llmdyno.knobs import Knob, show
from llmdyno.machine import environment
from llmdyno.store import JOURNAL, SUMMARY
from llmdyno.tune import blame, commands
from llmdyno.tune.entries import Event, key
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.spec import Study
from llmdyno.tune.spend import Spend

# What --resume may raise. All else is what the study is about.
EXTENDABLE = ("trials", "budget_s", "patience", "pairs", "max_pairs", "confirm_until")
_TIGHTENED = "confirm_until"  # less of it is more work
_MEMORY_SHARE = 0.02  # what a kernel keeps for itself varies from boot to boot


def extended(study: Study, asked: Study, given: Mapping[str, Any], name: str) -> Study:
    """Return a study with more trials, pairs or time, as its user asks.

    Args:
        study: as it was.
        asked: a study of the same flags over the defaults, for their values.
        given: the flags, by name.
        name: of the study.

    Raises:
        UsageError: a flag asks for something else than the study began with, or for pairs at most
            where their number is given.
    """
    changes: dict[str, Any] = {}
    for field in all_fields(Study):
        if given.get(field.name) is None:
            continue
        was, wanted = _value(study, field), _value(asked, field)
        if was == wanted:
            continue
        if field.attribute not in EXTENDABLE:
            fields = {one.attribute: one.option for one in all_fields(Study)}
            more = ", ".join(fields[one] for one in EXTENDABLE if one != _TIGHTENED)
            raise UsageError(
                f"{field.option} {_show(field, wanted)}: the study {name} began with"
                f" {_show(field, was)}, and keeps it; leave it out, or begin another study. Only"
                f" {more} can be raised, and {fields[_TIGHTENED]} lowered."
            )
        tightened = field.attribute == _TIGHTENED
        if was is not None and (_amount(study, wanted) < _amount(study, was)) != tightened:
            way = "lowered, not raised" if tightened else "raised, not lowered"
            raise UsageError(
                f"{field.option} {_show(field, wanted)}: the study {name} has"
                f" {_show(field, was)}; it can be {way}."
            )
        changes[field.attribute] = wanted
    # replace() would check again what cannot have changed; the new values are checked in `asked`.
    raised = Study(**{one: getattr(study, one) for one in study.__struct_fields__} | changes)
    most = given.get("max_pairs")
    if most is not None and raised.pairs_fixed:
        raise UsageError(
            f"--max-pairs {most}: the study {name} has --pairs {raised.pairs}, which says how many"
            " there are; raise --pairs, or say with --confirm-until when they end."
        )
    return raised


def changes(ledger: Ledger, study: Study) -> dict[str, Any]:
    """Return what a study that goes on asks for beyond what its ledger knows, by field."""
    was = ledger.spec
    return {
        name: getattr(study, name)
        for name in EXTENDABLE
        if getattr(study, name) != getattr(was, name)
    }


def told(study: Study, attribute: str) -> str:
    """Say what a study has now of what can be raised: "trials 30"."""
    field = next(one for one in all_fields(Study) if one.attribute == attribute)
    return f"{field.name} {_show(field, _value(study, field))}"


def check_knobs(ledger: Ledger, knobs: Sequence[Knob], version: str | None) -> None:
    """Refuse to go on with a config that needs a knob which the engine no longer has.

    One that was measured could win, and nothing could serve it; nor what is to be measured again.
    What has failed for good, was refused, or was ended early is no would-be winner.

    Args:
        ledger: of the study.
        knobs: that engine and front have now.
        version: the engine's.

    Raises:
        UsageError: names the first such knob.
    """
    known = {knob.name for knob in knobs}
    baseline = ledger.spec.baseline
    configs = [(step.config, "was measured") for step in ledger.steps if step.state == "measured"]
    configs += [
        (step.config, "is to be measured")
        for step in ledger.steps
        if blame.is_open(ledger, step, baseline, knobs)
    ]
    configs += [(out.config, "is to be measured") for out in ledger.out]
    for config, what in configs:
        for name in (one for one in config if one not in known):
            engine = " ".join(one for one in (ledger.spec.engine, version) if one)
            raise UsageError(
                f"{ledger.path.parent}: {name}={show(config[name])} {what}, and {engine} has no"
                " such knob. Go on with the version that has it, or begin another study; dyno"
                " report still reads this one."
            )


def take_back_gone(ledger: Ledger, say: Callable[[str], None]) -> None:
    """Write down which runs that a study is decided by are gone, so that they are measured again.

    Of a trial, a check or a reference its line in the ledger is enough.

    Args:
        ledger: of the study.
        say: is told which they are.
    """
    folder = ledger.path.parent
    gone = [
        step
        for step in ledger.steps
        if step.state == "measured"
        and step.run
        and step.phase not in {"trial", "check", "reference"}
        and not all((folder / step.run / name).exists() for name in (JOURNAL, SUMMARY))
    ]
    if not gone:
        return
    names = ", ".join(step.run for step in gone)
    void = tuple(dict.fromkeys(map(key, gone)))
    ledger.append(Event(kind="gone", why=f"not in the folder any more: {names}", void=void))
    say(f"! Not in {folder} any more, and measured again: {names}.")


def _amount(study: Study, value: float | Spend) -> float:
    """Return a number to compare; of a budget its seconds of a machine, whatever its form."""
    return value.machine_s(study.price_per_h) if isinstance(value, Spend) else value


def _value(study: Study, field: Field) -> Any:
    if field.attribute == "users" and study.load.is_open:
        return None  # it has none, and the field its default
    for part in (study, study.load, study.workload):
        if field.attribute in part.__struct_fields__:
            return getattr(part, field.attribute)
    raise AssertionError(field.name)


def _show(field: Field, value: Any) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):  # words of a command line, levels, SLOs
        return " ".join(str(getattr(one, "expr", one)) for one in value)
    return field.flag.kind.show(value)


def check_place(
    ledger: Ledger, here: dict[str, Any], version: str | None, *, elsewhere: bool
) -> str:
    """Refuse to go on in another place than before, or return in what it is another one.

    Args:
        ledger: of the study.
        here: the machine, as environment.describe() has it.
        version: of the engine.
        elsewhere: whether it may go on in another place.

    Raises:
        UsageError: it is another place, and it may not.
    """
    unlike = "; ".join(moved(ledger.environment, ledger.engine_version, here, version))
    if unlike and not elsewhere:
        raise UsageError(
            f"{ledger.path.parent}: this is not where it was measured: {unlike}. What was measured"
            " there cannot be compared with what is measured here. Begin another study, or go on"
            f" all the same with: {commands.resume(ledger.path.parent, '--elsewhere')}; every table"
            " will say so."
        )
    return unlike


def check_version(
    ledger: Ledger,
    version: str | None,
    *,
    elsewhere: bool,
    say: Callable[[str], None],
    partner: Ledger | None = None,
) -> None:
    """Find out whether the engine was replaced by another version while the study runs.

    Args:
        ledger: of the study.
        version: of the engine; None: it is not known.
        elsewhere: whether it may go on with another one.
        say: is told that it does.
        partner: another ledger of the study, with which it moves.

    Raises:
        DynoError: it was replaced, and the study may not go on so.
    """
    was = ledger.engine_version
    if was is None or version is None or was == version:
        return
    why = f"the engine's version: {was} before, {version} after"
    if not elsewhere:
        raise DynoError(
            f"{why}: it was replaced while the study ran. Put {was} back and go on with:"
            f" {commands.resume(ledger.path.parent)}; or go on with {version}:"
            f" {commands.resume(ledger.path.parent, '--elsewhere')}; every table will say so."
        )
    move(ledger, why, engine_version=version)
    if partner is not None:
        move(partner, why)
    say(f"! Another place than before: {why}.")


def move(
    ledger: Ledger,
    why: str,
    *,
    environment: dict[str, Any] | None = None,
    engine_version: str | None = None,
) -> None:
    """Write down that a study goes on in another place; what is not given is as it was."""
    ledger.append(
        Event(
            kind="moved",
            why=why,
            environment=environment or ledger.environment,
            engine_version=engine_version or ledger.engine_version,
        )
    )


def moved(
    began: Mapping[str, Any],
    began_version: str | None,
    now: Mapping[str, Any],
    version: str | None,
    *,
    another_host: bool = False,
) -> list[str]:
    """Say in which facts that a result depends on the place is not the one that it was.

    Facts that the study did not take down when it began tell nothing.

    Args:
        began: the machine where it began, as environment.describe() has it.
        began_version: the engine's there; None: it is not known.
        now: the machine that is asked about.
        version: the engine's there.
        another_host: whether it is another machine of the same kind that is wanted: its GPUs are
            others, and it must run the same llmdyno.
    """
    known = {name: value for name, value in now.items() if name in began}
    old, new = began.get("memory_bytes"), known.get("memory_bytes")
    if old and new and abs(new / old - 1) < _MEMORY_SHARE:
        known["memory_bytes"] = old
    if another_host:
        known["gpus"] = [{**gpu, "id": None} for gpu in known.get("gpus", [])]
    else:  # a result is read from the journal by any version
        known["llmdyno"] = began.get("llmdyno")
    found = environment.differences(began, known)
    if began_version and version and began_version != version:
        found.insert(0, f"the engine's version: {began_version} before, {version} after")
    return found
