"""README.md of a bundle: what it says of the bundle that it lies in."""

import json
import shlex
from pathlib import Path
from typing import Any

from deploy_plans import plan
from llmdyno.deploy import readme

ALL = ("serve.sh", "compose.yaml", "kubernetes.yaml")


def study(**confirmation: Any) -> dict[str, Any]:
    def measured(rate: float, ttft_ms: float, **config: int) -> dict[str, Any]:
        level = {"users": 50, "token_rate": {"mean": rate}, "ttft_ms": {"p50": ttft_ms}}
        return {"config": config, "summary": {"levels": [level]}}

    confirmed = {
        "pairs": 3,
        "level": 50,
        "verdict": "better",
        "ratio": {"token_rate": {"mean": 1.5, "ci95": [1.4, 1.6]}},
    }
    return {
        "study": "s-1",
        "baseline": measured(1000.0, 200.0),
        "best": measured(1500.0, 90.0, max_num_seqs=64),
        "confirmation": confirmed | confirmation,
    }


def test_it_says_what_is_served_and_with_which_settings() -> None:
    text = readme.text(plan(config={"a": 1, "b": True}), ALL, None)

    assert text.startswith("# org/m\n\nServed by vllm 0.33.0 behind the front native, with")
    assert "`a=1`, `b=true`" in text
    assert "all settings at their defaults" in readme.text(plan(), ALL, None)
    assert "What was measured" not in text


def test_the_objective_has_a_column_of_its_own() -> None:
    document = study() | {"objective": "goodput:mean"}
    for arm, goodput in (("baseline", 2.0), ("best", 14160.0)):
        document[arm]["summary"]["levels"][0]["goodput"] = {"mean": goodput}

    heads, _, row = [
        line for line in readme.text(plan(), ALL, document).splitlines() if line.startswith("|")
    ]

    assert heads.endswith("| goodput before, req/s | after |")
    assert row.endswith("| 2 | 14,160 |")
    assert "goodput" not in readme.text(plan(), ALL, study() | {"objective": "token_rate:mean"})


def test_only_the_ways_that_there_are_files_for_are_shown() -> None:
    text = readme.text(plan(), ("serve.sh",), None)

    assert "./serve.sh" in text
    assert "docker compose" not in text
    assert "kubectl" not in text
    assert "kubectl apply -f kubernetes.yaml" in readme.text(plan(), ALL, None)


def test_a_reader_is_told_how_to_see_that_it_works() -> None:
    made = plan(port=8123, launch={"probe": ("/v1/completions", {"prompt": "it's", "n": 1})})

    _, _, text = readme.text(made, ALL, None).partition("## Whether it works\n")

    _, forward, health, asked, *_ = text.splitlines()
    assert shlex.split(forward, comments=True)[:2] == ["kubectl", "port-forward"]
    assert shlex.split(forward, comments=True)[-1] == "8123:8123"
    assert shlex.split(health, comments=True) == ["curl", "-f", "http://127.0.0.1:8123/health"]
    words = shlex.split(asked)
    assert words[1] == "http://127.0.0.1:8123/v1/completions"
    assert json.loads(words[-1]) == {"prompt": "it's", "n": 1}
    assert "kubectl" not in readme.text(made, ("serve.sh",), None)


def test_what_must_be_brought_along_is_said() -> None:
    made = plan(
        links={"models/m": Path("/m")}, built=True, secrets=("HF_TOKEN",),
        launch={"doubts": ("this is seldom meant",)},
    )  # fmt: skip

    text = readme.text(made, ALL, None)

    assert "- `models/m`" in text
    assert "`bash build.sh artifact` builds what is served" in text
    assert "Secrets are read from the environment: `HF_TOKEN`." in text
    assert "**Mind:** this is seldom meant" in text
    assert "/m`" not in text.replace("models/m`", "")  # no path of this machine


def test_pairs_that_show_nothing_confirm_nothing() -> None:
    even = {"token_rate": {"mean": 1.01, "ci95": [0.9, 1.1]}}

    text = readme.text(plan(), ALL, study(verdict="no difference", ratio=even))

    assert "\nIn 3 interleaved pairs at 50 users: no difference, 1.01 times" in text
    assert "One run of each config at each level:\n\n| users |" in text


def test_the_figures_are_those_of_the_study() -> None:
    text = readme.text(plan(), ALL, study())

    assert "| 50 | 1,000 | 1,500 | 200 | 90 |" in text
    assert (
        "Confirmed in 3 interleaved pairs at 50 users: better, 1.5 times the token rate"
        " [1.4, 1.6]. From the study s-1."
    ) in text


def test_a_study_without_an_end_has_no_figures() -> None:
    unfinished = {**study(), "best": None}

    assert "The study s-1 was not finished: there are no figures." in readme.text(
        plan(), ALL, unfinished
    )
