"""`dyno plan` from end to end: no GPU, no engine, no network."""

import json
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmdyno.cli import flags
from llmdyno.cli.plan import plan_flags
from llmdyno.errors import UsageError
from llmdyno.predict.asked import Plan
from llmdyno.predict.planning import Planned, make
from llmdyno.report.plan_page import of_plan
from llmdyno.results.slo import parse_slos
from llmdyno.units import Lengths

SHORT = {"model": "meta-llama/Llama-3.1-8B", "gpu": "h200", "duration_s": 10.0}
LENGTHS = {"isl": Lengths("fixed", 200), "osl": Lengths("fixed", 50)}


def planned(*settings: str, **wishes: Any) -> Planned:
    return make(Plan(**{**SHORT, **LENGTHS, **wishes}), settings)


@pytest.mark.parametrize(
    ("engine", "settings", "tested"),
    [
        ("vllm", (), True),
        ("sglang", (), True),
        ("lmdeploy", ("backend=pytorch",), True),
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
    assert not after["engines"][0]["doubt"]
    assert abs(after["points"][0]["token_rate"]["mean"] - 400) < abs(before["mean"] - 400)


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


@pytest.mark.parametrize(
    ("wishes", "settings", "said"),
    [
        ({"gpu": "h300"}, (), "--gpu h300: no such GPU is known here"),
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
        ({"cached": 2.0}, "--cached 2"),
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
