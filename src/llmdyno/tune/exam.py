"""lm-eval's tasks in a study: the winner's scores beside the baseline's, each on a fresh server.

What the baseline scored is kept in the study's folder, so that no second would-be winner makes it
answer again, and neither does a study that is resumed.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from llmdyno import store
from llmdyno.errors import ServerError, TargetError, UsageError
from llmdyno.knobs import Value
from llmdyno.processes.child import Child, end_of
from llmdyno.processes.secrets import redact
from llmdyno.processes.server import Server
from llmdyno.quality.lm_eval import Scores, compare, read, step
from llmdyno.results.quality import of_tasks
from llmdyno.tune import checked
from llmdyno.tune.candidates import describe
from llmdyno.tune.measure import start
from llmdyno.tune.runner import Runner

FOLDER = "lm-eval"  # of the study: what lm-eval has written, a folder an examination
_LOG = "lm-eval.log"
_LOOK_S = 1.0
_PROGRESS_S = 10.0


class Exam:
    """Has configs answer lm-eval's tasks.

    Args:
        runner: serves the configs.
        baseline: serves what they are compared with.
        folder: of the study.
        stack: engine and front of the configs, as in `checked.Checked`.
    """

    def __init__(
        self, runner: Runner, baseline: Runner, folder: Path, stack: tuple[str, str]
    ) -> None:
        self._runner, self._baseline, self._folder = runner, baseline, folder
        self._stack = stack
        self._lasted_s = 0.0  # the last examination

    def compare(self, winner: Mapping[str, Value]) -> ServerError | None:
        """Compare a winner's scores with the baseline's, unless that was done.

        Returns:
            How the winner's own server failed at that; None: it did not.
        """
        if self._known(winner):
            return None
        if self._runner.over_budget(1.0):
            self._runner.say("The budget is used up; lm-eval asks nothing.")
            return None
        names = ", ".join(self._runner.study.lm_eval)
        self._runner.say(f"lm-eval: {describe(winner)} and the baseline answer {names}.")
        fault = None
        try:
            before = self._of_baseline()
            try:
                after = self._scores(self._runner, winner, "winner")
            except ServerError as error:
                fault = error
                raise
            document = compare(before, after)
        except (UsageError, ServerError, TargetError) as error:
            document = {"tasks": [], "why": str(error)}
        kept = checked.read(self._folder)
        kept.examined = [one for one in kept.examined if not one.is_of(winner, self._stack)]
        engine, front = self._stack
        kept.examined.append(
            checked.Checked(config=dict(winner), document=document, engine=engine, front=front)
        )
        store.write_json(self._folder / checked.QUALITY, msgspec.to_builtins(kept))
        for line in of_tasks(document):
            self._runner.say(f"  {line}")
        return fault

    def left_s(self, winner: Mapping[str, Value]) -> float:
        """Return about how long compare() will take; nobody knows it before the first time."""
        return 0.0 if self._known(winner) else self._lasted_s

    def _known(self, config: Mapping[str, Value]) -> bool:
        examined = checked.read(self._folder).examined
        return any(
            one.is_of(config, self._stack) and not one.document.get("why") for one in examined
        )

    def _of_baseline(self) -> Scores:
        kept = checked.read(self._folder)
        if kept.scores is None:
            baseline = self._baseline
            kept.scores = self._scores(baseline, baseline.study.baseline, "baseline")
            store.write_json(self._folder / checked.QUALITY, msgspec.to_builtins(kept))
        return kept.scores

    def _scores(self, runner: Runner, config: Mapping[str, Value], name: str) -> Scores:
        """Serve a config, and have lm-eval ask it.

        Raises:
            UsageError: it cannot be built.
            ServerError: it does not start, or dies.
            TargetError: it speaks no protocol of lm-eval's, or lm-eval fails.
        """
        study = runner.study
        begin_s = time.monotonic()
        place = runner.folder / FOLDER / store.new_id(name)
        artifact = runner.stack.build(config, notify=runner.wait)
        with start(runner.stack, config, artifact, place, runner.wait) as server:
            asks = step(server.launch, study.model, study.lm_eval, study.lm_eval_args, place)
            log = place / _LOG
            with log.open("ab") as output:
                child = Child(asks, output.fileno(), lambda: end_of(log))
            try:
                with child:
                    self._wait(child, server, runner)
                    failure = None if child.succeeded() else child.failure()
            finally:
                said = log.read_text("utf-8", "replace").splitlines()
                store.write_atomically(log, "\n".join([*redact(said, {}), ""]).encode())
            if failure is not None:
                raise TargetError(f"lm-eval: {failure} Log: {log}")
        self._lasted_s = time.monotonic() - begin_s
        return read(place)

    def _wait(self, child: Child, server: Server, runner: Runner) -> None:
        """Wait until lm-eval ends.

        Raises:
            ServerError: the server has died, so that what lm-eval says of it is no news.
        """
        told_s = time.monotonic()
        ended = False
        while not ended:
            child.wait(_LOOK_S)
            ended = child.ended()
            if (gone := server.failure()) is not None:
                raise ServerError(gone.kind, f"while lm-eval asked it: {gone}")
            if time.monotonic() - told_s > _PROGRESS_S:
                told_s = time.monotonic()
                runner.wait("lm-eval: " + "".join(child.last_lines()[-1:]))
