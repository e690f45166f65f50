"""The combinations of a study over engines and fronts: which there are, and what each is asked.

Each is a study of its own, with the knobs, the candidates and the searched names that are its own.
One that cannot work here is left out, with the reason; what the user wrote wrong is refused.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import msgspec

from llmdyno import plugins
from llmdyno.errors import UsageError
from llmdyno.fronts import check_load
from llmdyno.knobs import parse_settings
from llmdyno.serve.engine_arguments import arguments_of, belongs
from llmdyno.serve.stack import Stack, load_stack
from llmdyno.tune import objectives
from llmdyno.tune.candidates import describe
from llmdyno.tune.search import name_of
from llmdyno.tune.spec import Study
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


def combinations(study: Study) -> list[Combination]:
    """Return every engine behind every front of a study, in the order in which they are named.

    Raises:
        UsageError: no combination can work, there is no such engine or front, one is named twice,
            or a knob, a candidate or a searched name belongs to none.
    """
    _check_names(study)
    objectives.check(study)
    found = [_fitted(study, engine, front) for engine, front in _pairs(study)]
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
    knobs = {
        knob.name: knob
        for kind, names in (("engines", study.engines), ("fronts", study.fronts))
        for name in reversed(names)
        for knob in plugins.load(kind, name).knobs
    }
    return dict(parse_settings(list(settings), tuple(knobs.values()), whole=False))


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
        if not any(belongs(word, name) for name in study.engines):
            raise UsageError(
                f"--engine-arg {word}: is a word of one engine's command line, and"
                f" {len(study.engines)} are compared; say whose, as in {study.engines[0]}:{word}."
            )
    for name in study.engines if study.engine_args else ():
        load_stack(name, "native", study.model, words_of(study, name))


def _fitted(study: Study, engine: str, front: str) -> Stack | Combination:
    """Return the stack if it can work here with all defaults, or why it cannot."""
    try:
        stack = load_stack(engine, front, study.model, words_of(study, engine))
        stack.require_engine()
        stack.check({})
        stack.check_served({})
        check_load(stack.front, {}, streams=True)
    except UsageError as error:
        return Combination(engine=engine, front=front, why=str(error))
    return stack


def _refuse_foreign(study: Study, works: Sequence[Stack]) -> None:
    """Refuse what no combination that works can take: it would silently go nowhere."""
    names = {knob.name for stack in works for knob in stack.knobs}
    searched = [name_of(asked) for asked in study.search]
    for what, given in (("[baseline]", study.baseline), ("--search", searched)):
        for name in given:
            if name not in names:
                raise UsageError(f"{what} {name}: is a knob of no combination that can work here.")
    for number, candidate in enumerate(study.candidates, 1):
        if not any(candidate.keys() <= {knob.name for knob in s.knobs} for s in works):
            raise UsageError(
                f"candidate {number}: no combination has all of its knobs"
                f" ({describe(candidate)}); each candidate is for one engine and front."
            )


def words_of(study: Study, engine: str) -> tuple[str, ...]:
    """Return what --engine-arg gives to one of the study's engines."""
    return arguments_of(study.engine_args, engine) if len(study.engines) > 1 else study.engine_args


def _of_its_own(study: Study, stack: Stack, engine: str, front: str) -> Combination:
    names = {knob.name for knob in stack.knobs}
    baseline = _known(study.baseline, names)
    candidates = tuple(one for one in study.candidates if one.keys() <= names)
    own = tuple(asked for asked in study.search if name_of(asked) in names)
    searches = bool(own or candidates or not study.search)
    of_it = msgspec.structs.replace(
        study,
        engine=engine,
        front=front,
        engine_args=words_of(study, engine),
        baseline=baseline,
        candidates=candidates,
        search=own,
        trials=max(1, len(candidates)),
        budget_s=None,  # the whole study has one
    )
    return Combination(engine=engine, front=front, study=of_it, searches=searches)


def _known(config: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name in names}
