"""The gate: the baseline's own noise is the yardstick, and what cannot be judged is said."""

import random

import pytest

from llmdyno.quality.answers import Answers, Said
from llmdyno.quality.gate import DIFFERS, SAME, SCHEMA, WITHIN, admits, judge
from llmdyno.results.quality import sentences

PROMPTS, LENGTH = 32, 48


def said(rng: random.Random, rate: float, number: int, *, logprob: float = -0.7) -> Said:
    """Return an answer that leaves the reference at each token with this probability."""
    first = next((at for at in range(LENGTH) if rng.random() < rate), LENGTH)
    other = str(rng.random())
    tokens = tuple(f"{number}.{at}" if at < first else other for at in range(LENGTH))
    logprobs = tuple(logprob for _ in tokens)
    return Said(text=" ".join(tokens), finish="length", tokens=tokens, logprobs=logprobs)


def server(seed: int, *, alone: float, loaded: float, logprob: float = -0.7) -> Answers:
    rng = random.Random(seed)

    def all_(rate: float) -> list[Said]:
        return [said(rng, rate, number, logprob=logprob) for number in range(PROMPTS)]

    return Answers(
        endpoint="openai-chat",
        model="m",
        tokens_max=LENGTH,
        prompts=["p"] * PROMPTS,
        alone=all_(alone),
        again=all_(alone),
        loaded=all_(loaded),
        concurrency=8,
    )


def test_two_that_say_the_same_are_the_same() -> None:
    document = judge(server(1, alone=0, loaded=0.01), server(2, alone=0, loaded=0.01))

    assert document["schema"] == SCHEMA
    assert document["verdict"] == SAME
    assert document["yardstick"]["again"]["disagreement"]["mean"] == 0
    assert 0 < document["yardstick"]["loaded"]["disagreement"]["mean"] < 0.03
    assert document["excess"]["mean"] < 0
    assert document["detail"] == "chosen"
    assert admits(document, 0.0)
    # A person reads no "-1 % more".
    assert "-" not in sentences(document)[0]
    assert "fewer than in the baseline against itself" in sentences(document)[0]


def test_what_the_engine_does_to_itself_is_no_difference() -> None:
    found = [
        judge(server(seed, alone=0, loaded=0.02), server(100 + seed, alone=0.02, loaded=0.02))
        for seed in range(40)
    ]
    assert sum(one["verdict"] == WITHIN for one in found) >= 36


@pytest.mark.parametrize("rate", [0.03, 0.3])
def test_more_than_that_differs_and_is_measured(rate: float) -> None:
    document = judge(server(1, alone=0, loaded=0.002), server(2, alone=rate, loaded=rate))

    assert document["verdict"] == DIFFERS
    low, high = document["excess"]["ci95"]
    assert low <= rate - 0.002 <= high
    assert admits(document, None)
    assert admits(document, 2 * rate)
    assert not admits(document, 0.005)
    told = sentences(document)
    assert told[0].startswith("Output: differs. 0 %" if rate == 0.3 else "Output: differs.")
    assert "more than in the baseline against itself" in told[0]


def test_without_a_comparison_nothing_is_admitted_under_a_limit() -> None:
    document = judge(server(1, alone=0, loaded=0), None)
    assert document["comparison"] is document["verdict"] is None
    assert not admits(document, 0.5)
    assert not admits({"why": "it did not start"}, 0.5)
    assert sentences(document) == []
    assert sentences({"why": "it did not start"}) == ["Quality was not compared: it did not start"]


def test_what_cannot_be_judged_is_said() -> None:
    flat = judge(server(1, alone=0, loaded=0, logprob=-6), None)["cannot_judge"]
    assert any("random weights" in one for one in flat)
    sure = judge(server(1, alone=0, loaded=0), None)["cannot_judge"]
    assert not any("random weights" in one for one in sure)
    assert "not correctness" in sure[0]

    same = Said(text="yes")
    words = Answers(
        endpoint="bentoml",
        model="m",
        tokens_max=8,
        prompts=["p"] * 8,
        alone=[same] * 8,
        again=[],
        loaded=[same] * 8,
        concurrency=2,
    )
    document = judge(words, words)
    assert (document["detail"], document["yardstick"]["again"]) == ("text", None)
    assert any("by characters" in one for one in document["cannot_judge"])
    assert any("alike" in one for one in document["cannot_judge"])
