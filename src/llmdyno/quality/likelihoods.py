"""Tasks that compare the probabilities of given answers, such as multiple choice.

lm-eval asks for a prompt with one of its answers, `echo` and `logprobs`, and takes the numbers of
the answer's tokens out of the reply: it counts them with the model's tokenizer. A server that does
not score a prompt refuses, or says something else; then the scores would mean nothing, and lm-eval
does not notice. So a server is asked once before. Written after lm-eval 0.4.13:
openai_completions.py.
"""

import json
import re
import subprocess
from collections.abc import Sequence
from functools import cache
from http import HTTPStatus
from pathlib import Path

from llmdyno.engines import Engine, facts
from llmdyno.errors import UsageError
from llmdyno.processes.server import exchange
from llmdyno.quality import lm_eval, lm_eval_installed
from llmdyno.results.documents import finite

KINDS = ("multiple_choice", "loglikelihood", "loglikelihood_rolling")
NEEDS = "log-probabilities of a prompt's tokens (echo with logprobs in /v1/completions)"
INSTEAD = "take tasks whose answers are generated"
_PROMPT = list(range(10, 20))  # tokens that every vocabulary has
_LIST_S = 300.0  # lm-eval reads thousands of files to list its tasks
_ANSWER_S = 60.0
_OUTPUT_TYPE = re.compile(r"^output_type:\s*['\"]?(\w+)", re.MULTILINE)


def comparing(
    tasks: Sequence[str], arguments: Sequence[str], *, or_unknown: bool = False
) -> list[str]:
    """Return those of the tasks that are known to compare probabilities.

    A group, and a task that has its type from a file that it includes, are not known.

    Args:
        tasks: names, or files.
        arguments: words of the user for lm-eval.
        or_unknown: also return those that are not known, because they may.

    Raises:
        UsageError: a file or lm-eval's list cannot be read.
    """
    files = [task for task in tasks if Path(task).suffix in {".yaml", ".yml"}]
    places = tuple(word for word in arguments if word.startswith("--include_path="))
    program = lm_eval_installed.program()
    known = _listed(program, places) if program and len(files) < len(tasks) else {}
    for file in files:
        try:
            found = _OUTPUT_TYPE.search(Path(file).read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--lm-eval {file}: cannot be read: {error}.") from error
        known = {**known, file: found[1] if found else ""}
    kinds = {*KINDS, *([""] if or_unknown else [])}
    return [task for task in tasks if known.get(task, "") in kinds]


def compared(out: Path) -> list[str]:
    """Return the tasks that lm-eval has compared probabilities for, and groups with one.

    Args:
        out: the folder with the results.

    Raises:
        TargetError: there are no results, or none that can be read.
    """
    document = lm_eval.results(out)
    configs = document.get("configs") or {}
    found = {task for task in configs if (configs[task] or {}).get("output_type") in KINDS}
    groups = document.get("group_subtasks") or {}
    for _ in groups:  # a group may be of groups
        found |= {group for group, parts in groups.items() if found & set(parts)}
    return sorted(found)


@cache
def _listed(program: str, places: tuple[str, ...]) -> dict[str, str]:
    """Return the type of each task that lm-eval lists; it takes half a minute."""
    asked = [program, "ls", "subtasks", *places]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=_LIST_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"--lm-eval: {program} cannot be asked for its tasks: {error}.") from error
    rows = [[cell.strip() for cell in line.split("|")] for line in said.stdout.splitlines()]
    return {row[1]: row[3] for row in rows if len(row) == 5}


def require(tasks: Sequence[str], arguments: Sequence[str], engine: Engine, model: str) -> None:
    """Refuse tasks that compare probabilities where they cannot be had, before anything starts.

    Args:
        tasks: names, or files, which lm-eval has.
        arguments: words of the user for lm-eval.
        engine: that is served.
        model: that is served.

    Raises:
        UsageError: a task is known to compare them, and there are none, or no tokenizer to count.
    """
    if lm_eval.is_chat(arguments):
        why = "which no server gives in a chat; leave out --apply_chat_template, or"
    elif not facts(engine).scores_prompts:
        why = f"and {engine.name} gives no {NEEDS};"
    elif not lm_eval.tokenizer_of(model):
        why = f"by the model's tokenizer, and {model} has none (tokenizer_config.json);"
    else:
        return
    compare = comparing(tasks, arguments)
    if compare:
        raise UsageError(
            f"--lm-eval {','.join(compare)}: compares probabilities of given answers, {why}"
            f" {INSTEAD}."
        )


def missing(url: str, model: str) -> str:
    """Say why a server gives lm-eval no probabilities; empty: it does.

    Args:
        url: of the server, without a path of the protocol.
        model: its name there.
    """
    body = {"model": model, "prompt": _PROMPT, "max_tokens": 1, "temperature": 0}
    body |= {"logprobs": 1, "echo": True}
    asked = json.dumps(body).encode()
    status, content = exchange(url, "POST", "/v1/completions", asked, _ANSWER_S)
    try:
        said = json.loads(content)["choices"][0]["logprobs"]
        numbers, best = said["token_logprobs"], said["top_logprobs"]
        # The first token has nothing before it, and so no probability; the last is generated.
        whole = status == HTTPStatus.OK and len(numbers) == len(best) == len(_PROMPT) + 1
        told = [finite(number) is not None for number in numbers[1:]]
    except (ValueError, LookupError, TypeError):
        whole, told = False, []
    return "" if whole and all(told) and all(best[1:]) else f"this server gives no {NEEDS}"
