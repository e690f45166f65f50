"""`dyno plan` from end to end: no GPU, no engine, no network."""

import json
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmdyno.cli import flags
from llmdyno.cli.plan import plan_flags
from llmdyno.errors import UsageError
from llmdyno.predict import planning
from llmdyno.predict.asked import Plan
from llmdyno.predict.planning import Planned, make
from llmdyno.predict.prices import PRICES
from llmdyno.report.plan_page import of_plan
from llmdyno.results.slo import parse_slos
from llmdyno.units import Lengths

SHORT = {"model": "meta-llama/Llama-3.1-8B", "gpu": "h200", "duration_s": 10.0}
LENGTHS = {"isl": Lengths("fixed", 200), "osl": Lengths("fixed", 50)}


def planned(*settings: str, **wishes: Any) -> Planned:
    return make(Plan(**{**SHORT, **LENGTHS, **wishes}), settings)


@pytest.fixture
def measured_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tables in tmp_path be of the machine that plans."""
    monkeypatch.setattr(planning, "this_machine_ids", lambda: frozenset({"here"}))
    (tmp_path / "environment.json").write_text('{"boot": "here"}')


@pytest.mark.parametrize(
    ("engine", "settings", "tested"),
    [
        ("vllm", (), True),
        ("sglang", ("dtype=bfloat16",), True),
        ("lmdeploy", ("backend=pytorch", "dtype=float16"), True),
        ("lmdeploy", (), False),
        ("tensorrt-llm", (), False),
    ],
)
def test_an_engine_that_no_run_has_tested_is_doubted(
    engine: str, settings: tuple[str, ...], tested: bool
) -> None:
    wishes = {"users": (2,), "config_only": True, "engines": (engine,)}
    [found] = planned(*settings, **wishes).document["engines"]
    assert (found["doubt"] == "") == tested
    assert tested or found["doubt"].startswith(f"No measured run of {engine} has tested")


@pytest.mark.usefixtures("measured_here")
def test_a_gpu_that_no_run_has_tested_is_doubted(tmp_path: Path) -> None:
    wishes: dict[str, Any] = {"users": (2,), "config_only": True}
    said = "No measured run on such a GPU has tested the predictor: L4"
    for gpu, doubt in (("h100", ""), ("h200", ""), ("l4", said)):
        [found] = planned(gpu=gpu, **wishes).document["engines"]
        assert found["doubt"] == doubt
    file = tmp_path / "points.csv"
    file.write_text(
        "users,input_tokens_mean,output_tokens_mean,token_rate,ttft_ms_p50,tpot_ms_p50,duration_s\n"
        "2,200,50,60,100,30.0,10\n"
    )
    [found] = planned(gpu="l4", measured=(str(file),), **wishes).document["engines"]
    assert found["doubt"] == ""


@pytest.mark.parametrize(("engine", "tested"), [("vllm", True), ("sglang", False)])
def test_an_engine_is_tested_on_the_gpus_that_it_was_measured_on(engine: str, tested: bool) -> None:
    """SGLang was measured on an H200 alone: on an H100 it is doubted, and its interval is wider."""
    wishes: dict[str, Any] = {"users": (4,), "config_only": True, "engines": (engine,)}
    h200, h100, like = (
        planned(gpu=gpu, **wishes).document
        for gpu in ("h200", "h100", "memory=79.6,bandwidth=3350,bf16=989.4,fp8=1978.9")
    )
    assert not h200["engines"][0]["doubt"]
    said = "" if tested else f"No measured run of {engine} on such a GPU has tested the predictor"
    assert h100["engines"][0]["doubt"].startswith(said)
    assert bool(h100["engines"][0]["doubt"]) != tested
    known, never = (one["points"][0]["token_rate"]["ci80"] for one in (h100, like))
    assert (known[1] / known[0] < 0.99 * never[1] / never[0]) == tested


def test_lengths_and_levels_that_do_not_fit_one_another_are_doubted() -> None:
    long = {"isl": Lengths("fixed", 200_000), "users": (1,), "config_only": True}
    [found] = planned(**long).document["engines"]
    assert "was made for 131,072 tokens, and 200,050 tokens are asked" in found["doubt"]
    assert "the level 10 s: few or none end in it" in found["doubt"]
    [found] = planned(**long | {"isl": Lengths("fixed", 1000)}).document["engines"]
    assert not found["doubt"]


def test_an_slo_that_the_largest_level_misses_says_which_one_meets_it() -> None:
    slos = tuple(parse_slos("ttft:p99<200ms"))
    found = planned(users=(2, 4, 3000), slos=slos)
    assert found.nothing_meets.endswith(" It is met at 4 users.")


def test_the_contract_for_scripts() -> None:
    document = planned("max_num_seqs=64", users=(8, 2), config_only=True).document
    assert document["schema"] == "llmdyno.plan/1"
    assert (document["engine"], document["gpu"]) == ("vllm", "H200 SXM")
    assert document["calibrated_on"] == 0
    assert document["recommended"] is None
    assert [point["users"] for point in document["points"]] == [2, 8]
    for point in document["points"]:
        assert point["config"] == {"max_num_seqs": 64}
        assert (point["isl"], point["osl"], point["fits"]) == (200, 50, True)
        assert point["bound_by"]
        for metric in ("token_rate", "ttft_ms_p50", "tpot_ms_p50"):
            low, high = point[metric]["ci80"]
            assert 0 < low <= point[metric]["mean"] <= high
    slow, fast = (point["token_rate"]["mean"] for point in document["points"])
    assert fast > 2 * slow


def test_a_small_cap_is_lifted() -> None:
    made = planned("max_num_seqs=4", users=(32,), price_per_h=3.6)
    recommended = made.document["recommended"]
    assert recommended["config"]["max_num_seqs"] > 4
    assert recommended["token_rate_ratio"] > 1.5
    assert "quantization" not in recommended["config"]  # it would alter the tokens
    assert recommended["command"][-2:] == ["--set", "max_num_seqs=4"]
    before, after = made.document["points"]
    cost = 3.6 / 3600 / before["token_rate"]["mean"] * 1e6
    assert before["cost_per_million_tokens"] == pytest.approx(cost, rel=1e-4)
    assert after["config"] == recommended["config"]
    rates = [one["token_rate"] for one in made.document["front"]]
    assert rates == sorted(rates)


def test_the_study_that_would_prove_it_can_be_read(tmp_path: Path) -> None:
    made = planned("max_num_seqs=4", users=(32,), slos=parse_slos("ttft:p99<5s;itl:p50<1s"))
    file = tmp_path / "study.toml"
    file.write_text(made.study)
    assert tomllib.loads(made.study)["baseline"] == {"max_num_seqs": 4}
    study = flags.study_spec(flags.read_toml(file))
    assert study.load.users == (32,)
    assert [slo.expr for slo in study.slos] == ["ttft:p99<5s", "itl:p50<1s"]
    assert int(study.candidates[0]["max_num_seqs"]) > 4


def test_a_short_name_is_none_that_the_study_could_serve() -> None:
    short = planned(users=(4,), model="llama3.1:8b").document["recommended"]
    assert short["command_needs"].endswith("organisation/name, in place of llama3.1:8b")
    assert f"# {short['command_needs']}." in short["study_toml"]
    whole = planned(users=(4,)).document["recommended"]
    assert whole["command_needs"] == ""
    assert "#" not in whole["study_toml"].partition("\n")[2]


def test_what_does_not_fit_is_said_with_the_sum_and_what_would_do() -> None:
    made = planned(model="llama-3.1-70b", gpu="h100", users=(1,), config_only=True)
    assert made.document["points"][0]["fits"] is False
    assert "weights 131.4 GiB" in made.does_not_fit
    assert made.does_not_fit.endswith("--gpus 2 would do.")


def test_an_slo_that_nothing_meets_is_said_with_the_nearest() -> None:
    made = planned(users=(4,), slos=parse_slos("ttft:p99<1us"))
    assert made.document["recommended"] is None
    assert made.nothing_meets.startswith("--slo ttft:p99<1us: no config of vllm meets it on 1 x")
    assert "the nearest has" in made.nothing_meets


def test_rates_say_how_many_replicas() -> None:
    made = planned(rates=(1000.0, 2.0), gpus=1)
    capacity = made.document["recommended"]["capacity"]
    few, many = capacity["needs"]
    assert (few["request_rate"], few["replicas"]) == (2.0, 1)
    assert many["replicas"] == -(-1000 // capacity["request_rate_each"])
    assert many["gpus"] == many["replicas"]
    assert "request_rate" in made.document["points"][0]


def test_a_rate_at_which_hardly_a_request_comes_is_predicted() -> None:
    point = planned(rates=(0.001,)).document["points"][0]
    assert point["token_rate"]["mean"] == pytest.approx(0.001 * 50, rel=0.01)
    assert point["fits"]


def test_users_are_shared_out_among_copies_and_the_proof_has_those_of_one() -> None:
    alone, eight = (
        planned("tensor_parallel_size=1", users=users, gpus=gpus).document
        for users, gpus in (((1,), 1), ((4, 9), 8))
    )
    one_user = alone["points"][0]["token_rate"]["mean"]
    few, many = (point["token_rate"]["mean"] for point in eight["points"][:2])
    assert few == pytest.approx(4 * one_user, rel=0.01)  # four copies are idle
    assert 8 * one_user < many < 9.1 * one_user
    command, copies = eight["recommended"]["command"], eight["recommended"]["copies"]
    of_one = ",".join(str(users) for users in sorted({-(-4 // copies), -(-9 // copies)}))
    assert command[command.index("-c") + 1] == of_one


def test_copies_are_tried_where_the_user_leaves_the_spread_open() -> None:
    """A model that fits one GPU gains less from eight as one server than from eight copies."""
    document = planned(users=(800,), gpus=8).document
    found = document["recommended"]
    assert (found["copies"], found["gpus_each"]) == (8, 1)
    assert "tensor_parallel_size=1" in found["changes"].split()
    assert document["engines"][0]["before"]["config"] == {"tensor_parallel_size": 8}
    before, after = document["points"]
    assert after["token_rate"]["mean"] > 2 * before["token_rate"]["mean"]
    said = planned("tensor_parallel_size=1", users=(800,), gpus=8, config_only=True).document
    assert after["token_rate"]["mean"] > 0.99 * said["points"][0]["token_rate"]["mean"]
    assert tomllib.loads(found["study_toml"])["baseline"] == {"tensor_parallel_size": 1}


@pytest.mark.parametrize(
    ("slo", "objective"), [("tpot:p95<1s", "tpot:p95"), ("token_rate>10", "ttft:p99")]
)
def test_the_proof_at_a_rate_asks_for_the_part_of_a_copy(slo: str, objective: str) -> None:
    wishes: dict[str, Any] = {"rates": (2.0, 1.0), "gpus": 2, "slos": parse_slos(slo)}
    found = planned("tensor_parallel_size=1", **wishes).document["recommended"]
    assert found["copies"] == 2
    command, file = found["command"], tomllib.loads(found["study_toml"])
    assert command[command.index("--request-rate") + 1] == "0.5,1"
    assert command[command.index("--objective") + 1] == objective
    assert "-c" not in command
    assert (file["request_rate"], file["objective"]) == ([0.5, 1], objective)
    study = flags.study_spec(file)
    assert (study.load.points, str(study.objective)) == ((0.5, 1.0), objective)


def test_the_proof_of_a_rate_that_nothing_keeps_up_with_has_users() -> None:
    found = planned(rates=(900.0,)).document["recommended"]
    assert "--request-rate" not in found["command"]
    (users,) = tomllib.loads(found["study_toml"])["users"]
    assert users > 1


def test_the_proof_of_one_copy_asks_for_its_part_of_the_rates() -> None:
    wishes: dict[str, Any] = {"users": (100,), "gpus": 8}
    slos = parse_slos("token_rate>3000,request_rate>1.2,tpot:p50<1s")
    found = planned("tensor_parallel_size=1", slos=slos, **wishes).document["recommended"]
    assert found["copies"] == 8
    of_one = "token_rate>375,request_rate>0.15,tpot:p50<1s"
    assert found["command"][found["command"].index("--slo") + 1] == of_one
    assert tomllib.loads(found["study_toml"])["slo"] == of_one


@pytest.mark.parametrize(
    ("engine", "ranks", "one_gpu"),
    [
        ("vllm", "data_parallel_size", "tensor_parallel_size"),
        ("sglang", "dp_size", "tp_size"),
        ("lmdeploy", "dp", "tp"),
    ],
)
def test_ranks_share_the_load_out_as_copies_do(engine: str, ranks: str, one_gpu: str) -> None:
    wishes: dict[str, Any] = {"engines": (engine,), "users": (3, 40), "gpus": 4}
    at_rank = planned(f"{ranks}=4", config_only=True, **wishes).document
    at_copy = planned(f"{one_gpu}=1", config_only=True, **wishes).document
    for one, other in zip(at_rank["points"], at_copy["points"], strict=True):
        assert (one["copies"], one["gpus"], other["copies"]) == (1, 4, 4)
        assert one["token_rate"] == other["token_rate"]
    found = planned(f"{ranks}=2", **wishes).document["recommended"]
    users = ",".join(str(-(-users // found["copies"])) for users in (3, 40))
    assert found["command"][found["command"].index("-c") + 1] == users


@pytest.mark.parametrize(
    ("engine", "settings", "said"),
    [
        ("vllm", "tensor_parallel_size=8", "tensor_parallel_size=8: takes 8 GPUs, and there are 2"),
        (
            "vllm",
            "tensor_parallel_size=2 pipeline_parallel_size=2 data_parallel_size=2",
            "takes 2 x 2 x 2 = 8 GPUs, and there are 2; give --gpus 8, or set fewer.",
        ),
        ("vllm", "data_parallel_size=4", "data_parallel_size=4: takes 4 GPUs"),
        ("sglang", "tp_size=2 dp_size=2", "tp_size=2 dp_size=2: takes 2 x 2 = 4 GPUs"),
        ("lmdeploy", "tp=4", "tp=4: takes 4 GPUs"),
        ("lmdeploy", "tp=2 dp=4", "tp=2 dp=4: takes 2 x 4 = 8 GPUs"),
        (
            "tensorrt-llm",
            "tensor_parallel_size=2 pipeline_parallel_size=2",
            "takes 2 x 2 = 4 GPUs, and there are 2",
        ),
    ],
)
def test_a_config_that_takes_more_gpus_than_there_are_is_refused(
    engine: str, settings: str, said: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        planned(*settings.split(), engines=(engine,), gpus=2, config_only=True)


def test_one_gpu_is_not_two() -> None:
    with pytest.raises(UsageError, match=r"takes 2 GPUs, and there is 1; give --gpus 2"):
        planned("tensor_parallel_size=2", config_only=True)
    with pytest.raises(UsageError, match=r"takes 4 GPUs, and there is 1; give --gpus 4"):
        planned(what_if=("tensor_parallel_size=4",), config_only=True)


def test_batches_of_a_pipeline_do_as_much_as_copies_where_the_gpu_is_the_limit() -> None:
    """Each stage reads its weights once a batch, and as many batches as stages are under way."""
    wishes: dict[str, Any] = {"users": (1, 8), "gpus": 2, "model": "qwen3-32b", "gpu": "h200"}
    wishes |= {"config_only": True}
    pipeline = planned("pipeline_parallel_size=2", **wishes).document
    copies = planned("tensor_parallel_size=1", **wishes).document
    for one, other in zip(pipeline["points"], copies["points"], strict=True):
        assert (one["gpus"], one["copies"], other["copies"]) == (2, 1, 2)
        assert one["token_rate"]["mean"] == pytest.approx(other["token_rate"]["mean"], rel=0.05)
    side, each = (found["engines"][0]["before"] for found in (pipeline, copies))
    assert side["cache_tokens"] > 2 * each["cache_tokens"]  # the weights are there once
    assert "batches of a pipeline" in pipeline["engines"][0]["doubt"]
    assert "No measured run of one server over several GPUs" in pipeline["engines"][0]["doubt"]
    both = planned("pipeline_parallel_size=2", **wishes | {"gpus": 4}).document["points"][0]
    assert both["config"] == {"pipeline_parallel_size": 2, "tensor_parallel_size": 2}


def test_one_host_plans_all_batches_of_a_pipeline_in_turn() -> None:
    """So two users of a small model are slower than on copies, and one alone is not."""
    wishes: dict[str, Any] = {"users": (1, 2, 64), "gpus": 4, "gpu": "h100", "config_only": True}
    points = [
        planned(setting, **wishes).document["points"]
        for setting in ("pipeline_parallel_size=4", "tensor_parallel_size=1")
    ]
    alone, two, many = (
        one["token_rate"]["mean"] / other["token_rate"]["mean"]
        for one, other in zip(*points, strict=True)
    )
    assert alone == pytest.approx(1, rel=0.01)
    assert many < two < 0.97
    assert points[0][2]["bound_by"] == "host"


def test_a_pipeline_that_is_seldom_asked_waits_for_no_other_batch() -> None:
    wishes: dict[str, Any] = {"rates": (0.1,), "gpus": 4, "gpu": "h100", "config_only": True}
    one, other = (
        planned(setting, **wishes).document["points"][0]["tpot_ms_p50"]["mean"]
        for setting in ("pipeline_parallel_size=4", "tensor_parallel_size=1")
    )
    assert one == pytest.approx(other, rel=0.03)


def test_a_knob_that_is_not_simulated_is_named_and_so_are_doubts_of_what_ifs() -> None:
    made = planned("performance_mode=throughput", "max_num_seqs=64", what_if=("gpu=l4",))
    [engine], [changed] = made.document["engines"], made.document["what_if"]
    assert engine["doubt"] == (
        "What performance_mode=throughput changes is not simulated, and not in the numbers"
    )
    assert "No measured run on such a GPU has tested the predictor: L4" in changed["doubt"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (("load_format=dummy", "dtype=auto", "async_scheduling=true"), ""),
        (("async_scheduling=false", "performance_mode=balanced"), "async_scheduling=false"),
        (("dtype=bfloat16",), ""),
        (("dtype=half",), ""),
        (("dtype=float32",), "dtype=float32"),
    ],
)
def test_what_is_as_if_unset_or_changes_the_start_alone_is_not_doubted(
    settings: tuple[str, ...], named: str
) -> None:
    doubt = planned(*settings, users=(8,), config_only=True).document["engines"][0]["doubt"]
    said = f"What {named} changes is not simulated, and not in the numbers"
    assert doubt == (said if named else "")


def test_a_server_over_more_gpus_than_a_host_has_is_doubted() -> None:
    wishes: dict[str, Any] = {"users": (8,), "gpus": 16, "config_only": True}
    wide = planned("tensor_parallel_size=16", **wishes).document["engines"][0]
    assert "One server over 16 GPUs is on several hosts" in wide["doubt"]
    narrow = planned("tensor_parallel_size=8", **wishes).document["engines"][0]
    assert "several hosts" not in narrow["doubt"]


def test_gpus_that_stand_idle_are_named() -> None:
    found = planned("tensor_parallel_size=2", users=(8,), gpus=3, config_only=True).document
    assert "1 GPU of 3 would stand idle" in found["engines"][0]["doubt"]


def test_what_a_set_spread_needs_to_fit_is_said_with_it() -> None:
    found = planned("tensor_parallel_size=1", model="llama-3.1-70b", gpu="h100", gpus=1)
    assert found.does_not_fit.endswith("--gpus 2 with tensor_parallel_size=2 would do.")


@pytest.mark.parametrize(
    ("gpus", "settings", "would"),
    [
        (4, ("tensor_parallel_size=1",), "; tensor_parallel_size=2 would do."),
        (
            2,
            ("tensor_parallel_size=1", "data_parallel_size=2"),
            "; --gpus 4 with tensor_parallel_size=2 would do.",
        ),
    ],
)
def test_a_wider_spread_over_the_gpus_there_are_is_named_before_more_gpus(
    gpus: int, settings: tuple[str, ...], would: str
) -> None:
    found = planned(*settings, model="llama-3.1-70b", gpu="h100", gpus=gpus, users=(8,))
    assert found.does_not_fit.endswith(would)


def test_a_server_of_two_ranks_takes_twice_the_rate_of_one() -> None:
    """And its API servers are shared out among them."""
    one, two = (
        planned(*settings, rates=(50.0,), gpus=gpus, config_only=False).document["recommended"]
        for settings, gpus in (((), 1), (("data_parallel_size=2",), 2))
    )
    each = [found["capacity"]["request_rate_each"] for found in (one, two)]
    assert each[1] == pytest.approx(2 * each[0], rel=0.1)
    assert two["capacity"]["gpus_each"] == 2


def test_ranks_that_share_one_api_server_or_experts_are_doubted() -> None:
    wishes: dict[str, Any] = {"users": (4,), "gpus": 2, "config_only": True}
    own = planned("data_parallel_size=2", **wishes).document["engines"][0]
    assert not own["doubt"]
    shared = planned("data_parallel_size=2", "api_server_count=1", **wishes).document
    assert "2 ranks share 1 API server" in shared["engines"][0]["doubt"]
    mixture = planned("data_parallel_size=2", **wishes | {"model": "mixtral-8x7b"}).document
    assert "share the experts" in mixture["engines"][0]["doubt"]


def test_a_spread_that_the_user_sets_is_kept() -> None:
    wishes: dict[str, Any] = {"users": (800,), "gpus": 8}
    document = planned("tensor_parallel_size=4", what_if=("gpus=16",), **wishes).document
    assert document["recommended"]["config"]["tensor_parallel_size"] == 4
    assert document["recommended"]["copies"] == 2
    assert document["what_if"][0]["copies"] == 4


def test_what_if_changes_knobs_and_places() -> None:
    made = planned(
        "max_num_seqs=64",
        users=(4,),
        config_only=True,
        what_if=("max_num_seqs=2,gpu=l40s", "model=llama-3.2-1b"),
    )
    slower, smaller = made.document["what_if"]
    assert (slower["gpu"], slower["config"]) == ("L40S", {"max_num_seqs": 2})
    base = made.document["points"][0]["token_rate"]["mean"]
    assert slower["points"][0]["token_rate"]["mean"] < base
    assert smaller["points"][0]["token_rate"]["mean"] > base


def test_measured_points_calibrate(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    file.write_text(
        "max_num_seqs,users,input_tokens_mean,output_tokens_mean,token_rate,ttft_ms_p50,"
        "tpot_ms_p50,duration_s\n64,4,200,50,400,40,9.0,10\n64,8,200,50,780,45,9.2,10\n"
    )
    wishes: dict[str, Any] = {"users": (4,), "config_only": True}
    before = planned("max_num_seqs=64", **wishes).document["points"][0]["token_rate"]
    after = planned("max_num_seqs=64", measured=(str(file),), **wishes).document
    assert after["calibrated_on"] == 2
    assert abs(after["points"][0]["token_rate"]["mean"] - 400) < abs(before["mean"] - 400)


def test_runs_of_another_machine_leave_what_hosts_differ_by_in_the_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows of a table without an environment.json, or of a run elsewhere, whose it was."""
    monkeypatch.setattr(planning, "this_machine_ids", lambda: frozenset({"here"}))
    file, beside = tmp_path / "points.csv", tmp_path / "environment.json"
    file.write_text(
        "users,input_tokens_mean,output_tokens_mean,token_rate,ttft_ms_p50,tpot_ms_p50,duration_s\n"
        "4,200,50,400,40,9.0,10\n"
    )
    wishes: dict[str, Any] = {"users": (4,), "config_only": True, "measured": (str(file),)}

    def found() -> tuple[float, str]:
        document = planned("max_num_seqs=64", **wishes, what_if=("gpu=h100",)).document
        low, high = document["points"][0]["token_rate"]["ci80"]
        assert "known to be of this machine" in document["what_if"][0]["doubt"]  # has no H100
        return high / low, document["engines"][0]["doubt"]

    wide, doubt = found()
    assert doubt.startswith("No run that it was calibrated on is known to be of this machine")
    assert "1.4 to 1.8 times as many tokens a second" in doubt
    beside.write_text('{"boot": "elsewhere"}')
    assert found() == (wide, doubt)
    beside.write_text('{"boot": "here"}')
    narrow, doubt = found()
    assert doubt == ""
    assert narrow < 0.95 * wide


@pytest.mark.usefixtures("measured_here")
@pytest.mark.parametrize(
    ("engine", "knob"),
    [
        ("vllm", "tensor_parallel_size"),
        ("tensorrt-llm", "tensor_parallel_size"),
        ("lmdeploy", "tp"),
    ],
)
def test_what_own_runs_have_tested_is_not_doubted(tmp_path: Path, engine: str, knob: str) -> None:
    """Runs of one GPU test the engine, those of two also what GPUs say to one another."""
    file = tmp_path / "points.csv"
    wishes: dict[str, Any] = {"users": (4,), "config_only": True, "gpus": 2, "engines": (engine,)}

    def doubt(**more: Any) -> str:
        [found] = planned(f"{knob}=2", **wishes | more).document["engines"]
        return str(found["doubt"])

    several = "No measured run of one server over several GPUs has tested the predictor"
    assert several in doubt()
    for gpus, said in ((1, several), (2, "")):
        file.write_text(
            f"{knob},users,input_tokens_mean,output_tokens_mean,token_rate,ttft_ms_p50,tpot_ms_p50,"
            f"duration_s\n{gpus},4,200,50,400,40,9.0,10\n"
        )
        assert doubt(measured=(str(file),)) == said


@pytest.mark.usefixtures("measured_here")
def test_runs_of_one_scheduler_of_an_engine_do_not_test_its_other_one(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    wishes: dict[str, Any] = {"users": (4,), "config_only": True, "engines": ("lmdeploy",)}
    for backend, tested in (("pytorch", False), ("turbomind", True)):
        file.write_text(
            "backend,users,input_tokens_mean,output_tokens_mean,token_rate,ttft_ms_p50,tpot_ms_p50,"
            f"duration_s\n{backend},4,200,50,400,40,9.0,10\n"
        )
        [found] = planned(measured=(str(file),), **wishes).document["engines"]
        assert (found["doubt"] == "") == tested


GPUS: dict[str, Any] = {
    "gpu": "l4,h100,h200",
    "price_per_h": {"h200": 3.5, "H100": 2.4, "l4": 0.01},
    "users": (16,),
}


def test_of_several_gpus_the_cheapest_that_meets_the_slo_is_recommended() -> None:
    """The L4 costs next to nothing, and an SLO that only the others meet keeps it out."""
    document = planned(slos=parse_slos("tpot:p50<20ms"), **GPUS).document
    rows = document["by_gpu"]
    assert [row["gpu"] for row in rows] == ["H100 SXM", "H200 SXM", "L4"]
    assert [row["slo_met"] for row in rows] == [True, True, False]
    for row, price in zip(rows, (2.4, 3.5, 0.01), strict=True):
        cost = price / 3600 / row["token_rate"]["mean"] * 1e6
        assert row["cost_per_million_tokens"] == pytest.approx(cost, rel=1e-4)
    assert document["gpu"] == document["recommended"]["gpu"] == "H100 SXM"
    assert document["price_per_h"] == 2.4
    assert {point["gpu"] for point in document["points"]} == {"H100 SXM", "H200 SXM", "L4"}
    assert document["points"][0]["gpu"] == "H100 SXM"  # a reader of one GPU sees the recommended
    unbound = planned(**GPUS).document
    assert unbound["recommended"]["gpu"] == "L4"
    assert "is not told apart" not in unbound["recommended"]["doubt"]


def test_a_gpu_that_is_described_has_a_price_of_its_own() -> None:
    figures = "memory=80,bandwidth=3350,bf16=989"
    prices = PRICES.read(f"h200=3.5/h,{figures}=2/h,l4=0.7/h", "--price")
    assert prices == {"h200": 3.5, figures: 2.0, "l4": 0.7}
    wishes: dict[str, Any] = {"users": (4,), "config_only": True, "price_per_h": prices}
    rows = planned(gpu=f"h200,{figures},l4", **wishes).document["by_gpu"]
    assert {row["gpu"]: row["price_per_h"] for row in rows} == {
        "H200 SXM": 3.5,
        figures: 2.0,
        "L4": 0.7,
    }


@pytest.mark.parametrize("text", ["memory=80,bandwidth=3350", "h200=3=4/h", "=3/h"])
def test_a_price_without_its_gpu_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(UsageError, match=r"write GPU=PRICE/h, e\.g\. h200=3\.5/h"):
        PRICES.read(text, "--price")


def test_of_gpus_without_prices_the_fastest_is_recommended() -> None:
    document = planned(**GPUS | {"price_per_h": None}).document
    assert document["recommended"]["gpu"] == "H200 SXM"
    assert [row["gpu"] for row in document["by_gpu"]] == ["H200 SXM", "H100 SXM", "L4"]
    assert "cost_per_million_tokens" not in document["by_gpu"][0]


def test_gpus_whose_costs_lie_within_an_interval_are_not_told_apart() -> None:
    rows = planned(**GPUS).document["by_gpu"]
    rate = {row["gpu"]: row["token_rate"]["mean"] for row in rows}
    price = 2.4 * 1.05 * rate["H200 SXM"] / rate["H100 SXM"]  # a token of it costs 5 % more
    prices = {"l4": 9.0, "h100": 2.4, "h200": price}
    found = planned(**GPUS | {"price_per_h": prices}).document["recommended"]
    assert found["gpu"] == "H100 SXM"
    assert found["doubt"].startswith("H200 SXM is not told apart from H100 SXM by cost")


def test_one_gpu_of_several_is_predicted_as_it_is_alone() -> None:
    """Neither the others nor their prices change what is said of it."""
    alone = planned(users=(16,), gpu="h100", price_per_h=2.4).document
    beside = planned(**GPUS | {"gpu": "h100,h200", "price_per_h": 2.4}).document
    [own] = [one for one in beside["engines"] if one["gpu"] == "H100 SXM"]
    assert own == alone["engines"][0]
    [row] = alone["by_gpu"]
    assert row["gpu"] == alone["gpu"] == "H100 SXM"


def test_rates_say_what_each_gpu_needs_and_costs() -> None:
    wishes = GPUS | {"users": (), "rates": (60.0,), "slos": parse_slos("ttft:p99<2s")}
    for row in planned(**wishes).document["by_gpu"]:
        [need] = row["capacity"]["needs"]
        assert need["gpus"] == -(-60 // row["capacity"]["request_rate_each"])
        assert need["price_per_h"] == pytest.approx(need["gpus"] * row["price_per_h"])


def test_a_gpu_that_cannot_keep_up_is_behind_one_that_can() -> None:
    """Its queue grows: a million tokens are cheap there, and nobody waits for them."""
    wishes: dict[str, Any] = {"gpu": "l4,h200", "rates": (60.0,)}
    prices = {"h200": 3.5, "l4": 0.2}
    document = planned(price_per_h=prices, **wishes).document
    assert document["recommended"]["gpu"] == "H200 SXM"
    assert document["recommended"]["doubt"] == ""
    first, second = document["by_gpu"]
    assert (first["gpu"], first["keeps_up"]) == ("H200 SXM", True)
    assert (second["gpu"], second["keeps_up"]) == ("L4", False)
    assert second["cost_per_million_tokens"] < first["cost_per_million_tokens"]


def test_of_gpus_that_cannot_keep_up_that_is_first_of_which_enough_cost_least() -> None:
    wishes: dict[str, Any] = {"gpu": "l4,h200", "rates": (600.0,)}
    for price in (0.01, 3.0):
        document = planned(price_per_h={"h200": 3.5, "l4": price}, **wishes).document
        costs = [row["capacity"]["needs"][0]["price_per_h"] for row in document["by_gpu"]]
        assert costs == sorted(costs)
        assert document["gpu"] == document["by_gpu"][0]["gpu"] == ("L4", "H200 SXM")[price > 1]
        assert document["recommended"]["doubt"].startswith("It cannot keep up with 600 requests/s")


def test_of_gpus_that_cannot_keep_up_without_prices_that_is_first_of_which_fewest_do() -> None:
    """Under an SLO, too, that no queue meets: how far each misses it says how long it was asked."""
    wishes: dict[str, Any] = {"gpu": "l4,a100,h200", "rates": (600.0,)}
    for slos in (), parse_slos("ttft:p99<1s"):
        document = planned(slos=slos, **wishes).document
        assert not any(row["keeps_up"] for row in document["by_gpu"])
        gpus = [row["capacity"]["needs"][0]["gpus"] for row in document["by_gpu"]]
        assert gpus == sorted(gpus)
        assert document["gpu"] == document["by_gpu"][0]["gpu"] == "H200 SXM"
        assert (document["recommended"] is None) == bool(slos)


def test_a_config_that_cannot_keep_up_is_not_recommended_for_its_slo() -> None:
    """Few sequences have a short TPOT, and a queue that grows before them."""
    wishes: dict[str, Any] = {"rates": (30.0,)}
    [few] = planned("max_num_seqs=4", config_only=True, **wishes).document["points"]
    assert not few["keeps_up"]
    limit = 1.1 * few["tpot_ms_p50"]["mean"]
    found = planned("max_num_seqs=4", slos=parse_slos(f"tpot:p50<{limit:.3f}ms"), **wishes)
    assert found.document["engines"][0]["before"]["slo_met"]
    assert found.document["recommended"]["config"]["max_num_seqs"] > 4
    assert found.document["points"][-1]["keeps_up"]
    none_can = planned("max_num_seqs=4", **wishes | {"rates": (900.0,)}).document
    assert none_can["recommended"]["doubt"] == "It cannot keep up with 900 requests/s"
    assert none_can["recommended"]["capacity"]["needs"][0]["replicas"] > 1


def test_a_gpu_that_the_model_does_not_fit_stands_in_its_row() -> None:
    wishes: dict[str, Any] = {"users": (1,), "config_only": True}
    made = planned(gpu="t4,h200", **wishes)
    assert not made.does_not_fit
    large, small = made.document["by_gpu"]
    assert (made.document["gpu"], large["fits"]) == ("H200 SXM", True)
    assert (small["gpu"], small["fits"]) == ("T4", False)
    assert "weights 15.0 GiB" in small["why"]
    none = planned(gpu="t4,l4", model="llama-3.1-70b", **wishes).does_not_fit
    assert "does not fit 1 x T4" in none
    assert "does not fit 1 x L4" in none


def test_what_if_takes_the_price_of_its_own_gpu() -> None:
    wishes: dict[str, Any] = {"users": (2,), "config_only": True, "gpu": "h200"}
    what_if = ("gpu=l4", "max_num_seqs=2")

    def costs(price: Any) -> list[float | None]:
        document = planned(price_per_h=price, what_if=what_if, **wishes).document
        sides = document["what_if"]
        return [side["points"][0].get("cost_per_million_tokens") for side in sides]

    unknown, known = costs(3.5)
    assert unknown is None  # an L4 does not cost what an H200 does
    assert known is not None
    cheap, same = costs({"h200": 3.5, "l4": 0.7})
    assert cheap is not None
    assert same == known
    alone = planned(users=(2,), config_only=True, gpu="l4", price_per_h=0.7).document["points"][0]
    assert cheap == alone["cost_per_million_tokens"]


def test_rows_that_do_not_say_their_gpu_are_of_the_first(tmp_path: Path) -> None:
    """The same rows calibrate the same, whatever is compared with the GPU that they are of."""
    file = tmp_path / "points.csv"
    file.write_text(
        "users,input_tokens_mean,output_tokens_mean,token_rate,ttft_ms_p50,tpot_ms_p50,duration_s\n"
        "4,200,50,400,40,9.0,10\n"
    )
    wishes: dict[str, Any] = {"users": (4,), "config_only": True, "measured": (str(file),)}
    alone = planned(gpu="h200", **wishes).document["engines"]
    beside = planned(gpu="h200,h100", **wishes).document["engines"]
    assert beside[0] == alone[0]


@pytest.mark.parametrize(
    ("wishes", "settings", "said"),
    [
        ({"gpu": "h300"}, (), "--gpu h300: no such GPU is known here"),
        ({"gpu": "h200,h10"}, (), "--gpu h10: no such GPU is known here. Nearest: H20"),
        ({"gpu": "h200,H200 SXM"}, (), "names H200 SXM twice"),
        ({"gpu": "h200,"}, (), "has an empty name"),
        ({"gpu": "h200,h100", "price_per_h": {"h200": 3.0}}, (), "has none for H100 SXM"),
        ({"price_per_h": {"h100": 3.0}}, (), "H100 SXM is not among the GPUs that are asked"),
        ({"price_per_h": {"h2000": 3.0}}, (), "--price h2000: no such GPU is known here"),
        ({"price_per_h": {"h200": 3.0, "H200 SXM": 2.0}}, (), "has a price already"),
        ({"model": "lama-9"}, (), "--model lama-9: its shape is not known here"),
        ({"engines": ("vlm",)}, (), "Did you mean 'vllm'"),
        ({"engines": ("mlc-llm",)}, (), "its scheduler is not known"),
        ({"slos": parse_slos("goodput>1")}, (), "goodput>1: is not predicted"),
        ({}, ("max_seqs=3",), "max_num_seqs"),
        ({}, ("max_num_seqs=none",), "max_num_seqs"),
        ({"what_if": ("gpu",)}, (), "--what-if gpu: write name=value"),
        ({"what_if": ("gpus=none",)}, (), "must be a whole number"),
        ({"what_if": ("gpu=h300",)}, (), "no such GPU"),
        ({"what_if": ("max_seqs=3",)}, (), "^--what-if max_seqs=3: no knob"),
        ({"what_if": ("users=3",)}, (), "besides knobs: gpu, gpus, model, engine, isl, osl"),
        ({"what_if": ("gpu=h201",)}, (), "^--what-if gpu h201: no such GPU"),
        ({"what_if": ("isl=3,isl=4",)}, (), "^--what-if isl=3,isl=4: names isl twice"),
        (
            {"what_if": ("engine=sglang,context_length=249",)},
            (),
            "context_length=249: sglang would refuse a request of 250 tokens, .* set at least 250",
        ),
        ({}, ("max_model_len=100",), "max_model_len=100: vllm would refuse a request of 250 token"),
        ({"measured": ("nowhere",)}, (), "no such run or study"),
    ],
)
def test_nonsense_is_one_sentence(
    wishes: dict[str, Any], settings: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        planned(*settings, **{"users": (1,), "config_only": True, **wishes})
    assert "\n" not in str(caught.value)


def test_a_limit_that_a_request_just_fits_is_taken() -> None:
    assert planned("max_model_len=250", users=(1,), config_only=True).document["points"][0]["fits"]


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"model": ""}, "--model: name one"),
        ({"gpu": ""}, "--gpu: name one"),
        ({"gpus": 0}, "--gpus 0"),
        ({"engines": ("vllm", "sglang", "vllm")}, "--engine vllm,sglang,vllm: names one twice"),
        ({"users": (0,)}, "-c 0"),
        ({"rates": (-1.0,)}, "--request-rate -1"),
        ({"rates": (1.0,), "users": (1,)}, "give one"),
        ({"cached": 2.0}, "--cached 200%: must be from 0% to 100%"),
        ({"duration_s": 0.0}, "--duration 0"),
    ],
)
def test_a_wish_that_cannot_be_is_refused(wishes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Plan(**{**SHORT, **wishes})


def test_the_page_is_marked_as_predicted() -> None:
    document = planned("max_num_seqs=4", users=(4, 32), what_if=("gpu=h100",)).document
    page = of_plan(document)
    assert "Predicted" in page
    assert "Pareto front, predicted" in page
    assert "After (predicted)" in page
    assert "nothing was measured for it" in page


def test_the_page_of_several_gpus_has_a_row_of_each() -> None:
    page = of_plan(planned(slos=parse_slos("tpot:p50<20ms"), **GPUS).document)
    assert "The best of each GPU at 16 users" in page
    assert "Predicted: H100 SXM costs least, " in page
    assert "missed" in page


def test_prices_are_read_from_the_command_line(
    dyno: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    words = ["plan", "--model", "llama-3.1-8b", "-c", "2", "--duration", "5s", "--config-only"]
    gpus = ["--gpu", "h200,memory=80,bandwidth=3350,bf16=989"]
    ended = dyno(*words, *gpus, "--price", "3/h", "--json")
    assert ended.returncode == 0, ended.stderr
    prices = [row["price_per_h"] for row in json.loads(ended.stdout.splitlines()[-1])["by_gpu"]]
    assert prices == [3, 3]
    for price, said in (
        ("h200", "write a price an hour above 0"),
        ("h200=3", "--price h200: 3: write a price an hour above 0"),
        ("h200=3/h=2/h", "write GPU=PRICE/h, e.g. h200=3.5/h,h100=2.4/h"),
    ):
        ended = dyno(*words, "--gpu", "h200", "--price", price)
        assert (ended.returncode, said in ended.stderr) == (2, True), ended.stderr


def test_the_command_writes_json_and_a_folder(
    dyno: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "plan.toml").write_text(
        'model = "llama-3.1-8b"\ngpu = "h200"\nusers = "4"\nisl = "200"\nosl = "50"\n'
        "[baseline]\nmax_num_seqs = 64\n"
    )
    ended = dyno("plan", "plan.toml", "--duration", "5s", "--config-only", "--json", "--out", "o")
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout.splitlines()[-1])
    assert document["points"][0]["config"] == {"max_num_seqs": 64}
    assert json.loads((tmp_path / "o/plan.json").read_text()) == document
    assert (tmp_path / "o/report.html").exists()
    assert {"from", "set"} & {field.name for field in plan_flags()} == {"from"}


def test_points_of_engines_that_are_not_asked_about_are_refused(tmp_path: Path) -> None:
    """They had been left out without a word, and the plan was "from data sheets alone"."""
    table = tmp_path / "points.csv"
    table.write_text(
        "engine,users,input_tokens_mean,output_tokens_mean,token_rate\nsglang,4,9,9,9\n"
    )
    with pytest.raises(UsageError, match=r"points.csv: has no level of vllm; name its engine by"):
        planned(users=(4,), measured=(str(table),), config_only=True)
