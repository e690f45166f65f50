"""Speculative decoding: acceptance as vLLM counts it and as SGLang shows it."""

import pytest

from llmdyno import plugins
from llmdyno.bench.server_metrics import read_page
from llmdyno.records.entries import Scrape
from llmdyno.results import speculation
from llmdyno.results.crosscheck import ClientSide, server_part

VLLM = """\
vllm:generation_tokens_total{{model_name="m"}} {output}
vllm:spec_decode_num_drafts_total{{model_name="m"}} {drafts}
vllm:spec_decode_num_draft_tokens_total{{model_name="m"}} {drafted}
vllm:spec_decode_num_accepted_tokens_total{{model_name="m"}} {accepted}
vllm:spec_decode_num_accepted_tokens_per_pos_total{{model_name="m",position="0"}} 7
"""
SGLANG = """\
sglang:spec_accept_length{model_name="m",tp_rank="0"} 2.5
sglang:spec_accept_rate{model_name="m",tp_rank="0"} 0.5
"""


def scraped(moment: str, values: dict[str, float]) -> Scrape:
    return Scrape(level=0, t_ns=0, moment=moment, kind="vllm", values=values)  # type: ignore[arg-type]


def level(accepted: int) -> dict[str, object]:
    """Return the `server` of a level with 400 drafts of four tokens each."""
    page = plugins.load("engines", "vllm").metrics
    assert page is not None
    before, after = (
        read_page(VLLM.format(output=o, drafts=d, drafted=4 * d, accepted=a).encode(), page)
        for o, d, a in ((100, 10, 9), (1500, 410, 9 + accepted))
    )
    seen = ClientSide(
        input_tokens=0,
        output_tokens=1400,
        requests=1,
        cut=0,
        failed=0,
        ttft_ms_mean=None,
        source="usage",
        input_tokens_shared=None,
        late_ms_p50=None,
    )
    part = server_part([[scraped("before", before), scraped("after", after)]], seen)
    assert part is not None
    return part


def test_acceptance_is_what_the_counters_rose_by() -> None:
    part = level(accepted=1000)

    assert part["speculation"] == {
        "acceptance_length": 3.5,  # 1000 / 400, and the token of the target itself
        "acceptance_rate": 0.625,
        "drafted_tokens": 1600,
    }
    assert part["findings"] == {}


def test_acceptance_that_cannot_be_is_doubted() -> None:
    findings = level(accepted=1600)["findings"]

    assert isinstance(findings, dict)
    assert findings["forced-acceptance"].startswith("100.0 % of the drafted tokens were accepted")


def test_gauges_are_averaged() -> None:
    page = plugins.load("engines", "sglang").metrics
    assert page is not None
    values = read_page(SGLANG.encode(), page)

    assert speculation.part_of({}, [values, {**values, "accept_length": 3.5}, {}]) == {
        "acceptance_length": 3.0,
        "acceptance_rate": 0.5,
        "drafted_tokens": None,
    }


@pytest.mark.parametrize("rise", [{}, {"drafts": 0.0, "drafted_tokens": 0.0}])
def test_a_server_that_does_not_speculate_has_no_part(rise: dict[str, float]) -> None:
    assert speculation.part_of(rise, [{}]) is None
