"""The budget as the user gives it."""

import pytest

from llmdyno.cli.flags import study_spec
from llmdyno.errors import UsageError
from llmdyno.tune.spend import Spend, parse_budget, show_budget


@pytest.mark.parametrize(
    ("text", "limit_s"),
    [("30m", 1800), ("90", 90), ("2mh", 7200), ("0.5 mh", 1800), ("$20", 18_000), ("$.4", 360)],
)
def test_a_budget_is_time_machine_hours_or_money(text: str, limit_s: float) -> None:
    study = study_spec({"budget": text, "price": "4/h"})

    assert study.limit_s == pytest.approx(limit_s)
    assert study.budget_s is not None
    assert parse_budget(show_budget(study.budget_s), "--budget") == study.budget_s


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"budget": "soon"}, "--budget soon: write a time such as 30m or 2h, machine hours"),
        ({"budget": "-5m"}, "--budget -5m: write a time such as 30m"),
        ({"budget": "$20"}, "--budget $20: needs the machine's price, e.g. --price 3.50/h."),
        ({"budget": "$0", "price": "2/h"}, "--budget $0: must be more than 0."),
        ({"budget": "0mh"}, "--budget 0mh: must be more than 0."),
    ],
)
def test_a_budget_that_cannot_be_is_one_sentence(given: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        study_spec(given)

    assert str(caught.value).startswith(words)


def test_money_buys_machine_hours() -> None:
    assert Spend(amount=7.0, unit="money").machine_s(3.5) == 7200
