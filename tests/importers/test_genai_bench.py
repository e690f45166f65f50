"""Results of genai-bench."""

from importers.tool_samples import SAMPLES
from llmdyno.importers import import_file


def test_genai_bench_is_read() -> None:
    document = import_file(SAMPLES / "genai_bench.json")

    (level,) = document["levels"]
    assert (level["users"], level["arrival"], level["duration_s"]) == (8, "closed", 40)
    assert level["requests"] == {
        "completed": 110,
        "failed": 10,
        "cut": None,
        "errors": {"HTTP 503": 7, "HTTP 429": 3},
    }
    assert level["asked"] == {
        "requests": 120,
        "output_tokens": 100,
        "config": {"scenario": "D(100,100)"},
    }
    assert (level["tokens"]["input"], level["tokens"]["output"]) == (9900, 11000)  # 110 times
    # The file is in ms; its statistics are of 100 requests, the others were its warm-up.
    assert (level["ttft_ms"]["mean"], level["ttft_ms"]["p99"], level["ttft_ms"]["n"]) == (
        *(250, 750),
        100,
    )
    assert (level["tpot_ms"]["mean"], level["e2e_ms"]["max"]) == (31.25, 4250)
    assert set(level["itl_ms"].values()) == {None}
    assert (level["token_rate"]["mean"], level["request_rate"]["mean"]) == (250, 2.75)


def test_genai_bench_before_it_had_a_unit_is_in_seconds() -> None:
    (level,) = import_file(SAMPLES / "genai_bench_first.json")["levels"]

    assert (level["ttft_ms"]["p50"], level["e2e_ms"]["p99"]) == (125, 4000)
    assert (level["request_rate"]["mean"], level["duration_s"]) == (2.75, None)  # 165 a minute
