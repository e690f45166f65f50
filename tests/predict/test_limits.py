"""The distance from the limit, on a study's page where GPU and model are known."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmdyno.machine import hardware
from llmdyno.predict.calibrate import prior
from llmdyno.predict.forecast import Point, Setup, forecast
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.limits import run_with_limits, with_limits
from llmdyno.predict.server import server_of
from llmdyno.predict.shapes import shape_of
from llmdyno.report import run_page, study_page
from llmdyno.results import wording
from llmdyno.results.limit_words import line
from llmdyno.units import Lengths

EVIDENCE = Path(__file__).parents[2] / "evidence/full-graphs"
STUDY = EVIDENCE / "h200/study.json"
RUN = EVIDENCE / "h100/runs/20261127-063315-confirm-1-6fb2/summary.json"


def test_a_study_says_how_far_it_is_from_the_limit() -> None:
    study = json.loads(STUDY.read_text()) | {"model": "llama-3-8b"}
    found = with_limits(study)
    [level] = found["baseline"]["summary"]["levels"]
    limit = level["limit"]
    # By hand: 15.0 GB of weights (all but the table of tokens) each TPOT, and a little cache.
    tpot_s = level["tpot_ms"]["p50"] / 1e3
    assert limit["mbu"] == pytest.approx(15.0e9 / tpot_s / 4.8e12, rel=0.25)
    assert 0 < limit["mfu"] < limit["mbu"] < 1
    assert limit["share"] == limit["mbu"]
    low, high = limit["predicted"]["token_rate"]["ci80"]
    assert low < limit["predicted"]["token_rate"]["mean"] < high
    page = study_page(found, {})
    assert (
        f"{wording.share(limit['share'])} of what this GPU&#39;s memory bandwidth allows; bound by"
        in page
    )


@pytest.mark.parametrize(
    "change",
    [
        {"model": "/gone/folder"},
        {"environment": {"gpus": []}},
        {"engine": "mlc-llm"},
        {"engine_args": ["--quantization=fp8"]},
    ],
)
def test_what_is_not_known_is_not_said(change: dict[str, object]) -> None:
    study = json.loads(STUDY.read_text()) | {"model": "llama-3-8b"} | change
    assert with_limits(study) == study
    assert "Distance from the limit" not in study_page(with_limits(study), {})


def test_settings_that_a_prediction_leaves_out_are_named_beside_it() -> None:
    study = json.loads(STUDY.read_text()) | {"model": "llama-3-8b"}
    assert "is not simulated" not in study_page(with_limits(study), {})
    study["baseline"]["config"] = {"max_num_seqs": 64, "stream_interval": 8}
    found = with_limits(study)
    [level] = found["baseline"]["summary"]["levels"]
    assert level["limit"]["not_simulated"] == "stream_interval=8"
    left_out = "What stream_interval=8 changes is not simulated, and not in the numbers"
    assert left_out in study_page(found, {})
    assert line(level).endswith(f"{left_out}.")


def test_an_engine_on_the_cpu_is_not_judged_against_the_gpu_beside_it() -> None:
    run = json.loads(RUN.read_text())
    assert run["environment"]["gpus"]
    server = {"engine": "openvino", "front": "native", "model": "qwen3-0.6b", "config": {}}
    run["environment"] |= {"server": server, "cpu": {"model": "of another machine"}}
    assert run_with_limits(run) == run
    run["environment"]["cpu"] = {"model": hardware.cpu().model}
    [level] = run_with_limits(run)["levels"]
    assert level["limit"]["machine"] == "CPU"
    assert "this CPU's" in line(level)
    assert level["limit"]["peaks"]["with_result"] is False
    assert "was not kept with it; it was measured here on" in run_page(run_with_limits(run))


def test_the_peaks_that_stand_beside_a_run_are_those_of_its_page_anywhere() -> None:
    run = json.loads(RUN.read_text())
    peaks: dict[str, object] = {"bytes_s": 4e10, "near_bytes_s": 4e10, "flops": 2e12, "cores": 8}
    peaks |= {"cpu": "of another machine", "measured": "2026-11-29T19:38:45+00:00"}
    server = {"engine": "openvino", "front": "native", "model": "qwen3-0.6b", "config": {}}
    run["environment"] |= {"server": server, "cpu": {"model": peaks["cpu"], "peaks": peaks}}
    [level] = run_with_limits(run)["levels"]
    run["environment"]["cpu"] = {"model": peaks["cpu"], "peaks": peaks | {"flops": 1e12}}
    [slower] = run_with_limits(run)["levels"]
    assert slower["limit"]["mfu"] == pytest.approx(2 * level["limit"]["mfu"], rel=0.01)
    assert "measured on 2026-11-29" in run_page(run_with_limits(run))


def test_a_run_whose_server_dyno_has_started_says_it_too() -> None:
    run = json.loads(RUN.read_text())
    assert run_with_limits(run) == run
    server = {"engine": "vllm", "front": "native", "model": "llama-3-8b", "config": {}}
    run["environment"]["server"] = server
    found = run_with_limits(run)
    [level] = found["levels"]
    assert 0 < level["limit"]["share"] < 1
    assert line(level).startswith("100 users: ")
    assert "predicted from data sheets" in run_page(found)
    run["environment"]["server"] = {**server, "engine_args": ["--quantization=fp8"]}
    assert run_with_limits(run) == run  # that is another server than its config says
    run["environment"]["server"] = {**server, "engine_args": [], "config": {"max_num_seqs": 16}}
    slower = run_with_limits(run)["levels"][0]["limit"]["predicted"]["token_rate"]["mean"]
    assert slower < level["limit"]["predicted"]["token_rate"]["mean"] / 2


def test_ranks_share_the_load_and_the_limit() -> None:
    """Two ranks under twice the users do twice as much; each GPU does what the one alone did."""

    def limit(ranks: int) -> dict[str, Any]:
        run = json.loads(RUN.read_text())
        config = {"data_parallel_size": ranks} if ranks > 1 else {}
        server = {"engine": "vllm", "front": "native", "model": "llama-3-8b", "config": config}
        run["environment"]["server"] = server
        [level] = run["levels"]
        level["users"] *= ranks
        for name in ("mean", "ci95"):
            value = level["token_rate"][name]
            times = [each * ranks for each in value] if isinstance(value, list) else value * ranks
            level["token_rate"][name] = times
        found: dict[str, Any] = run_with_limits(run)["levels"][0]["limit"]
        return found

    one, two = limit(1), limit(2)

    assert (two["mbu"], two["mfu"]) == pytest.approx((one["mbu"], one["mfu"]), rel=0.01)
    rates = [each["predicted"]["token_rate"]["mean"] for each in (one, two)]
    assert rates[1] == pytest.approx(2 * rates[0], rel=0.1)


def test_users_that_do_not_go_evenly_into_ranks_are_as_many_as_there_are() -> None:
    def predicted(users: int) -> float:
        run = json.loads(RUN.read_text())
        server = {"engine": "vllm", "front": "native", "model": "llama-3-8b"}
        run["environment"]["server"] = server | {"config": {"data_parallel_size": 8}}
        run["levels"][0]["users"] = users
        limit = run_with_limits(run)["levels"][0]["limit"]
        rate: float = limit["predicted"]["token_rate"]["mean"]
        return rate

    # The ninth user shares a rank with another one; the other seven ranks are as before.
    assert predicted(9) == pytest.approx(predicted(8) * 9 / 8, rel=0.05)
    assert predicted(16) > 1.5 * predicted(9)


def test_prompts_that_a_prefix_cache_holds_are_not_computed() -> None:
    """Where the server counts no hits, those of a cache that never evicts stand for them."""

    def used(*, cached: bool) -> float:
        run = json.loads(RUN.read_text())
        server = {"engine": "vllm", "front": "native", "model": "llama-3-8b"}
        run["environment"]["server"] = server | {"config": {"enable_prefix_caching": cached}}
        [level] = run["levels"]
        level["server"] = {**(level.get("server") or {}), "prefix_cache_hits": None}
        level["prefix"] = {"ideal_hit_rate": 1.0}
        share: float = run_with_limits(run)["levels"][0]["limit"]["mfu"]
        return share

    [level] = json.loads(RUN.read_text())["levels"]
    prompts_for_each_token = level["tokens"]["input"] / level["tokens"]["output"]
    assert used(cached=False) / used(cached=True) == pytest.approx(
        1 + prompts_for_each_token, rel=0.05
    )


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_a_mixture_of_experts_is_not_said_to_beat_its_gpu(engine: str) -> None:
    """Few tokens read few experts, whatever prompts read in between: 133 % had been said."""
    setup = Setup(engine, shape_of("qwen3-30b-a3b"), gpu_of("h100"))
    isl, osl = Lengths("fixed", 1000), Lengths("fixed", 200)
    found = forecast(setup, Point(users=4, isl=isl, osl=osl, duration_s=15.0), prior())
    work = server_of(setup).work
    alone = work.read_bytes(4) / work.bandwidth  # of a step of four tokens
    assert found.limit_share == found.mbu
    assert alone / (found.tpot_ms_p50.mean / 1e3) < found.mbu < 1
