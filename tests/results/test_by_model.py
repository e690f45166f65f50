"""A level by model: the parts are the whole."""

import msgspec
import pytest

from llmdyno.results import by_model
from llmdyno.results.measures import measures
from llmdyno.results.window import steady_window
from results.run_facts import MS, columns_of, level_facts, record


def test_the_models_together_are_the_level() -> None:
    fast = [record(n, 25 * n, gaps_ns=[10 * MS] * 4, input_tokens=30) for n in range(0, 400, 2)]
    slow = [record(n, 25 * n, gaps_ns=[40 * MS] * 4, input_tokens=30) for n in range(1, 400, 2)]
    facts = msgspec.structs.replace(
        level_facts(*fast, *slow, seconds=10),
        by_model={"base": columns_of(*fast), "lora": columns_of(*slow)},
    )

    base, lora = by_model.part([facts], ())["models"]
    whole = measures([(facts.columns, steady_window(facts))], ())

    assert (base["model"], lora["model"]) == ("base", "lora")
    assert (base["share"], lora["share"]) == (0.5, 0.5)
    assert base["requests"] == {"completed": 200, "failed": 0, "cut": 0}
    assert (base["tokens"], lora["tokens"]) == ({"input": 6000, "output": 800},) * 2
    assert (base["ttft_ms"]["p50"], lora["ttft_ms"]["p50"]) == pytest.approx((10, 40))
    both = base["token_rate"]["mean"] + lora["token_rate"]["mean"]
    assert both == pytest.approx(whole["token_rate"]["mean"], rel=1e-4)


def test_one_model_is_no_part() -> None:
    assert by_model.part([level_facts(record(0, 0), seconds=1)], ()) == {}
