"""How far answers agree: known differences, and whether the intervals hold the truth."""

import math
import random

import pytest

from llmdyno.quality.answers import Said
from llmdyno.quality.compare import compared, couples, divergence


def said(words: str, *, shift: float = 0.0, finish: str = "length") -> Said:
    tokens = tuple(words.split())
    return Said(
        text=words,
        finish=finish,
        tokens=tokens,
        logprobs=tuple(-1.0 - shift for _ in tokens),
        top=tuple({token: -1.0 - shift, "other": -2.0} for token in tokens),
    )


def test_equal_answers_agree_in_everything_and_the_bound_says_how_sure_that_is() -> None:
    found = compared(couples([said("a b c d")] * 8, [said("a b c d")] * 8))

    assert found["unit"] == "tokens"
    assert found["positions"] == 32
    assert found["disagreement"]["mean"] == 0
    assert found["disagreement"]["ci95"] == [0, pytest.approx(1 - 0.025 ** (1 / 32), rel=1e-4)]
    assert found["same_answers"]["mean"] == found["equal_prefix"]["mean"] == 1
    assert found["first_difference"] == {"count": 0, "p50": None, "positions": []}
    assert found["logprob_difference"]["mean"] == found["kl"]["mean"] == 0


def test_nothing_counts_after_the_first_difference() -> None:
    before = [said("a b c d e f g h")] * 2
    after = [said("a b c X e f g h", shift=0.25), said("a b c d e f g h")]

    found = compared(couples(before, after))

    assert found["positions"] == 4 + 8
    assert found["disagreement"]["mean"] == pytest.approx(1 / 12, rel=1e-4)
    assert found["first_difference"] == {"count": 1, "p50": 4, "positions": [4]}
    shares = {row["position"]: row["share"] for row in found["still_equal"]}
    assert shares == {1: 1, 2: 1, 4: 0.5, 8: 0.5}
    assert found["equal_prefix"]["mean"] == pytest.approx((3 / 8 + 1) / 2)
    # The log-probability of the token that differs is another token's.
    assert found["logprob_difference"]["n"] == 3 + 8
    assert found["logprob_difference"]["mean"] == pytest.approx(3 * 0.25 / 11, rel=1e-4)
    # Its distribution is of the same text, so it counts.
    assert found["kl"]["n"] == 4 + 8


def test_an_answer_that_ends_early_differs_where_it_ends() -> None:
    found = compared(couples([said("a b c")], [said("a b")]))
    assert found["first_difference"]["positions"] == [3]


def test_texts_are_compared_where_tokens_are_not_told() -> None:
    before = [Said(text="one two"), Said(text="")]
    found = compared(couples(before, [Said(text="one too"), Said(text="")]))
    assert found["unit"] == "characters"
    assert found["first_difference"]["positions"] == [6]
    assert found["logprob_difference"] is None
    assert found["kl"] is None
    mixed = couples([said("a b")], [Said(text="a b")])
    assert (mixed.unit, mixed.couples[0].differs) == ("characters", False)


def test_divergence_is_that_of_the_distributions_with_the_rest_as_one_token() -> None:
    before = {"a": math.log(0.5), "b": math.log(0.3)}
    assert divergence(before, dict(before)) == 0
    after = {"a": math.log(0.25), "b": math.log(0.3)}
    truth = 0.5 * math.log(2) + 0.2 * math.log(0.2 / 0.45)
    assert divergence(before, after) == pytest.approx(truth)
    assert divergence(before, {"c": 0.0}) > 10  # all of one is nothing of the other, and finite
    assert divergence({}, {}) == 0


def test_nineteen_of_twenty_intervals_hold_the_true_disagreement() -> None:
    rng = random.Random(5)
    truth, inside, rounds = 0.02, 0, 120
    same = said(" ".join(f"w{at}" for at in range(48)))
    for _ in range(rounds):
        others = []
        for _ in range(32):
            first = next((at for at in range(48) if rng.random() < truth), 48)
            others.append(said(" ".join([*same.tokens[:first], *["X"] * (48 - first)])))
        low, high = compared(couples([same] * 32, others))["disagreement"]["ci95"]
        inside += low <= truth <= high
    assert 0.88 <= inside / rounds <= 1
