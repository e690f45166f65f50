"""The quality gate of a study: what the winner says beside what the baseline says.

Baseline and winner are asked the same prompts, each on a fresh server, one after the other: there
may be room for one only. What they said is kept in the study's folder, so that a study that is
resumed asks nothing twice; one that went on in another place asks the baseline there.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from llmdyno import store
from llmdyno.errors import ServerError, TargetError, UsageError
from llmdyno.knobs import Value
from llmdyno.quality.answers import Answers
from llmdyno.quality.asks import TOKENS_MAX, ask_server
from llmdyno.quality.gate import SCHEMA, admits, judge
from llmdyno.results.configs import described
from llmdyno.results.quality import sentences
from llmdyno.tune.candidates import changed, effective
from llmdyno.tune.checked import Checked, in_one_place, keep, read, write
from llmdyno.tune.exam import Exam
from llmdyno.tune.measure import start
from llmdyno.tune.runner import Runner
from llmdyno.wire.target import parse_url

FOLDER = "quality"  # of the servers that are asked
SECONDS_MIN, SECONDS_MAX = (
    2.0,
    60.0,
)  # for the baseline to be asked in; between them, a run's length


class Across(NamedTuple):
    """How a study over several engines or fronts has its gate."""

    baseline: Runner  # has what all are compared with
    folder: Path  # of the study
    stack: tuple[str, str]  # engine and front of the configs that are compared


class Gate:
    """Compares configs with the baseline by what they answer.

    Args:
        runner: serves the configs.
        across: the baseline is another engine's; None: it is the runner's.
    """

    def __init__(self, runner: Runner, across: Across | None = None) -> None:
        self._runner = runner
        self._baseline = runner if across is None else across.baseline
        self._folder = runner.folder if across is None else across.folder
        self._stack = ("", "") if across is None else across.stack
        self._exam = Exam(runner, self._baseline, self._folder, self._stack)
        self._fault: ServerError | None = None  # of the last config that was asked

    def admits(self, config: Mapping[str, Value]) -> bool:
        """Whether a config may win: its answers are asked for if a limit was set on them.

        A config that has the altering settings of one that was refused is refused, too.
        """
        limit = self._runner.study.altered_output_max
        altering = self._altering(config)
        if limit is None or not altering:
            return True
        for one in read(self._folder).checked:
            alike = (one.engine, one.front) == self._stack
            if one.refused and alike and self._altering(one.config) == altering:
                return False
        document = self._check(config)
        if admits(document, limit):
            return True
        self._keep(config, document, refused=True)
        why = (sentences(document) or ["its answers could not be compared."])[0]
        self._runner.say(f"  {self._runner.named(config)} may not win: {why}")
        return False

    def after_confirmation(self, winner: Mapping[str, Value]) -> ServerError | None:
        """Compare the winner's answers with the baseline's, if that is wanted and was not done.

        Returns:
            How the winner's own server failed at that; None: it did not.
        """
        if not self._runner.study.quality:
            return None
        if not self._known(winner) and self._runner.over_budget(1.0):
            document = _nothing("the budget was used up before the answers could be asked for.")
            if not any(one.is_of(winner, self._stack) for one in read(self._folder).checked):
                self._keep(winner, document)  # else why it failed before says more
            self._runner.say(f"  {sentences(document)[0]}")
            return None
        self._fault = None
        for line in sentences(self._check(winner))[:2]:
            self._runner.say(f"  {line}")
        return self._fault

    def examine(self, winner: Mapping[str, Value]) -> ServerError | None:
        """Have lm-eval compare the winner with the baseline, if that is wanted and was not done.

        Returns:
            How the winner's own server failed at that; None: it did not.
        """
        return self._exam.compare(winner) if self._runner.study.lm_eval else None

    def left_s(self, winner: Mapping[str, Value]) -> float:
        """Return about how long after_confirmation() will take."""
        known = not self._runner.study.quality or self._known(winner)
        return 0.0 if known else asks_s(self._runner)

    def exam_left_s(self, winner: Mapping[str, Value]) -> float:
        """Return about how long examine() will take; nobody knows it before the first time."""
        return self._exam.left_s(winner)

    def _altering(self, config: Mapping[str, Value]) -> dict[str, Value | None]:
        """Return what may change the tokens: settings that are not the baseline's, another engine.

        Of another engine the settings are held against its own baseline.
        """
        knobs = self._runner.stack.knobs
        altering = {knob.name for knob in knobs if knob.alters_output}
        before, after = effective(self._runner.study.baseline, knobs), effective(config, knobs)
        found = {name: after.get(name) for name in changed(before, after) if name in altering}
        if self._baseline is self._runner:
            return found
        engine = self._runner.stack.engine.name
        return found if engine == self._baseline.stack.engine.name else {**found, "engine": engine}

    def _known(self, config: Mapping[str, Value]) -> dict[str, Any] | None:
        checked = read(self._folder).checked
        found = (one.document for one in checked if one.is_of(config, self._stack))
        return next((document for document in found if not document.get("why")), None)

    def _check(self, config: Mapping[str, Value]) -> dict[str, Any]:
        """Return the document of a config's comparison; "why" says why there is none.

        Raises:
            DynoError: an engine was replaced while the study ran.
        """
        known = self._known(config)
        if known is not None:
            return known
        self._runner.say(
            f"Quality: the answers of {self._runner.named(config)} beside the baseline's."
        )
        try:
            baseline = in_one_place(self._baseline, self._runner, self._of_baseline)
            document = judge(baseline, self._ask_other(config, baseline))
        except (UsageError, ServerError, TargetError) as error:
            document = _nothing(str(error))
        self._keep(config, document)
        return document

    def _of_baseline(self) -> Answers:
        """Return what the baseline has answered, or answers now, in the study's place."""
        kept, runner = read(self._folder), self._baseline
        place = runner.ledger.place
        if kept.baseline is None or kept.baseline_place != place:
            with runner.ledger.charged("the baseline was asked for its answers"):
                kept.baseline = self._ask(runner.study.baseline, None)
            kept.baseline_place = place
            write(self._folder, kept)
        return kept.baseline

    def _ask_other(self, config: Mapping[str, Value], baseline: Answers) -> Answers:
        """Ask a config what the baseline was asked, and remember if its server fails."""
        why = f"{described(config)} was asked for its answers"
        try:
            with self._runner.ledger.charged(why):
                return self._ask(config, baseline)
        except ServerError as error:
            self._fault = error
            raise

    def _keep(
        self, config: Mapping[str, Value], document: dict[str, Any], *, refused: bool = False
    ) -> None:
        engine, front = self._stack
        new = Checked(
            config=dict(config), document=document, refused=refused, engine=engine, front=front
        )
        keep(self._folder, "checked", new)

    def _ask(self, config: Mapping[str, Value], like: Answers | None) -> Answers:
        """Serve a config and ask it; what the baseline was asked, if that is known.

        Raises:
            UsageError: it cannot be built.
            ServerError: it does not start.
            TargetError: it does not answer.
        """
        runner = self._baseline if like is None else self._runner
        place = runner.folder / FOLDER / store.new_id("baseline" if like is None else "winner")
        artifact = runner.stack.build(config, notify=runner.wait)
        duration_s = runner.study.load.duration_s
        with start(runner.stack, config, artifact, place, runner.wait) as server:
            launch = server.launch
            return asyncio.run(
                ask_server(
                    parse_url(launch.url),
                    endpoint=launch.endpoint,
                    model=launch.model,
                    tokens_max=TOKENS_MAX if like is None else like.tokens_max,
                    prompts=[] if like is None else like.prompts,
                    again=like is None,
                    seconds_max=min(SECONDS_MAX, max(SECONDS_MIN, duration_s))
                    if like is None
                    else None,
                    notify=runner.wait,
                )
            )


def _nothing(why: str) -> dict[str, Any]:
    """Return the document of a comparison that was not made."""
    return {"schema": SCHEMA, "comparison": None, "verdict": None, "why": why}


def asks_s(runner: Runner) -> float:
    """Return about how long it takes to ask the baseline and a winner, each on a fresh server."""
    costs = runner.costs()
    asked_s = min(SECONDS_MAX, max(SECONDS_MIN, runner.study.load.duration_s))
    return 2 * (costs.build_s + costs.start_s + asked_s)
