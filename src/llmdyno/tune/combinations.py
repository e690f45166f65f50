"""The combinations of a study over engines and fronts: which there are, and what each is asked.

Each is a study of its own, with the knobs, the candidates and the searched names that are its own.
One that cannot work here is left out, with the reason; what the user wrote wrong is refused.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import msgspec

from llmdyno import plugins
from llmdyno.errors import UsageError, nearest
from llmdyno.fronts import check_load
from llmdyno.knobs import Knob, check, parse_settings
from llmdyno.results.configs import described
from llmdyno.serve.engine_arguments import check_arguments
from llmdyno.serve.stack import Stack, load_stack
from llmdyno.tune import objectives
from llmdyno.tune.search import name_of
from llmdyno.tune.spec import Study
from llmdyno.tune.whose import is_for, own_knobs, own_words, parted
from llmdyno.units import counted


class Combination(msgspec.Struct, frozen=True, kw_only=True):
    """An engine behind a front, as a study over several sees it."""

    engine: str
    front: str
    study: Study | None = None  # of it alone; None: it cannot work here
    searches: bool = True  # False: no knob of its own is to be searched, it has its baseline only
    why: str | None = None  # why it is left out

    @property
    def name(self) -> str:
        """What it is called: "vllm behind triton"."""
        return f"{self.engine} behind {self.front}"

    @property
    def folder(self) -> str:
        """Its folder's name within the study's."""
        return f"{self.engine}+{self.front}"


def combinations(study: Study, *, here: bool = True) -> list[Combination]:
    """Return every engine behind every front of a study, in the order in which they are named.

    Args:
        study: what is tuned.
        here: it will run on this machine, so the engines must be installed.

    Raises:
        UsageError: no combination can work, there is no such engine or front, one is named twice,
            a knob, a candidate or a searched name belongs to none, or nothing is to be tried.
        HomeError: where an engine is installed was named wrong.
    """
    _check_names(study)
    objectives.check(study)
    found = [_fitted(study, engine, front, here=here) for engine, front in _pairs(study)]
    works = [one for one in found if isinstance(one, Stack)]
    if not works:
        # Why two fronts cannot have an engine that is not installed is the same sentence.
        whys = dict.fromkeys(one.why for one in found if isinstance(one, Combination))
        raise UsageError(f"no combination can work here: {' '.join(str(why) for why in whys)}")
    _refuse_foreign(study, works)
    made = [
        one if isinstance(one, Combination) else _of_its_own(study, one, engine, front)
        for one, (engine, front) in zip(found, _pairs(study), strict=True)
    ]
    _refuse_idle(made)
    least = sum(least_trials(one) for one in made)
    if study.trials < least:
        raise UsageError(
            f"--trials {study.trials}: {counted(len(works), 'combination')} with their candidates"
            f" take at least {least}."
        )
    return made


def least_trials(of: Combination) -> int:
    """Return how many trials a combination has at least: one, or all its candidates."""
    if of.study is None or not of.searches:
        return 0
    return max(1, len(of.study.candidates))


def read_settings(study: Study, settings: Sequence[str]) -> dict[str, Any]:
    """Return the knobs that --set gives to the baselines, each read as the knob that it names.

    Raises:
        UsageError: a knob belongs to no combination, or its value cannot be read.
    """
    _check_names(study)
    by_owner = _knobs_by_owner(study)
    named_first_wins = (*reversed(study.engines), *reversed(study.fronts))
    of_all = {knob.name: knob for name in named_first_wins for knob in by_owner[name]}
    read: dict[str, Any] = {}
    for owner in ("", *by_owner):
        own = [rest for said, rest in (parted(one, by_owner) for one in settings) if said == owner]
        knobs = by_owner[owner] if owner else tuple(of_all.values())
        try:
            found = parse_settings(own, knobs, whole=False)
        except UsageError as error:
            said = str(error)
            if owner:  # as the user wrote it
                said = said.replace("--set ", f"--set {owner}:", 1)
            raise UsageError(said) from None
        read |= {f"{owner}:{name}" if owner else name: value for name, value in found.items()}
    return read


def _pairs(study: Study) -> list[tuple[str, str]]:
    return list(product(study.engines, study.fronts))


def _check_names(study: Study) -> None:
    for flag, kind, names in (
        ("--engine", "engines", study.engines),
        ("--front", "fronts", study.fronts),
    ):
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"{flag} {','.join(names)}: names {name} twice; once is enough.")
            plugins.load(kind, name)
    for word in study.engine_args if len(study.engines) > 1 else ():
        if not parted(word, study.engines)[0]:
            raise UsageError(
                f"--engine-arg {word}: is a word of one engine's command line, and"
                f" {len(study.engines)} are compared; say whose, as in {study.engines[0]}:{word}."
            )
    for name in study.engines:
        check_arguments(plugins.load("engines", name), study.model, words_of(study, name))


def _fitted(study: Study, engine: str, front: str, *, here: bool) -> Stack | Combination:
    """Return the stack if it can work here with all defaults, or why it cannot."""
    try:
        stack = load_stack(engine, front, study.model, words_of(study, engine))
        if here:
            stack.require_engine()
        stack.check({})
        stack.check_served({})
        check_load(stack.front, {}, streams=True)
    except UsageError as error:
        return Combination(engine=engine, front=front, why=str(error))
    return stack


def _refuse_foreign(study: Study, works: Sequence[Stack]) -> None:
    """Refuse what no combination that works can take: it would silently go nowhere.

    What is said of an engine or a front that is left out waits for a machine that has it, but it
    must be a knob of it.
    """
    owners = _owners(study)
    kinds = [_kind(stack) for stack in works]
    by_owner = _knobs_by_owner(study)
    at_work = {name for mine, _ in kinds for name in mine}
    left = {name: knobs for name, knobs in by_owner.items() if name not in at_work}
    searched = [name_of(asked) for asked in study.search]
    for what, given in (("[baseline]", study.baseline), ("--search", searched)):
        for word in given:
            owner, name = parted(word, owners)
            if owner in left:
                _check_waiting(f"{what} {word}", owner, name, left[owner])
            elif not any(is_for(word, owners, *kind) for kind in kinds):
                raise UsageError(f"{what} {word}: is a knob of no combination that can work here.")
    _refuse_values(study, works)
    waiting = [
        (one, {knob.name for owner in one for knob in by_owner[owner]})
        for one in _pairs(study)
        if left.keys() & {*one}
    ]
    for number, candidate in enumerate(study.candidates, 1):
        said = [parted(name, owners) for name in candidate]
        for owner, name in said:
            if owner in left:
                what = f"candidate {number}: {owner}:{name}"
                _check_waiting(what, owner, name, left[owner])
        waits = any(owner in left for owner, _ in said)
        if not any(
            all(is_for(name, owners, *kind) for name in candidate)
            for kind in [*kinds, *(waiting if waits else [])]
        ):
            raise UsageError(
                f"candidate {number}: no combination has all of its knobs"
                f" ({described(candidate)}); each candidate is for one engine and front."
            )


def _knobs_by_owner(study: Study) -> dict[str, tuple[Knob, ...]]:
    """Return the knobs of each engine and each front, which need not be installed."""
    return {
        name: tuple(plugins.load(kind, name).knobs)
        for kind, names in (("engines", study.engines), ("fronts", study.fronts))
        for name in names
    }


def _check_waiting(what: str, owner: str, name: str, knobs: Sequence[Knob]) -> None:
    """Refuse a name that is no knob of the engine or front, left out here, that it is said of."""
    names = [knob.name for knob in knobs]
    if name not in names:
        raise UsageError(f"{what}: is no knob of {owner}.{nearest(name, names)}")


def _refuse_values(study: Study, works: Sequence[Stack]) -> None:
    """Refuse a value that a combination's knob does not take."""
    owners = _owners(study)
    for stack in works:
        mine, names = _kind(stack)
        fit = [one for one in study.candidates if all(is_for(n, owners, mine, names) for n in one)]
        for config in ({}, *fit):
            given = {**study.baseline, **config}
            try:
                check(own_knobs(given, owners, mine, names), stack.knobs)
            except UsageError as error:
                named = str(error).partition("=")[0]
                for_all = named in given and not any(f"{one}:{named}" in given for one in mine)
                whose = (
                    f" What is meant for one of them says whose it is, as in {mine[0]}:KNOB=VALUE."
                )
                raise UsageError(f"{' behind '.join(mine)}: {error}{whose * for_all}") from None


def _refuse_idle(made: Sequence[Combination]) -> None:
    """Refuse a study of which nothing is left that could be tried."""
    if any(one.searches for one in made if one.study is not None):
        return
    whys = " ".join(
        dict.fromkeys(f"{one.name} is left out: {one.why}" for one in made if one.study is None)
    )
    raise UsageError(
        "--search, [[candidates]]: name nothing that a combination that can work here would try."
        f" {whys}".rstrip()
    )


def words_of(study: Study, engine: str) -> tuple[str, ...]:
    """Return what --engine-arg gives to one of the study's engines."""
    several = len(study.engines) > 1
    return own_words(study.engine_args, study.engines, engine) if several else study.engine_args


def _of_its_own(study: Study, stack: Stack, engine: str, front: str) -> Combination:
    kind = _owners(study), *_kind(stack)
    candidates = tuple(
        own_knobs(one, *kind)
        for one in study.candidates
        if all(is_for(name, *kind) for name in one)
    )
    own = tuple(
        parted(asked, kind[0])[1] for asked in study.search if is_for(name_of(asked), *kind)
    )
    searches = bool(own or candidates or not study.search)
    of_it = msgspec.structs.replace(
        study,
        engine=engine,
        front=front,
        engine_args=words_of(study, engine),
        baseline=own_knobs(study.baseline, *kind),
        candidates=candidates,
        search=own,
        trials=max(1, len(candidates)),
        budget_s=None,  # the whole study has one
    )
    return Combination(engine=engine, front=front, study=of_it, searches=searches)


def _owners(study: Study) -> tuple[str, ...]:
    return (*study.engines, *study.fronts)


def _kind(stack: Stack) -> tuple[tuple[str, str], set[str]]:
    """Return whose knobs a stack has, and their names."""
    return _mine(stack), {knob.name for knob in stack.knobs}


def _mine(stack: Stack) -> tuple[str, str]:
    return stack.engine.name, stack.front.name
