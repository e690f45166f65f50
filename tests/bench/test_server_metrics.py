"""A server's page of metrics: whose it is, and its values under our names."""

import pytest

from llmdyno.bench.server_metrics import pages, read_page, recognise
from llmdyno.records.server_page import MetricsPage, Series


def page_of(**series: Series) -> MetricsPage:
    return MetricsPage(kind="x", prefix="x:", series=series)


PAGE = b"""\
# HELP x:running Now.
x:running{rank="0"} 3.0
x:running{rank="1"} 5.0 1700000000
x:running_by{rank="0"} 99
x:use{label="a}b\\"c"} 0.25 # {trace_id="1"} 9.0
x:odd NaN
x:torn{
"""


@pytest.mark.parametrize(
    ("series", "value"),
    [
        (Series(names=("x:running",), several="sum"), 8.0),
        (Series(names=("x:running",), several="max"), 5.0),
        (Series(names=("x:running",), several="least"), 3.0),
        (Series(names=("x:running",), label='rank="1"'), 5.0),
        (Series(names=("x:none", "x:use"), scale=100.0), 25.0),
        (Series(names=("x:odd",)), None),
        (Series(names=("x:torn",)), None),
        (Series(names=("x:none",)), None),
    ],
)
def test_a_value_is_read_as_its_row_says(series: Series, value: float | None) -> None:
    assert read_page(PAGE, page_of(found=series)).get("found") == value


def test_a_page_is_known_by_the_names_on_it() -> None:
    def kind(page: bytes) -> str | None:
        found = recognise(page)
        return found.kind if found else None

    assert kind(b"llmdyno_streamer_tokens_total 5\n") == "streamer"
    assert kind(b"# HELP\nvllm:num_requests_running 1\n") == "vllm"
    assert kind(b"process_cpu_seconds_total 1\n") is None
    assert kind(b"<html>vllm: a page about it</html>") is None
    assert kind(b"") is None


def test_each_page_is_of_a_kind_of_its_own() -> None:
    kinds = [page.kind for page in pages()]

    assert len(set(kinds)) == len(kinds)
