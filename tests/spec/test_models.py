"""--model with several models: what is read, what is refused, and who gets which request."""

from collections import Counter

import pytest

from llmdyno.errors import UsageError
from llmdyno.spec.models import Asked, draw, parse_models


@pytest.mark.parametrize("text", ["", "m", "llama3:8b", "org/model:0.5", "a:b:1"])
def test_without_a_comma_it_is_one_name_whatever_is_in_it(text: str) -> None:
    assert parse_models(text) == (Asked(text, 1.0),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("base:0.5,lora-a:.3,lora-b:0.2", [("base", 0.5), ("lora-a", 0.3), ("lora-b", 0.2)]),
        ("llama3:8b:0.75, qwen:7b:0.25", [("llama3:8b", 0.75), ("qwen:7b", 0.25)]),
        ("llama3:8b,qwen:7b", [("llama3:8b", 0.5), ("qwen:7b", 0.5)]),
        ("a:0.33,b:0.33,c:0.33", [("a", 1 / 3), ("b", 1 / 3), ("c", 1 / 3)]),
    ],
)
def test_shares_are_read_or_equal(text: str, expected: list[tuple[str, float]]) -> None:
    found = parse_models(text)

    assert [one.name for one in found] == [name for name, _ in expected]
    assert [one.share for one in found] == pytest.approx([share for _, share in expected])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a:0.5,b", "write each model once with its share"),
        ("a:0.5,a:0.5", "write each model once with its share"),
        ("a,", "write each model once with its share"),
        ("a:0.5,b:0.3", "the shares are 0.8 together"),
        ("a:1,b:0.0", "they must be above 0 and 1 together"),
    ],
)
def test_what_is_no_mix_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_models(text)

    assert words in str(refused.value)
    assert str(refused.value).startswith(f"--model {text}: ")


def test_a_draw_is_the_keys_and_keeps_the_shares() -> None:
    models = parse_models("base:0.5,lora-a:0.3,lora-b:0.2")
    drawn = [draw(models, f"0/10/request/{number}") for number in range(4000)]

    assert drawn == [draw(models, f"0/10/request/{number}") for number in range(4000)]
    counts = Counter(drawn)
    for one in models:  # within five standard deviations
        assert counts[one.name] / 4000 == pytest.approx(one.share, abs=5 * 0.5 / 4000**0.5)
