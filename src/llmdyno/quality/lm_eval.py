"""Tasks with right answers: lm-eval asks a server, and what it finds is read and compared.

lm-eval (EleutherAI's lm-evaluation-harness) is a program of its own, on PATH or beside our Python.
It asks over the server's OpenAI protocol and writes a score for each question. Two configs answer
the same questions, so their scores are compared question by question. Written after lm-eval 0.4.13:
api_models.py and openai_completions.py for what it asks, evaluation_tracker.py for what it writes.
"""

import math
import re
import subprocess
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from glob import escape
from pathlib import Path
from statistics import NormalDist
from typing import Any

import msgspec
import numpy as np

from llmdyno.errors import TargetError, UsageError
from llmdyno.processes.launch import Launch, Step
from llmdyno.quality import lm_eval_installed
from llmdyno.results.documents import finite
from llmdyno.results.stats import Floats, significant, student_quantile

CONCURRENCY = 8
_TIMEOUT_S = 300  # for one answer
_TRIES = 2
_CHECK_S = 120.0
_CHAT = "--apply_chat_template"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HALVINGS = 50  # of 1, until a share is known
_ERRORS_MAX = 0.05  # the chance that any equal task is called better or worse

WORSE, BETTER, SAME = "worse", "better", "no difference"


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """What one metric of one task came to."""

    task: str
    metric: str
    filter: str  # what lm-eval did to the answers first; "none": nothing
    higher_is_better: bool = True
    value: float
    questions: dict[str, float] = {}  # by the question's number; empty: it has no score of each


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """What lm-eval found of one server."""

    version: str
    scores: list[Score]
    dropped: dict[str, str] = {}  # the tasks whose scores would mean nothing, and why
    failed: dict[str, str] = {}  # those at which lm-eval failed, and how; older ones are dropped

    def without(self, tasks: Collection[str], why: str) -> "Scores":
        """Return the scores but for those of some tasks, whose names are kept with the reason."""
        left = [one for one in self.scores if one.task not in tasks]
        return msgspec.structs.replace(
            self, scores=left, dropped={**self.dropped, **dict.fromkeys(tasks, why)}
        )

    def completed(self, by: "Scores", asked: Collection[str]) -> "Scores":
        """Return the scores with those of tasks that had failed, and were asked once more."""
        scores, dropped = [*self.scores, *by.scores], self.dropped | by.dropped
        failed = {task: why for task, why in self.failed.items() if task not in asked} | by.failed
        return Scores(version=by.version, scores=scores, dropped=dropped, failed=failed)


@cache
def require(tasks: tuple[str, ...], arguments: tuple[str, ...]) -> None:
    """Refuse tasks that lm-eval does not have, before anything starts; it takes some seconds.

    Raises:
        UsageError: lm-eval is not installed, or without what it asks servers with, or does not know
            a task.
    """
    found = lm_eval_installed.required(",".join(tasks))
    files = [task for task in tasks if task.endswith((".yaml", ".yml"))]
    for file in files:
        if not Path(file).is_file():
            raise UsageError(f"--lm-eval {file}: there is no such file.")
    names = [task for task in tasks if task not in files]
    if not names:
        return
    places = [word for word in arguments if word.startswith("--include_path=")]
    try:
        said = subprocess.run(
            [found, "validate", "--tasks", ",".join(names), *places],
            capture_output=True,
            text=True,
            check=False,
            timeout=_CHECK_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"--lm-eval: {found} cannot be asked for its tasks: {error}.") from error
    if said.returncode:
        lines = [line for line in (said.stdout + said.stderr).splitlines() if line.strip()]
        why = (lines or ["it says nothing"])[-1].strip().rstrip(".")
        raise UsageError(f"--lm-eval {','.join(names)}: {why}; `lm_eval ls tasks` lists them.")


def is_chat(arguments: Sequence[str]) -> bool:
    """Tell whether the user's words for lm-eval let it ask in a chat."""
    return any(word.partition("=")[0] == _CHAT for word in arguments)


def tokenizer_of(model: str) -> str:
    """Return what lm-eval knows a model's tokenizer by: a folder, or a hub's id; empty: nothing."""
    if (Path(model) / "tokenizer_config.json").is_file():
        return str(Path(model).resolve())
    return model if _HUB_ID.fullmatch(model) and not Path(model).exists() else ""


def counts(model: str, *, compares: bool) -> bool:
    """Tell whether lm-eval is given a tokenizer of the model to count with.

    A hub's is for tasks alone that compare probabilities, or may, because lm-eval fetches it.
    """
    found = tokenizer_of(model)
    return bool(found) and (compares or Path(found).is_dir())


def step(
    launch: Launch,
    model: str,
    tasks: Sequence[str],
    arguments: Sequence[str],
    out: Path,
    *,
    scores_prompts: bool = False,
    compares: bool = False,
) -> Step:
    """Return the command that asks a server the tasks' questions and writes to a folder.

    Args:
        launch: of the server, which runs.
        model: that was served; where it is a folder with a tokenizer, lm-eval counts with that.
        tasks: their names, or files.
        arguments: words of the user for lm-eval's own command line.
        out: a folder.
        scores_prompts: whether the server gives the log-probabilities of a prompt's tokens, and
            takes a prompt as tokens.
        compares: whether a task needs those, or may.

    Raises:
        TargetError: the server speaks no protocol of OpenAI.
    """
    chat = is_chat(arguments)
    url = openai_url(launch) + ("/v1/chat/completions" if chat else "/v1/completions")
    asks = {
        "model": launch.model,
        "base_url": url,
        "num_concurrent": CONCURRENCY,
        "max_retries": _TRIES,
        "timeout": _TIMEOUT_S,
        **_tokenizer(model, chat=chat, scores_prompts=scores_prompts, compares=compares),
    }
    return Step(
        what="lm-eval",
        argv=(
            lm_eval_installed.program() or "lm_eval",
            *("--model", "local-chat-completions" if chat else "local-completions"),
            *("--model_args", ",".join(f"{name}={value}" for name, value in asks.items())),
            *("--tasks", ",".join(tasks), "--output_path", str(out), "--log_samples"),
            *arguments,
        ),
        # Our server needs no key, and the user's own is not for it.
        environment={"OPENAI_API_KEY": "none", "TQDM_DISABLE": "1"},
        symptoms=(
            (r"^AssertionError|^NotImplementedError", "bad-config"),
            (r"^(\w+\.)*\w+(Error|Exception|NotFound)\b", "died"),
        ),
    )


def openai_url(launch: Launch) -> str:
    """Return where a server speaks OpenAI's protocol, without its path.

    Raises:
        TargetError: it does not.
    """
    spoken = {launch.endpoint: launch.url, **launch.also}
    for name, url in spoken.items():
        if name.startswith("openai"):
            return url.rstrip("/").removesuffix("/v1")
    raise TargetError(
        f"lm-eval asks over OpenAI's protocol alone; this server speaks {', '.join(spoken)}."
    )


def _tokenizer(
    model: str, *, chat: bool, scores_prompts: bool, compares: bool
) -> dict[str, str | bool]:
    """Return whose tokens lm-eval counts; only tasks that compare probabilities need any.

    It sends the tokens themselves where it may: a text would get its first token from the server
    once more, and the count of what goes before an answer would be one short.
    """
    if chat or not counts(model, compares=compares):
        return {"tokenizer_backend": "None", "tokenized_requests": False}
    sends = {"tokenized_requests": scores_prompts, "add_bos_token": scores_prompts}
    return {"tokenizer_backend": "huggingface", "tokenizer": tokenizer_of(model), **sends}


def results(out: Path) -> dict[str, Any]:
    """Return the document that lm-eval has written to a folder.

    Raises:
        TargetError: there is none, or none that can be read.
    """
    files = sorted(out.rglob("results_*.json"))
    if not files:
        raise TargetError(f"lm-eval ended without results in {out}.")
    try:
        return msgspec.json.decode(files[-1].read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        raise TargetError(f"{files[-1]}: is no result of lm-eval: {error!r}.") from error


def read(out: Path) -> Scores:
    """Return what lm-eval has written to a folder.

    Raises:
        TargetError: there are no results, or none that can be read.
    """
    document = results(out)
    try:
        scores = [
            score
            for task, values in document["results"].items()
            for score in _scores(
                task,
                values,
                document.get("higher_is_better", {}).get(task) or {},
                _questions(out, task),
            )
        ]
    except (OSError, msgspec.DecodeError, KeyError, AttributeError, TypeError) as error:
        raise TargetError(f"{out}: is no result of lm-eval: {error!r}.") from error
    if not scores:
        raise TargetError(f"{out}: lm-eval has given no task a score.")
    return Scores(version=str(document.get("lm_eval_version", "")), scores=scores)


def _scores(
    task: str,
    values: Mapping[str, Any],
    better: Mapping[str, Any],
    questions: Mapping[tuple[str, str], dict[str, float]],
) -> list[Score]:
    found = []
    for key, value in values.items():
        metric, comma, filtered = key.partition(",")
        number = finite(value)
        if not comma or metric.endswith("_stderr") or number is None:
            continue
        found.append(
            Score(
                task=task,
                metric=metric,
                filter=filtered,
                higher_is_better=better.get(metric) is not False,
                value=number,
                questions=questions.get((metric, filtered), {}),
            )
        )
    return found


def _questions(out: Path, task: str) -> dict[tuple[str, str], dict[str, float]]:
    """Return the score of each question of a task, by metric and filter."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    # A date follows the name: another task's may begin like this one's.
    for file in sorted(out.rglob(f"samples_{escape(task)}_[0-9][0-9][0-9][0-9]-*.jsonl"))[-1:]:
        for line in file.read_bytes().splitlines():
            said = msgspec.json.decode(line)
            for metric in said.get("metrics", []):
                value = said.get(metric)
                # Some tasks say true and false.
                number = float(value) if isinstance(value, bool) else finite(value)
                if number is not None:
                    of_metric = found.setdefault((metric, said.get("filter", "none")), {})
                    of_metric[str(said["doc_id"])] = number
    return found


def compare(before: Scores, after: Scores) -> dict[str, Any]:
    """Return the document of two configs' scores: a row a task and metric, and who has no score.

    Where both have a score of each question, the difference is the mean over questions, with an
    interval that decides: better or worse is what it leaves 0 out of. It is by Student's t; see
    _of_shares() for scores that are all 0 or 1. It allows for the number of rows (Bonferroni): of
    equal configs anything is called better or worse in one of 20 comparisons at most.
    """
    others = {(one.task, one.metric, one.filter): one for one in after.scores}
    both = [
        (one, other)
        for one in before.scores
        if (other := others.get((one.task, one.metric, one.filter))) is not None
    ]
    rows = [_row(one, other, _ERRORS_MAX / max(1, len(both))) for one, other in both]
    dropped = before.dropped | after.dropped | before.failed | after.failed
    return {
        "lm_eval": after.version,
        "tasks": rows,
        "dropped": [{"task": task, "why": why} for task, why in dropped.items()],
    }


def _row(before: Score, after: Score, errors: float) -> dict[str, Any]:
    shared = sorted(before.questions.keys() & after.questions.keys())
    row: dict[str, Any] = {
        "task": before.task,
        "metric": before.metric,
        "filter": before.filter,
        "higher_is_better": before.higher_is_better,
        "baseline": significant(before.value),
        "winner": significant(after.value),
        "questions": len(shared) or None,
        "difference": None,
        "verdict": None,
    }
    if len(shared) < 2:
        return row
    one = np.array([before.questions[key] for key in shared])
    other = np.array([after.questions[key] for key in shared])
    differences = other - one
    mean = float(differences.mean())
    binary = {*one.tolist(), *other.tolist()} <= {0.0, 1.0}
    interval = _of_shares if binary else _of_means
    low, high = interval(differences, 1 - errors / 2)
    row["difference"] = {
        "mean": significant(mean),
        "ci95": [significant(low), significant(high)],
    }
    if low <= 0 <= high:
        row["verdict"] = SAME
    else:
        row["verdict"] = BETTER if (mean > 0) == before.higher_is_better else WORSE
    return row


def _of_means(differences: Floats, share: float) -> tuple[float, float]:
    mean, n = float(differences.mean()), len(differences)
    half = student_quantile(n - 1, share) * float(differences.std(ddof=1)) / math.sqrt(n)
    return mean - half, mean + half


def _of_shares(differences: Floats, share: float) -> tuple[float, float]:
    """Return the interval of a difference of shares, given how many questions differ.

    The exact interval of how those split (Clopper & Pearson 1934) times their share of all: it
    leaves 0 out where McNemar's exact test (1947) finds that the sides are not equal. Where none
    differs it does not shrink to nothing (Agresti & Min 2005, "Simple improved confidence intervals
    for comparing matched proportions").
    """
    n = len(differences)
    up, down = int((differences > 0).sum()), int((differences < 0).sum())
    if not up + down:
        half = NormalDist().inv_cdf(share) / (n + 2)
        return -half, half
    low, high = _least_share(up, down, 1 - share), 1 - _least_share(down, up, 1 - share)
    differ = (up + down) / n
    return differ * (2 * low - 1), differ * (2 * high - 1)


def _least_share(up: int, down: int, tail: float) -> float:
    """Return the share of ups at which so many or more of them have the chance `tail`."""
    n = up + down
    ups = np.arange(up, n + 1)
    ways = np.array([math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in ups])

    def chance(share: float) -> float:
        logs = ways + ups * math.log(share) + (n - ups) * math.log1p(-share)
        return float(np.exp(logs).sum())

    if not up:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if chance(middle) < tail else (low, middle)
    return (low + high) / 2
