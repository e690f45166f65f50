"""The rules that hold for all metrics are whole sentences."""

import pytest

from llmdyno.report.definitions import RULES


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_a_sentence(rule: str) -> None:
    assert rule[0].isupper()
    assert rule.endswith(".")
    assert "  " not in rule


def test_the_rules_say_what_becomes_of_failed_requests() -> None:
    assert any("Failed requests are never in latency percentiles" in rule for rule in RULES)
