"""Results of GenAI-Perf."""

from pathlib import Path

from importers.tool_samples import SAMPLES, altered, sample
from llmdyno.importers import import_file


def test_genai_perf_is_read() -> None:
    (imported,) = import_file(SAMPLES / "genai_perf.json")["levels"]

    assert (imported["users"], imported["requests"]["completed"]) == (100, 200)
    assert imported["requests"]["failed"] is None
    assert (imported["ttft_ms"]["mean"], imported["tpot_ms"]["mean"]) == (184, 2.25)
    assert imported["tokens"]["output"] == 513150
    assert (imported["token_rate"]["mean"], imported["request_rate"]["mean"]) == (44190, 17.2)


def test_genai_perf_without_a_stream_has_no_first_token(tmp_path: Path) -> None:
    config = {**sample("genai_perf.json")["input_config"], "streaming": False}

    (imported,) = import_file(altered(tmp_path, "genai_perf.json", input_config=config))["levels"]

    assert set(imported["ttft_ms"].values()) == {None}
    assert imported["e2e_ms"]["mean"] == 5767
