"""The server's page of metrics: what was counted, under the names that we read ourselves."""

import pytest

from llmdyno.bench.server_metrics import read_page, recognise
from llmdyno.embedded.messages import Load
from llmdyno.embedded.metrics import OUTCOMES, Metrics


def test_the_page_is_known_and_has_what_was_counted() -> None:
    metrics = Metrics()
    for outcome in OUTCOMES:
        metrics.ended(outcome)
    metrics.prompt_tokens.inc(30)
    metrics.generation_tokens.inc(12)
    metrics.time_to_first_token.observe(0.2)
    metrics.loaded(Load(3, 2, 0.25))

    page = metrics.text()
    server = recognise(page)
    assert server is not None
    values = read_page(page, server)

    assert values["output_tokens"] == 12
    assert values["input_tokens"] == 30
    assert (values["running"], values["waiting"]) == (3, 2)
    assert values["ttft_sum_s"] / values["ttft_count"] == pytest.approx(0.2)
    assert b'llmdyno_requests_total{outcome="cancelled"} 1.0' in page


def test_an_outcome_that_is_none_is_our_own_mistake() -> None:
    with pytest.raises(KeyError):
        Metrics().ended("vanished")


def test_two_servers_of_one_process_count_for_themselves() -> None:
    one, other = Metrics(), Metrics()

    one.generation_tokens.inc(5)

    assert b"llmdyno_generation_tokens_total 5.0" in one.text()
    assert b"llmdyno_generation_tokens_total 0.0" in other.text()
