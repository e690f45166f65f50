"""A flag is one field of a spec: help, command line, TOML file and page are made from it."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from llmdyno.cli.app import load
from llmdyno.cli.flags import (
    QUICK,
    Given,
    bench_flags,
    bench_spec,
    over,
    read_toml,
    study_flags,
    study_spec,
)
from llmdyno.cli.options import command, divided
from llmdyno.cli.reference import file_table, table
from llmdyno.errors import UsageError
from llmdyno.flag import (
    COUNTS,
    FILE_TEXT,
    LENGTHS,
    NAMES,
    ONE_OR_MORE,
    PAUSE,
    PERMISSION,
    PRICE,
    RATES,
    SECONDS,
    SHARE,
    TEXT,
    TEXTS,
    TRUTH,
    WHOLE,
    Field,
    Flag,
    Kind,
    all_fields,
)
from llmdyno.spec import Bench, Load, Workload
from llmdyno.tune.spec import BUDGET, Study

# Fields of the specs that are no flags, and why.
NOT_FLAGS = {
    "Bench.load": "its own fields are flags",
    "Bench.workload": "its own fields are flags",
    "Bench.renamed": "asked of the server, not of the user",
    "Bench.tensors": "asked of the server, not of the user",
    "Study.load": "its own fields are flags",
    "Study.workload": "its own fields are flags",
}

# What help has shown since the first version, and users know.
KNOWN_DEFAULTS = {
    "bench": {
        "users": "10,50,100",
        "duration": "5m",
        "interval": "5s",
        "think-time": "10ms",
        "timeout": "10m",
        "grace": "30s",
        "turns": "2-6",
        "until-budget": "10m",
        "endpoint": "auto",
        "workload": "chat",
        "calibration": "yes",
        "api-key-env": "LLMDYNO_API_KEY",
    },
    "tune": {
        "engine": "openvino",
        "front": "native",
        "model": "tiny",
        "objective": "token_rate:mean",
        "trials": "20",
        "pairs": "as many as find 10 % given the noise seen",
        "trial-duration": "30s",
        "warmup": "5s",
        "duration": "1m",
        "seed": "0",
    },
    "serve": {"host": "127.0.0.1", "port": "8000", "container": "none", "engine": "openvino"},
    "deploy": {"out": "bundle", "target": "all", "port": "8000"},
    "compare": {"out": "compare.html"},
}

ALIASES = (
    *("--url", "--base-url", "--target", "--endpoint", "--endpoint-type", "--model", "-m"),
    *("-c", "--users", "--concurrency", "--requests", "--num-prompts", "--isl", "--input-len"),
    *("--osl", "--output-len", "--slo", "--goodput"),
)


def shown(name: str) -> dict[str, str]:
    """Return the defaults in a command's help, by the flag's name."""
    return {
        option.removeprefix("--"): divided(parameter.help)[1]
        for parameter in load(name).params
        for option in parameter.opts
    }


def given_by(arguments: list[str], fields: list[Field]) -> Given:
    """Return what a command of these flags gets when it is called with these arguments."""
    heard: list[Given] = []
    app = typer.Typer(add_completion=False, rich_markup_mode=None)

    @app.command()
    @command(fields)
    def called(given: Given) -> None:
        """Listen."""
        heard.append(given)

    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return heard[0]


@pytest.mark.parametrize("spec", [Bench, Load, Workload, Study])
def test_every_field_of_a_spec_is_a_flag_or_has_a_reason_not_to_be(
    spec: type[msgspec.Struct],
) -> None:
    flags = {field.attribute for field in all_fields(spec)}
    others = {field.name for field in msgspec.structs.fields(spec)} - flags

    assert {f"{spec.__name__}.{name}" for name in others} == {
        name for name in NOT_FLAGS if name.startswith(f"{spec.__name__}.")
    }


@pytest.mark.parametrize(
    ("name", "field"),
    [
        *(("bench", field) for field in bench_flags()),
        *(("tune", field) for field in study_flags()),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_help_shows_the_default_of_the_spec(name: str, field: Field) -> None:
    """Whoever types the default that the help shows gets what the spec has without it."""
    default = shown(name)[field.option.removeprefix("--")]
    nothing = (msgspec.NODEFAULT, None, False)

    if field.flag.default:  # in words
        assert default == field.flag.default
    elif any(field.default is one for one in nothing) or field.default in ("", ()):
        assert default == ""
    elif field.flag.kind is TRUTH:
        assert default == "yes"
    else:
        assert field.read(field.flag.kind.type(default)) == field.default


@pytest.mark.parametrize("name", KNOWN_DEFAULTS)
def test_the_defaults_are_those_that_users_know(name: str) -> None:
    found = shown(name)

    assert {flag: found[flag] for flag in KNOWN_DEFAULTS[name]} == KNOWN_DEFAULTS[name]


def test_the_specs_have_the_defaults_that_the_help_names() -> None:
    bench, study = bench_spec({"url": "http://h"}), study_spec({})

    assert (bench.load, bench.workload) == (Load(), Workload())
    assert bench.load.duration_s == 300.0
    assert (study.load.duration_s, study.load.grace_s) == (60.0, 0.0)


def test_the_aliases_of_other_load_generators_are_taken() -> None:
    names = {name for parameter in load("bench").params for name in parameter.opts}

    assert set(ALIASES) <= names


def example(field: Field, folder: Path) -> Any:
    """Return a value of a study's field, as a TOML file would hold it."""
    by_name = {
        "objective": "ttft:p99",
        "slo": "ttft:p99<2s",
        "seed": 5,
        "users": "2,6",
        "sampler": "tpe",
        "confirm_levels": "all",
    }
    if field.name in by_name:
        return by_name[field.name]
    (folder / "prompt.txt").write_text("Be brief.")
    by_kind: dict[Kind, Any] = {
        WHOLE: 7,
        TRUTH: not field.default,
        TEXT: "chat-system" if field.name == "workload" else "word",
        SECONDS: "3s",
        PAUSE: "1s-2s",
        LENGTHS: "64-256",
        COUNTS: "1,2",
        RATES: "0.5,2",
        NAMES: "one, two",
        ONE_OR_MORE: "one, two",
        FILE_TEXT: str(folder / "prompt.txt"),
        TEXTS: ["--one=1", "--two"],
        PRICE: "3.5/h",
        PERMISSION: "0.5%",
        SHARE: "0.5%",
        BUDGET: "2mh",
    }
    return next(value for kind, value in by_kind.items() if kind is field.flag.kind)


@pytest.mark.parametrize("field", study_flags(), ids=lambda field: field.name)
def test_a_file_and_a_flag_are_read_alike(field: Field, tmp_path: Path) -> None:
    value = example(field, tmp_path)
    written = json.dumps(value)  # TOML writes these as JSON does
    # What means nothing alone.
    beside = {
        "lm_eval_args": ('lm_eval = ["one"]\n', "--lm-eval=one"),
        "request_rate": ('objective = "ttft:p99"\n', "--objective=ttft:p99"),
    }
    more, *flags = beside.get(field.key, ("",))
    (tmp_path / "study.toml").write_text(f"{field.key} = {written}\n{more}")
    words = value if isinstance(value, list) else [value]
    arguments = [f"{field.option}={word}" for word in words]
    arguments += flags
    if isinstance(value, bool):
        arguments = [field.option if value else f"--no-{field.option[2:]}"]

    from_flag = study_spec(given_by(arguments, study_flags()))
    from_file = study_spec(read_toml(tmp_path / "study.toml"))

    assert from_flag == from_file
    assert from_flag != Study()


def test_words_for_the_engine_are_a_list_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('engine_args = ["--a=1", "--b"]\n')
    in_file = read_toml(tmp_path / "s.toml")

    assert study_spec(in_file).engine_args == ("--a=1", "--b")
    flags = given_by(["--engine-arg", "--c=2"], study_flags())
    assert study_spec({**in_file, **flags}).engine_args == ("--c=2",)  # a flag wins
    assert study_spec({**in_file, **given_by([], study_flags())}).engine_args == ("--a=1", "--b")
    for wrong in ('engine_args = "--a=1"', "engine_args = [1]", 'engine_arg = ["--a"]'):
        (tmp_path / "s.toml").write_text(wrong)
        with pytest.raises(UsageError, match=r"engine.arg"):
            study_spec(read_toml(tmp_path / "s.toml"))


# What excludes each other, in a study's file, and the sentence that names both.
EXCLUDING: dict[str, tuple[str, str]] = {
    "duration": (
        'requests = 40\nduration = "9s"',
        "--duration 9s: a level ends after --requests 40, however long that takes; leave one",
    ),
    "trial-duration": (
        'requests = 40\ntrial_duration = "9s"',
        "--trial-duration 9s: a level ends after --requests 40",
    ),
    "pairs": (
        "pairs = 4\nmax_pairs = 9",
        "--max-pairs 9: --pairs 4 says how many there are; leave one of them out",
    ),
    "users of a trace": (
        'workload = "trace"\ndataset = "t.jsonl"\nusers = [4]',
        "-c [4]: a trace has its own load",
    ),
    "requests of a trace": (
        'workload = "trace"\ndataset = "t.jsonl"\nrequests = 40',
        "--requests 40: a study asks what a trace has within --duration",
    ),
    "pause of a trace": (
        'workload = "trace"\ndataset = "t.jsonl"\nthink_time = "1s"',
        "--think-time 1s: is the pause of a user",
    ),
    "ramp of a trace": (
        'workload = "trace"\ndataset = "t.jsonl"\nramp = "1s"',
        "--ramp 1s: a trace has its own times",
    ),
}


@pytest.mark.parametrize("profile", [{}, QUICK])
@pytest.mark.parametrize("name", EXCLUDING)
def test_a_file_with_what_excludes_each_other_is_refused_by_both_names(
    name: str, profile: dict[str, Any], tmp_path: Path
) -> None:
    written, said = EXCLUDING[name]
    (tmp_path / "s.toml").write_text(written)

    with pytest.raises(UsageError, match=re.escape(said)):
        study_spec(read_toml(tmp_path / "s.toml"), profile=profile)


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"requests": 40}, {"requests": 40, "duration_s": 60.0, "trial_duration_s": 30.0}),
        ({"requests": 40, "ramp": "3s"}, {"requests": 40, "ramp_s": 3.0}),
        ({"max_pairs": 9}, {"pairs": None, "max_pairs": 9}),
        ({"max_pairs": 9, "confirm_until": "3%"}, {"pairs": None, "max_pairs": 9}),
        ({"confirm_until": "3%"}, {"pairs": 3}),
        ({"pairs": 5}, {"pairs": 5, "users": (10, 50, 100)}),
        ({"dataset": "d.jsonl"}, {"name": "file", "dataset": "d.jsonl"}),
        ({"isl": "64"}, {"name": "synthetic"}),
        ({"workload": "sessions", "dataset": "d.jsonl"}, {"name": "sessions"}),
        ({"max_tokens": 9}, {"name": "chat-system", "osl": None, "max_tokens": 9}),
        (
            {"workload": "trace", "dataset": "t.jsonl"},
            {"name": "trace", "arrival": "trace", "ramp_s": None, "duration_s": 12.0},
        ),
    ],
)
def test_what_is_asked_for_takes_the_place_of_what_a_profile_says(
    given: dict[str, Any], values: dict[str, Any]
) -> None:
    study = study_spec(given, profile=QUICK)

    found: dict[str, Any] = {}
    for part in (study.workload, study.load, study):
        found |= {name: getattr(part, name) for name in part.__struct_fields__}
    assert {name: found[name] for name in values} == values


def test_the_pause_of_a_user_is_refused_where_there_are_none() -> None:
    for given in ({"request_rate": "3"}, {"arrival": "trace", "dataset": "t.jsonl"}):
        with pytest.raises(UsageError, match="--think-time 1s: is the pause of a user"):
            bench_spec({"url": "http://h", "think_time": "1s", **given})


def test_a_file_takes_keys_with_hyphens_and_those_that_are_no_flags(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('trial-duration = "9s"\nhang = "4s"\nthink_time = "1s"\n')

    study = study_spec(read_toml(tmp_path / "s.toml"))

    assert (study.trial_duration_s, study.hang_s, study.load.think_s) == (9.0, 4.0, 1.0)
    assert "hang" not in shown("tune")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_is_read_as_an_editor_has_saved_it(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("Be kürzer.\r\n", encoding=encoding)
    text = f"engine = 'vllm'\r\nsystem_prompt = '{tmp_path / 'prompt.txt'}'\r\n"
    (tmp_path / "s.toml").write_bytes(text.encode(encoding))

    study = study_spec(read_toml(tmp_path / "s.toml"))

    assert (study.engine, study.workload.system_prompt) == ("vllm", "Be kürzer.")


def test_a_file_of_another_kind_is_called_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_bytes(b"PK\x03\x04")

    with pytest.raises(UsageError, match=r"s\.toml: is a ZIP archive"):
        read_toml(tmp_path / "s.toml")


def test_a_file_that_has_a_table_of_the_flag_set_is_told_what_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("[set]\nmax_num_seqs = 64\n")

    with pytest.raises(
        UsageError, match=r"unknown key 'set'\. A file has \[baseline\] for --set\."
    ):
        read_toml(tmp_path / "s.toml")


def test_a_time_without_quotes_is_told_with_what_would_be_right(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('engine = "openvino"\nbudget = 2h\n')

    with pytest.raises(UsageError, match=r'line 2, .*A text stands in quotes.*budget = "2h"'):
        read_toml(tmp_path / "s.toml")


@pytest.mark.parametrize("key", ["time_scale", "max_errors", "rates", "url", "load"])
def test_a_file_has_no_key_that_a_study_does_not_take(key: str, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(f"{key} = 1\n")

    with pytest.raises(UsageError, match=f"unknown key '{key}'"):
        read_toml(tmp_path / "s.toml")


def test_a_new_field_is_a_flag_everywhere_at_once(tmp_path: Path) -> None:
    class MoreBench(Bench, frozen=True, kw_only=True):
        cool_down_s: Annotated[
            float, Flag(SECONDS, "Pause after each level.", ("--cooldown",), metavar="TIME")
        ] = 90.0

    class MoreStudy(Study, frozen=True, kw_only=True):
        cool_down_s: Annotated[float, Flag(SECONDS, "Pause after each trial.")] = 120.0
        quiet: Annotated[bool, Flag(TRUTH, "Print nothing.", tune="file")] = False

    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(command(bench_flags(MoreBench))(lambda _given: None))
    parameters = typer.main.get_command(app).params
    help_text = " ".join(CliRunner().invoke(app, ["--help"]).output.split())

    assert "--cool-down, --cooldown TIME Pause after each level. [90s]" in help_text
    assert "| `--cool-down`, `--cooldown TIME` | Pause after each level. | 90s |" in table(
        parameters
    )
    given = given_by(["--url", "http://h", "--cooldown", "5s"], bench_flags(MoreBench))
    assert bench_spec(given, MoreBench) == MoreBench(url="http://h", cool_down_s=5.0)
    assert bench_spec({"url": "http://h"}, MoreBench) == MoreBench(url="http://h")

    (tmp_path / "s.toml").write_text('cool_down = "4s"\nquiet = true\n')
    study = study_spec(read_toml(tmp_path / "s.toml", MoreStudy), MoreStudy)
    assert study == MoreStudy(cool_down_s=4.0, quiet=True)
    (key,) = (one for one in study_flags(MoreStudy, in_file=True) if one.name == "quiet")
    assert "| `quiet` | Print nothing. |  |" in file_table([key])
    assert given_by(["--cool-down", "1s"], study_flags(MoreStudy)) == {"cool_down": "1s"}


def test_a_new_default_is_shown_and_used() -> None:
    class Patient(Bench, frozen=True, kw_only=True):
        repeat: Annotated[int, Flag(WHOLE, "Rounds.")] = 7
        load: Load = Load(duration_s=12.0)

    defaults = {field.name: field.shown_default for field in bench_flags(Patient)}

    assert (defaults["repeat"], defaults["duration"], defaults["grace"]) == ("7", "12s", "30s")
    assert bench_spec({"url": "http://h"}, Patient).repeat == 7


@pytest.mark.parametrize(
    ("file", "given", "rates", "users"),
    [
        (
            {"request_rate": "2,8", "arrival": "gamma", "burstiness": 0.5, "max_concurrency": 9},
            {"users": "4"},
            (),
            (4,),
        ),
        ({"users": "4,9", "ramp": "2s"}, {"request_rate": "3"}, (3.0,), None),
    ],
)
def test_a_flag_takes_the_place_of_what_it_stands_instead_of(
    file: dict[str, Any], given: dict[str, Any], rates: tuple[float, ...], users: Any
) -> None:
    study = study_spec(over({"objective": "ttft:p99", **file}, given))

    assert (study.load.rates or ()) == rates
    assert study.load.is_open == bool(rates)
    assert users is None or study.load.users == users


@pytest.mark.parametrize(
    ("file", "given"),
    [
        ({"duration": "9s", "trial_duration": "4s"}, {"requests": 20}),
        ({"requests": 20}, {"duration": "9s"}),
    ],
)
def test_a_number_of_requests_and_a_duration_take_each_others_place(
    file: dict[str, Any], given: dict[str, Any]
) -> None:
    asked = study_spec(over(file, given)).load

    assert (asked.requests, asked.duration_s) == (
        (20, study_spec({}).load.duration_s) if "requests" in given else (None, 9.0)
    )
