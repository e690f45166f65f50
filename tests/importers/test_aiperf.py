"""Results of AIPerf."""

from importers.tool_samples import SAMPLES
from llmdyno.importers import import_file


def test_aiperf_is_read() -> None:
    document = import_file(SAMPLES / "aiperf.json")

    (imported,) = document["levels"]
    assert document["imported"]["version"] == "0.13.0"
    assert document["spec"]["model"] == "Qwen/Qwen3-8B"
    assert document["spec"]["url"] == "http://gpu1:8000/v1"
    assert (imported["users"], imported["arrival"], imported["duration_s"]) == (50, "closed", 100)
    assert imported["requests"] == {
        "completed": 970,
        "failed": 30,
        "cut": None,
        "errors": {"HTTPError 503": 20, "TimeoutError": 10},
    }
    assert imported["tokens"] == {"input": 496640, "output": 248320, "source": "usage"}
    assert imported["ttft_ms"]["mean"] == 120
    assert imported["itl_ms"]["mean"] == 12.5
    assert imported["tpot_ms"]["mean"] == 12
    assert imported["e2e_ms"]["p99"] == 5120
    assert (imported["token_rate"]["mean"], imported["goodput"]["mean"]) == (2483.2, 9.1)


def test_the_first_shape_of_aiperf_is_read() -> None:
    document = import_file(SAMPLES / "aiperf_first.json")

    (imported,) = document["levels"]
    assert (imported["users"], imported["arrival"], imported["interrupted"]) == (
        None,
        "gamma",
        True,
    )
    assert document["spec"]["load"]["request_rate"] == 10
    assert imported["tokens"]["output"] == 970 * 256
    assert set(imported["itl_ms"].values()) == {None}
