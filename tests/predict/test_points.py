"""Points: what CSV files, runs and studies say that was measured."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmdyno.errors import UsageError
from llmdyno.predict.calibrate import setup_of
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.points import Whose, read_points, sources
from llmdyno.predict.server import server_of
from llmdyno.predict.shapes import shape_of

EVIDENCE = Path(__file__).parents[2] / "evidence"
RUN = EVIDENCE / "full-graphs/h100/runs/20261127-063315-confirm-1-6fb2"
WHOSE = Whose(gpu=gpu_of("h200"), engine="vllm", shape=shape_of("llama-3-8b"))


def test_the_committed_points_are_read() -> None:
    points = read_points(str(EVIDENCE / "h200/points/points.csv"), WHOSE)
    assert len(points) == 37
    first = points[0]
    assert first.config == {
        "max_num_seqs": 64,
        "kv_cache_dtype": "auto",
        "gpu_memory_utilization": 0.1,
        "kv_cache_memory_bytes": 8_000_000_000,
    }
    assert (first.users, first.request_rate) == (100, None)
    assert (first.isl, first.cached_share) == (95.5, 0.492148)
    assert first.osl == 256.0
    assert first.token_rate == 7799.51
    assert first.token_rate_ci == (7183.33, 8419.31)
    assert (first.ramp_s, first.duration_s) == (2.0, 20.0)
    assert points[1].config["quantization"] == "fp8"
    assert sources(points) == 7


@pytest.mark.parametrize(("users", "batches"), [(1, 1), (3, 2), (8, 4)])
def test_users_of_a_pipeline_are_in_as_many_batches_as_they_can_be(
    users: int, batches: int, tmp_path: Path
) -> None:
    """Of two ranks with four stages each: the calibration simulates one batch beside the others."""
    table = tmp_path / "points.csv"
    head = HEAD + ",data_parallel_size,pipeline_parallel_size"
    table.write_text(f"{head}\n{users},100,100,2000,2,4\n")
    [point] = read_points(str(table), WHOSE)
    assert (point.users, point.batches) == (1, batches)
    assert server_of(setup_of(point)).work.batches == batches


def test_a_server_of_two_ranks_is_read_as_one_of_them() -> None:
    points = read_points(str(EVIDENCE / "engines-h200/copies.csv"), WHOSE)
    one, two = (
        next(each for each in points if each.config.get("data_parallel_size", 1) == ranks)
        for ranks in (1, 2)
    )
    assert (one.users, one.token_rate) == (100, 12797.2)
    assert (two.users, two.token_rate) == (50, 15175.6 / 2)
    assert two.token_rate_ci == (14057.4 / 2, 16159.4 / 2)


def test_a_file_named_after_a_gpu_is_of_that_gpu() -> None:
    points = read_points(str(EVIDENCE / "full-graphs/points-h100.csv"), WHOSE)
    assert {point.gpu.name for point in points} == {"H100 SXM"}
    assert points[1].config["cudagraph_mode"]


def test_a_study_says_all_itself() -> None:
    points = read_points(str(EVIDENCE / "full-graphs/h100"), WHOSE)
    assert len(points) == 4
    assert {point.gpu.name for point in points} == {"H100 SXM"}
    assert points[0].config["max_num_seqs"] == 64
    assert points[0].users == 100
    assert points[0].cached_share > 0.5
    assert points[0].ramp_s == 2.0


def test_a_run_has_the_settings_that_the_caller_names() -> None:
    run = EVIDENCE / "full-graphs/h100/runs/20261127-062605-baseline-02a0"
    whose = Whose(gpu=WHOSE.gpu, engine="vllm", shape=WHOSE.shape, config={"max_num_seqs": 64})
    [point] = read_points(str(run), whose)
    assert point.gpu.name == "H200 SXM"
    assert point.config == {"max_num_seqs": 64}


@pytest.mark.parametrize(
    "asked",
    [
        {"quantization": "fp8", "kv_cache_dtype": "fp8", "cudagraph_mode": "FULL"},
        {"tensor_parallel_size": 4, "max_num_seqs": 8},
    ],
)
def test_rows_that_say_their_settings_have_none_of_the_server_that_is_asked_about(
    asked: dict[str, Any],
) -> None:
    table = str(EVIDENCE / "h200/points/points.csv")
    assert read_points(table, msgspec.structs.replace(WHOSE, config=asked)) == read_points(
        table, WHOSE
    )


def test_rows_that_say_no_settings_are_of_the_server_that_is_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(
        "engine,users,input_tokens_mean,output_tokens_mean,token_rate\n"
        "vllm,10,1000,200,800\nsglang,10,1000,200,800\n"
    )
    whose = msgspec.structs.replace(WHOSE, config={"max_num_seqs": 64})
    assert [point.config for point in read_points(str(path), whose)] == [{"max_num_seqs": 64}, {}]


@pytest.mark.parametrize(
    ("content", "gpu"),
    [
        ('{"gpus": [{"name": "NVIDIA H100 80GB HBM3"}]}', "H100 SXM"),
        ('{"packages": {}}', "H200 SXM"),
        ("[]", "H200 SXM"),
        ("{", "H200 SXM"),
    ],
)
def test_an_environment_beside_a_table_says_its_gpu(tmp_path: Path, content: str, gpu: str) -> None:
    path = tmp_path / "points.csv"
    path.write_text("users,input_tokens_mean,output_tokens_mean,token_rate\n10,1000,200,800\n")
    path.with_name("environment.json").write_text(content)
    [point] = read_points(str(path), WHOSE)
    assert point.gpu.name == gpu


def test_columns_may_say_whose_a_row_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(
        "gpu,engine,model,max_running_requests,request_rate,input_tokens_mean,output_tokens_mean,"
        "token_rate\nl40s,sglang,qwen3-8b,128,2.5,1000,200,480\n"
    )
    [point] = read_points(str(path), WHOSE)
    assert (point.gpu.name, point.engine, point.shape.name) == ("L40S", "sglang", "qwen3-8b")
    assert point.config == {"max_running_requests": 128}
    assert (point.users, point.request_rate) == (None, 2.5)
    assert point.ttft_ms_p50 is None
    assert point.ramp_s is None


def test_a_level_of_no_stated_duration_lasts_as_long_as_its_tokens_need(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(
        "users,input_tokens_mean,output_tokens_mean,requests_completed,token_rate\n"
        "10,1000,200,60,800\n"
    )
    [point] = read_points(str(path), WHOSE)
    assert point.duration_s == 60 * 200 / 800


HEAD = "users,input_tokens_mean,output_tokens_mean,token_rate"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has no row; each is a level"),
        (HEAD + "\n", "has no row; each is a level"),
        ("a,b\n1,2\n", "has no column token_rate, input_tokens_mean, output_tokens_mean, users"),
        (
            HEAD + "\n10,100,100,fast\n",
            "token_rate is 'fast'",
        ),
        (HEAD + "\n10,1,1,-5\n", "'-5'; it must be"),
        (HEAD + "\n10,1,1,nan\n", "'nan'"),
        (HEAD + "\n10,1,1,\n", "has no level that"),
        (
            HEAD + "\n0,1,1,5\n",
            "users is '0'; it must be 1 or more",
        ),
        (
            HEAD + ",gpu\n1,1,1,5,h201\n",
            r"points.csv:2: gpu h201: no such GPU is known",
        ),
        (
            HEAD + ",model\n1,1,1,5,llama-9\n",
            r"points.csv:2: model llama-9: its shape is not",
        ),
        (
            HEAD + ",ttft_ms_p50,tpot_ms_p50\n10,100,100,2000,0.05,0.005\n",
            "tpot_ms_p50 0.005 would keep 0.0109 of 10 users waiting by Little",
        ),
    ],
)
def test_nonsense_is_named(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "points.csv"
    path.write_text(content)
    with pytest.raises(UsageError, match=said):
        read_points(str(path), WHOSE)


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such run or study"):
        read_points(str(tmp_path / "nowhere"), WHOSE)
    with pytest.raises(UsageError, match=r"nowhere.csv: there is no such file"):
        read_points(str(tmp_path / "nowhere.csv"), WHOSE)
    with pytest.raises(UsageError, match="is no run, no study"):
        read_points(str(tmp_path), WHOSE)


def test_a_table_of_several_engines_has_their_other_knobs_in_one_column(tmp_path: Path) -> None:
    table = tmp_path / "points.csv"
    table.write_text(
        "engine,users,input_tokens_mean,output_tokens_mean,token_rate,ttft_ms_p50,tpot_ms_p50,"
        "max_num_seqs,weights,kv_cache_dtype,other_knobs\n"
        'lmdeploy,10,96,256,1500,30,6,,bfloat16,auto,"{""backend"": ""pytorch"",'
        ' ""max_batch_size"": 256, ""model_format"": ""fp8""}"\n'
        'sglang,10,96,256,1500,30,6,,fp8,fp8_e4m3,"{""chunked_prefill_size"": 4096}"\n'
        "vllm,10,96,256,1500,30,6,64,bfloat16,auto,{}\n"
    )
    points = read_points(str(table), WHOSE)
    assert [(point.engine, point.config) for point in points] == [
        ("lmdeploy", {"backend": "pytorch", "max_batch_size": 256, "model_format": "fp8"}),
        (
            "sglang",
            {"chunked_prefill_size": 4096, "kv_cache_dtype": "fp8_e4m3", "quantization": "fp8"},
        ),
        ("vllm", {"max_num_seqs": 64, "kv_cache_dtype": "auto"}),
    ]
    table.write_text(table.read_text().replace("{}", "[1]"))
    with pytest.raises(UsageError, match=r"other_knobs is '\[1\]'; it must be a JSON object"):
        read_points(str(table), WHOSE)


def test_points_know_their_machine(tmp_path: Path) -> None:
    """By the environment beside them; a GPU's id is that of no other."""
    table = tmp_path / "points.csv"
    table.write_text(f"{HEAD}\n1,100,100,100\n")
    assert [point.machine for point in read_points(str(table), WHOSE)] == [frozenset()]
    beside = tmp_path / "environment.json"
    beside.write_text('{"gpus": [{"name": "NVIDIA H100 80GB HBM3", "id": "0f"}], "boot": "1e"}')
    [point] = read_points(str(table), WHOSE)
    assert point.machine == {"0f", "1e"}
    assert point.gpu.name == "H100 SXM"
    run = json.loads((RUN / "summary.json").read_text())
    run["environment"]["gpus"][0]["id"] = "0f"
    (tmp_path / "summary.json").write_text(json.dumps(run))
    assert {one.machine for one in read_points(str(tmp_path), WHOSE)} == {frozenset({"0f"})}
