"""The commands on a page ask for the very same run or study again."""

import shlex
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmdyno.cli import flags, repeat
from llmdyno.errors import UsageError
from llmdyno.spec import Bench
from llmdyno.tune.spec import Study

STUDIES: list[dict[str, Any]] = [
    {},
    {"engine": "vllm,sglang", "front": "native", "model": "/m/llama 3", "seed": 7},
    {
        "baseline": {"max_num_seqs": 64, "dtype": 'odd "name"\n', "share": 0.9, "eager": True},
        "candidates": [{"max_num_seqs": 512}, {"a.b": "x"}],
        "search": "max_num_seqs=64..512,dtype",
        "engine_arg": ["--swap-space=8", "--x=a b"],
        "objective": "ttft:p99",
        "slo": "ttft:p99<500ms,tpot:p95<50ms",
    },
    {
        "users": "1,1000",
        "duration": "90.125s",
        "trial_duration": "250ms",
        "warmup": "0s",
        "think_time": "1s-5s",
        "isl": "normal:128,32",
        "osl": "64-256",
        "turns": "3",
        "unique": True,
        "timeout": "12s",
        "grace": "2s",
        "hang": "9s",
    },
    {"budget": "$20", "price": "3.51/h", "confirm_until": "3%", "pairs": 4, "max_pairs": 9},
    {"budget": "2mh", "allow_altered_output": "0.5%", "quality": False, "sampler": "tpe"},
    {"budget": "1.5h", "allow_altered_output": True, "trials": 3, "confirm_levels": "all"},
    {"patience": 3, "race": False, "parallel": 2, "requests": 77},
    {"workload": "trace", "dataset": "t.jsonl", "duration": "20s"},
    {
        "request_rate": "0.5,2",
        "objective": "goodput",
        "slo": "ttft_due:p99<2s",
        "max_concurrency": 9,
    },
    {"request_rate": "4", "objective": "e2e:p50", "burstiness": 0.5},
    {"request_rate": "4", "objective": "e2e:p50", "arrival": "constant"},
    {"lm_eval": "arc_easy,my tasks/one", "lm_eval_arg": ["--limit=20", "--num_fewshot=0"]},
    dict(flags.QUICK),
]


def test_every_flag_of_a_study_is_asked_for_by_one_of_these() -> None:
    """The round trips below are worth as much as what they hold."""
    asked = {name for given in STUDIES for name in given}
    known = {field.name for field in flags.study_flags(in_file=True)}
    left_out = {"dataset", "dataset_osl", "learn_from", "max_tokens", "predict_on", "prefix_share"}
    assert known - asked - left_out == {"ramp", "interval", "system_prompt", "workload"} - asked


@pytest.mark.parametrize("given", STUDIES)
def test_a_studys_file_is_read_as_the_same_study(given: dict[str, Any], tmp_path: Path) -> None:
    study = flags.study_spec(given)
    file = tmp_path / repeat.STUDY_FILE
    file.write_text(repeat.study_file(study))
    assert flags.study_spec(flags.read_toml(file)) == study


def test_what_excludes_each_other_in_an_older_study_is_not_written_side_by_side() -> None:
    """Those of before could have both, of which one did nothing."""
    study = flags.study_spec({"requests": 40, "pairs": 4})
    load = msgspec.structs.replace(study.load, duration_s=9.0)
    older = msgspec.structs.replace(study, load=load, trial_duration_s=4.0, max_pairs=20)

    assert repeat.study_file(older) == repeat.study_file(study)


def test_an_older_study_of_a_trace_is_asked_for_by_its_times_alone() -> None:
    study = flags.study_spec({"workload": "trace", "dataset": "t.jsonl", "duration": "20s"})
    load = msgspec.structs.replace(study.load, requests=40, think_s=2.0)
    older = msgspec.structs.replace(study, load=load)

    written = repeat.study_file(older)

    assert written == repeat.study_file(study)
    assert flags.study_spec(tomllib.loads(written)) == study


def test_an_older_run_of_a_trace_is_asked_for_by_its_requests_alone() -> None:
    traced = {"workload": "trace", "arrival": "trace", "dataset": "t.jsonl", "requests": 40}
    asked = flags.bench_spec({"url": "http://host:8000/v1", **traced})
    older = msgspec.structs.replace(asked, load=msgspec.structs.replace(asked.load, duration_s=9.0))

    blocks = repeat.of_run({"spec": msgspec.to_builtins(older)})

    assert blocks == repeat.of_run({"spec": msgspec.to_builtins(asked)})
    assert "--requests 40" in blocks[0].text


def test_a_file_holds_what_is_asked_and_no_default() -> None:
    written = tomllib.loads(repeat.study_file(flags.study_spec({"trials": 3})))
    assert written == {
        "engine": "openvino",
        "front": "native",
        "model": "tiny",
        "objective": "token_rate:mean",
        "trials": 3,
        "users": "10,50,100",
        "seed": 0,
    }


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"users": "3,5", "duration": "20s", "slo": "ttft:p99<2s", "repeat": 3},
        {"request_rate": "1,2.5", "arrival": "poisson", "max_concurrency": 9},
        {"header": ["a: b c", "d: e"], "calibration": False, "workers": "auto", "note": "it's"},
        {"max_error_rate": 0.25, "insecure": True, "repeat": 4, "repeat_until": "2.5%"},
    ],
)
def test_a_run_is_asked_for_in_the_same_words(given: dict[str, Any]) -> None:
    asked = flags.bench_spec({"url": "http://host:8000/v1", **given})
    (block,) = repeat.of_run({"spec": msgspec.to_builtins(asked)})
    words = shlex.split(block.text.replace("\\\n", " "))
    assert words[:2] == ["dyno", "bench"]
    assert flags.bench_spec(_given(words[2:])) == asked


def _given(words: list[str]) -> dict[str, Any]:
    """Read a command line the way the command does: a flag and its value, or a flag alone."""
    fields = {field.option: field for field in flags.bench_flags()}
    given: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        if word.startswith("--no-"):
            given[word.removeprefix("--no-").replace("-", "_")] = False
            continue
        field = fields[word]
        kind = field.flag.kind.type
        if kind is bool:
            given[field.name] = True
        elif kind == list[str]:
            given[field.name] = [*given.get(field.name, []), next(rest)]
        else:
            given[field.name] = kind(next(rest))
    return given


def test_a_system_prompt_is_written_to_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("Be brief.\nEND\nNo more.")
    study = flags.study_spec({"system_prompt": str(tmp_path / "p.txt")})
    prompt, file, run, *_ = repeat.of_study({"spec": msgspec.to_builtins(study)})
    assert prompt.text.startswith("cat > system-prompt.txt <<'END_'\nBe brief.\nEND\nNo more.\n")
    assert 'system_prompt = "system-prompt.txt"' in file.text
    assert run.text == "dyno tune study.toml"


@pytest.mark.parametrize(
    ("engines", "given"), [("vllm", "--a=b c"), ("vllm,sglang", "vllm:--a=b c")]
)
def test_the_winner_is_served_with_its_settings(engines: str, given: str) -> None:
    others = [] if engines == "vllm" else ["sglang:--x"]
    spec = flags.study_spec({"engine": engines, "model": "/m", "engine_arg": [given, *others]})
    document = {
        "spec": msgspec.to_builtins(spec),
        "engine": "vllm",
        "engine_args": ["--a=b c"],
        "front": "native",
        "best": {"config": {"max_num_seqs": 512, "eager": True}},
    }
    words = shlex.split(repeat.of_study(document)[-1].text.replace("\\\n", " "))
    assert words == [
        *("dyno", "serve", "--engine", "vllm", "--front", "native", "--model", "/m"),
        *("--engine-arg=--a=b c", "--set", "max_num_seqs=512", "--set", "eager=true"),
    ]


@pytest.mark.parametrize("spec", [None, {}, {"url": 3}, {"tool": "genai-perf"}])
def test_what_another_tool_asked_has_no_command(spec: object) -> None:
    assert repeat.of_run({"spec": spec}) == []


def test_a_study_without_a_spec_has_no_command() -> None:
    assert repeat.with_repeat({"trials": []})["repeat"] == []


def test_the_defaults_are_those_of_the_specs() -> None:
    assert repeat.study_file(Study()) == repeat.study_file(flags.study_spec({}))
    with pytest.raises(UsageError):
        Bench(url="http://h", repeat=0)
