"""lm-eval's tasks in a study: the winner's scores beside the baseline's, each on a fresh server.

What the baseline scored is kept in the study's folder, so that no second would-be winner makes it
answer again, and neither does a study that is resumed; one that went on in another place asks it
there. A task at which lm-eval failed is asked once more when the study goes on. What an examination
takes is charged to the study, and a budget ends it.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from llmdyno import store
from llmdyno.errors import ServerError, TargetError, UsageError
from llmdyno.knobs import Value
from llmdyno.processes.child import Child, end_of
from llmdyno.processes.launch import Step
from llmdyno.processes.secrets import redact
from llmdyno.processes.server import Server
from llmdyno.quality.likelihoods import INSTEAD, compared, comparing, missing
from llmdyno.quality.lm_eval import (
    Scores,
    compare,
    counts,
    is_chat,
    openai_url,
    read,
    step,
    tokenizer_of,
)
from llmdyno.results.configs import described
from llmdyno.results.quality import of_tasks
from llmdyno.tune import checked
from llmdyno.tune.measure import start
from llmdyno.tune.runner import Runner
from llmdyno.tune.spec import Study

FOLDER = "lm-eval"  # of the study: what lm-eval has written, a folder an examination
_LOG = "lm-eval.log"
_LOOK_S = 1.0
_PROGRESS_S = 10.0
_USED_UP = "the budget was used up"


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
        # Tasks that have failed since this process began, whoever was asked.
        self._failed: set[str] = set()

    def compare(self, winner: Mapping[str, Value]) -> ServerError | None:
        """Compare a winner's scores with the baseline's, unless that was done.

        Returns:
            How the winner's own server failed at that; None: it did not.

        Raises:
            DynoError: an engine was replaced while the study ran.
        """
        if self._known(winner):
            return None
        if self._runner.over_budget(1.0):
            document = {"tasks": [], "why": f"{_USED_UP} before it could ask."}
            if not self._examined(winner):  # why it failed before says more
                self._keep(winner, document)
            self._runner.say(f"  {of_tasks(document)[0]}")
            return None
        names = ", ".join(self._runner.study.lm_eval)
        self._runner.say(f"lm-eval: {self._runner.named(winner)} and the baseline answer {names}.")
        fault = after = None
        try:
            before = checked.in_one_place(self._baseline, self._runner, self._of_baseline)
            try:
                after, fault = self._of_winner(winner)
            except ServerError as error:
                fault = error
                raise
            document = compare(before, after)
        except (UsageError, ServerError, TargetError) as error:
            document = {"tasks": [], "why": str(error)}
        self._keep(winner, document, after)
        for line in of_tasks(document):
            self._runner.say(f"  {line}")
        return fault

    def left_s(self, winner: Mapping[str, Value]) -> float:
        """Return about how long compare() will take; nobody knows it before the first time."""
        return 0.0 if self._known(winner) else self._lasted_s

    def _known(self, config: Mapping[str, Value]) -> bool:
        """Tell whether a config was compared, and no task is to be asked once more."""
        found = [one for one in self._examined(config) if not one.document.get("why")]
        if not found:
            return False
        own, kept = found[0], checked.read(self._folder)
        places = self._runner.ledger.place, self._baseline.ledger.place
        if own.scores is None or kept.scores is None or places != (own.place, kept.scores_place):
            return True  # what was compared elsewhere stands
        return not self._to_ask(own.scores) and not self._to_ask(kept.scores)

    def _to_ask(self, scores: Scores) -> tuple[str, ...]:
        """Return the tasks that failed in an earlier process: the reason may be gone."""
        return tuple(task for task in scores.failed if task not in self._failed)

    def _examined(self, config: Mapping[str, Value]) -> list[checked.Checked]:
        examined = checked.read(self._folder).examined
        return [one for one in examined if one.is_of(config, self._stack)]

    def _keep(
        self,
        winner: Mapping[str, Value],
        document: dict[str, Any],
        scores: Scores | None = None,
    ) -> None:
        engine, front = self._stack
        new = checked.Checked(
            config=dict(winner),
            document=document,
            scores=scores,
            place=self._runner.ledger.place,
            engine=engine,
            front=front,
        )
        checked.keep(self._folder, "examined", new)

    def _of_baseline(self) -> Scores:
        kept, baseline = checked.read(self._folder), self._baseline
        place = baseline.ledger.place
        known = kept.scores if kept.scores_place == place else None
        if known is None or self._to_ask(known):
            kept.scores, _ = self._asked(baseline, baseline.study.baseline, "baseline", known)
            kept.scores_place = place
            checked.write(self._folder, kept)
        assert kept.scores is not None, "it has answered"
        return kept.scores

    def _of_winner(self, winner: Mapping[str, Value]) -> tuple[Scores, ServerError | None]:
        place = self._runner.ledger.place
        found = [one.scores for one in self._examined(winner) if one.place == place]
        known = found[0] if found else None
        if known is not None and not self._to_ask(known):
            return known, None
        return self._asked(self._runner, winner, "winner", known)

    def _asked(
        self, runner: Runner, config: Mapping[str, Value], name: str, known: Scores | None
    ) -> tuple[Scores, ServerError | None]:
        """Have a config asked all tasks; if it has scores, those at which lm-eval had failed.

        What it has is kept, however that ends.

        Returns:
            Its scores, and how its server failed where it had some; None: it did not.

        Raises:
            UsageError, ServerError, TargetError: as _scores(), where it has none.
        """
        if known is None:
            return self._scores(runner, config, name, runner.study.lm_eval), None
        tasks = self._to_ask(known)
        try:
            return known.completed(self._scores(runner, config, name, tasks), tasks), None
        except (UsageError, ServerError, TargetError) as error:
            self._failed |= {*tasks}
            runner.say(f"  lm-eval: {', '.join(tasks)} failed once more: {error}")
            return known, error if isinstance(error, ServerError) else None

    def _scores(
        self, runner: Runner, config: Mapping[str, Value], name: str, tasks: tuple[str, ...]
    ) -> Scores:
        """Serve a config, and have lm-eval ask it tasks; the study is charged for it.

        Raises:
            UsageError: it cannot be built.
            ServerError: it does not start, or dies.
            TargetError: it speaks no protocol of lm-eval's, lm-eval fails, or the budget is used
                up.
        """
        begin_s = time.monotonic()
        until_s = begin_s + runner.left_s()
        with runner.ledger.charged(f"lm-eval asked {described(config)}"):
            found = self._served(runner, config, name, until_s, tasks)
        self._lasted_s = time.monotonic() - begin_s
        self._failed |= found.failed.keys()
        return found

    def _served(
        self,
        runner: Runner,
        config: Mapping[str, Value],
        name: str,
        until_s: float,
        asked: tuple[str, ...],
    ) -> Scores:
        study = msgspec.structs.replace(runner.study, lm_eval=asked)
        place = runner.folder / FOLDER / store.new_id(name)
        artifact = runner.stack.build(config, notify=runner.wait)
        with start(runner.stack, config, artifact, place, runner.wait) as server:
            no_scores, compares = self._of_prompts(server, study)
            dropped = compares if no_scores else []
            tasks = [task for task in study.lm_eval if task not in dropped]
            needs = bool(compares) and not no_scores
            # A group that compares probabilities is not known as one: without them, or without a
            # tokenizer, lm-eval fails at it, and would take the other tasks along.
            alone = bool(no_scores) or not counts(study.model, compares=needs)
            runs = [[task] for task in tasks] if alone else [tasks]
            scores: list[Scores] = []
            failed: dict[str, str] = {}
            for number, these in enumerate(runs, 1):
                inside = place / str(number) if len(runs) > 1 else place
                asks = step(
                    server.launch,
                    study.model,
                    these,
                    study.lm_eval_args,
                    inside,
                    scores_prompts=not no_scores,
                    compares=needs,
                )
                why = self._ask(asks, server, runner, inside, until_s)
                came = why or _kept(inside, no_scores)
                if isinstance(came, Scores):
                    scores.append(came)
                elif len(runs) == 1:
                    raise TargetError(came)
                else:
                    failed[these[0]] = came.rstrip(".")
        return _together(scores, dropped, no_scores, failed)

    def _ask(self, asks: Step, server: Server, runner: Runner, place: Path, until_s: float) -> str:
        """Have lm-eval ask a server that runs; return how it failed, or empty.

        Raises:
            ServerError: the server has died, or makes no token.
            TargetError: the budget is used up.
        """
        place.mkdir(parents=True, exist_ok=True)
        log = place / _LOG
        with log.open("ab") as output:
            child = Child(asks, output.fileno(), lambda: end_of(log))
        try:
            with child:
                self._wait(child, server, runner, until_s)
                failure = None if child.succeeded() else child.failure()
        finally:
            said = log.read_text("utf-8", "replace").splitlines()
            store.write_atomically(log, "\n".join([*redact(said, {}), ""]).encode())
        if failure is None:
            return ""
        if not server.answers(runner.study.hang_s):
            raise _hangs(server, runner.study.hang_s)
        return f"lm-eval: {failure} Log: {log}"

    def _of_prompts(self, server: Server, study: Study) -> tuple[str, list[str]]:
        """Ask a server for probabilities; return why there are none, and which tasks need them.

        Where there are some, tasks that are not known are returned, too: a group that compares them
        has no score without a tokenizer. They are found out only where it matters, as it takes half
        a minute.

        Raises:
            TargetError: it gives none, and all tasks need them.
        """
        names, words = study.lm_eval, study.lm_eval_args
        if is_chat(words):
            return "in a chat there are none", []
        why = missing(openai_url(server.launch), server.launch.model)
        counts_by = tokenizer_of(study.model)
        if not why and (not counts_by or Path(counts_by).is_dir()):
            return "", []  # no tokenizer is fetched for them
        found = comparing(names, words)
        if why and len(found) == len(names):
            raise _no_scores(found, why)
        return why, found if why else comparing(names, words, or_unknown=True)

    def _wait(self, child: Child, server: Server, runner: Runner, until_s: float) -> None:
        """Wait until lm-eval ends.

        Raises:
            ServerError: the server has died, so that what lm-eval says of it is no news.
            TargetError: the budget is used up.
        """
        told_s = time.monotonic()
        ended = False
        while not ended:
            child.wait(_LOOK_S)
            ended = child.ended()
            if (gone := server.failure()) is not None:
                raise ServerError(gone.kind, f"while lm-eval asked it: {gone}")
            if not ended and time.monotonic() > until_s:
                raise TargetError(f"{_USED_UP} while it asked.")
            if time.monotonic() - told_s > _PROGRESS_S:
                told_s = time.monotonic()
                runner.wait("lm-eval: " + "".join(child.last_lines()[-1:]))


def _kept(place: Path, why: str) -> Scores | str:
    """Return what lm-eval has written, but for tasks that compare probabilities and had none.

    Args:
        place: the folder that it has written to.
        why: there are none; empty: there are.

    Returns:
        The scores, or why there are none that can be read.
    """
    try:
        found = read(place)
        # A group's tasks, and what a task's file includes, are known when it has ended.
        return found.without(compared(place), _not_given(why)) if why else found
    except TargetError as error:
        return str(error)


def _together(
    found: Sequence[Scores], dropped: Sequence[str], why: str, failed: Mapping[str, str]
) -> Scores:
    """Return the scores of all runs of lm-eval.

    Args:
        found: of each run that did not fail.
        dropped: the tasks that it was not asked, as they were known to compare probabilities.
        why: there are none; empty: there are.
        failed: the tasks at which it failed, and how.

    Raises:
        TargetError: there is no score.
    """
    without = dict.fromkeys(dropped, _not_given(why))
    for one in found:
        without |= one.dropped
    scores = [score for one in found for score in one.scores]
    if scores:
        return Scores(version=found[0].version, scores=scores, dropped=without, failed=dict(failed))
    if not failed:
        raise _no_scores(list(without), why)
    raise TargetError("; ".join(f"{task}: {how}" for task, how in {**without, **failed}.items()))


def _not_given(why: str) -> str:
    return f"probabilities are compared there, and {why}; {INSTEAD}"


def _no_scores(tasks: Sequence[str], why: str) -> TargetError:
    """Return the fault of tasks that all compare probabilities which a server does not give."""
    return TargetError(f"{', '.join(tasks)}: compares probabilities, and {why}; {INSTEAD}.")


def _hangs(server: Server, hang_s: float) -> ServerError:
    """Return the fault of a server that has died, or lives and makes no token."""
    if (gone := server.failure()) is not None:
        return ServerError(gone.kind, f"while lm-eval asked it: {gone}")
    return ServerError(
        "hung",
        f"while lm-eval asked it: the server lives but made no token within {hang_s:g} s.",
    )
