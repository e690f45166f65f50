"""Tasks that compare probabilities: which they are, and where they are refused."""

import json
import stat
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmdyno import engines
from llmdyno.errors import UsageError
from llmdyno.quality import likelihoods, lm_eval, lm_eval_installed
from llmdyno.serve.stack import load_stack

# What `lm_eval ls subtasks` prints, shortened.
LISTED = """
|     Task      | Config Location | Output Type   |
|---------------|-----------------|---------------|
|arc_easy       |arc/arc_easy.yaml|multiple_choice|
|gsm8k          |gsm8k/gsm8k.yaml |generate_until |
|mmlu_astronomy |mmlu/a.yaml      |               |
|wikitext       |wikitext/w.yaml  |loglikelihood_rolling|
"""
TASKS = ("arc_easy", "gsm8k", "mmlu_astronomy", "wikitext", "group")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lm_eval"
    path.write_text(
        f"#!{sys.executable}\nimport sys\nassert sys.argv[1] == 'ls'\nprint('''{LISTED}''')\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(lm_eval_installed, "program", lambda: str(path))


@pytest.mark.usefixtures("program")
def test_tasks_that_compare_probabilities_are_told_from_the_list_and_the_files(
    tmp_path: Path,
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("task: own\noutput_type: 'multiple_choice'\n")
    other = tmp_path / "other.yaml"
    other.write_text("task: other\noutput_type: generate_until\n")

    assert likelihoods.comparing(TASKS, ()) == ["arc_easy", "wikitext"]
    may = ["arc_easy", "mmlu_astronomy", "wikitext", "group"]
    assert likelihoods.comparing(TASKS, (), or_unknown=True) == may
    assert likelihoods.comparing((str(own), str(other)), ()) == [str(own)]
    with pytest.raises(UsageError, match=r"--lm-eval no\.yaml: cannot be read"):
        likelihoods.comparing(("no.yaml",), ())


@pytest.mark.usefixtures("program")
def test_they_are_refused_where_nobody_gives_probabilities(tmp_path: Path) -> None:
    embedded, vllm = (load_stack(name, "native", "m").engine for name in ("openvino", "vllm"))
    told: Any = engines.facts(embedded)
    assert (told.scores_prompts, engines.facts(vllm).scores_prompts) == (False, True)

    with pytest.raises(UsageError) as refused:
        likelihoods.require(TASKS, (), embedded, "tiny")
    assert str(refused.value) == (
        "--lm-eval arc_easy,wikitext: compares probabilities of given answers, and openvino gives"
        " no log-probabilities of a prompt's tokens (echo with logprobs in /v1/completions); take"
        " tasks whose answers are generated."
    )
    with pytest.raises(UsageError, match="which no server gives in a chat; leave out --apply_chat"):
        likelihoods.require(TASKS, ("--apply_chat_template",), vllm, "org/model")
    with pytest.raises(UsageError, match=r"by the model's tokenizer, and .* has none"):
        likelihoods.require(TASKS, (), vllm, str(tmp_path))
    likelihoods.require(("gsm8k", "group"), (), embedded, "tiny")
    likelihoods.require(TASKS, (), vllm, "org/model")  # a hub has its tokenizer
    (tmp_path / "tokenizer_config.json").write_text("{}")
    likelihoods.require(TASKS, (), vllm, str(tmp_path))


def test_a_server_that_is_not_there_gives_none() -> None:
    assert likelihoods.missing("http://127.0.0.1:9", "m").startswith("this server gives no log-")


def test_lm_eval_is_told_to_send_the_tokens_where_the_server_scores_them(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{}")
    launch: Any = SimpleNamespace(
        endpoint="openai-completions", url="http://h:1", also={}, model="served"
    )

    def asks(model: str, **named: bool) -> str:
        step = lm_eval.step(launch, model, ["a"], [], tmp_path, **named)
        return step.argv[step.argv.index("--model_args") + 1]

    sent = asks(str(tmp_path), scores_prompts=True)
    assert f"tokenizer={tmp_path.resolve()},tokenized_requests=True,add_bos_token=True" in sent
    assert "tokenized_requests=False" in asks(str(tmp_path))
    assert "tokenizer=org/model" in asks("org/model", scores_prompts=True, compares=True)
    assert "tokenizer_backend=None" in asks("org/model", scores_prompts=True)


def test_a_group_compares_probabilities_if_one_of_its_tasks_does(tmp_path: Path) -> None:
    document = {
        "configs": {
            "mmlu_law": {"output_type": "multiple_choice"},
            "gsm8k": {"output_type": "generate_until"},
            "empty": None,
        },
        "group_subtasks": {"all": ["gsm8k", "mmlu"], "mmlu": ["mmlu_law"], "math": ["gsm8k"]},
    }
    (tmp_path / "results_x.json").write_text(json.dumps(document))

    assert likelihoods.compared(tmp_path) == ["all", "mmlu", "mmlu_law"]
