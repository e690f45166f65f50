"""TGI's launcher: what it is asked, what goes into its environment, what it would refuse."""

import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from llmdyno import plugins
from llmdyno.engines.tgi import ENGINE
from llmdyno.errors import UsageError
from llmdyno.knobs import Value


def test_the_launcher_on_the_path_says_its_version_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, asked = tmp_path / "text-generation-launcher", tmp_path / "asked"
    program.write_text(f"#!/bin/sh\necho . >> {asked}\necho text-generation-launcher 3.3.4\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    tgi = plugins.load("engines", "tgi")

    assert [tgi.version(), tgi.version()] == ["3.3.4", "3.3.4"]
    assert asked.read_text() == ".\n"
    launch = tgi.launch("org/model", {}, artifact=None, host="127.0.0.1", port=8000)
    assert launch.argv[0] == str(program)


def test_two_launchers_on_one_machine_do_not_meet() -> None:
    tgi = plugins.load("engines", "tgi")
    one, two = (
        tgi.launch("org/model", {}, artifact=None, host="127.0.0.1", port=port).argv
        for port in (8000, 8001)
    )

    for flag in ("--shard-uds-path", "--master-port", "--port"):
        assert one[one.index(flag) + 1] != two[two.index(flag) + 1]


def test_what_has_no_flag_goes_into_the_environment() -> None:
    config = {"attention": "flashdecoding", "prefix_caching": False, "max_batch_size": 64}
    launch = plugins.load("engines", "tgi").launch(
        "org/model", config, artifact=None, host="127.0.0.1", port=8000
    )

    assert launch.environment == {"ATTENTION": "flashdecoding", "PREFIX_CACHING": "false"}
    assert launch.argv[-2:] == ("--max-batch-size", "64")


WRONG: tuple[tuple[Mapping[str, Value], str], ...] = (
    (
        {"max_input_tokens": 4096, "max_total_tokens": 4096},
        "max_input_tokens=4096 does not fit max_total_tokens=4096",
    ),
    (
        {"max_batch_prefill_tokens": 8192, "max_batch_total_tokens": 4096},
        "max_batch_prefill_tokens=8192 does not fit max_batch_total_tokens=4096",
    ),
    ({"quantize": "awq", "dtype": "float16"}, "dtype=float16 cannot be used with quantize=awq"),
    ({"quantize": "exl2", "num_shard": 2}, "num_shard=2 cannot be used with quantize=exl2"),
    ({"prefix_caching": True, "attention": "paged"}, "set attention=flashinfer"),
)


@pytest.mark.parametrize(("config", "words"), WRONG)
def test_what_the_launcher_would_refuse_is_refused_before_a_start(
    config: Mapping[str, Value], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        ENGINE.check("org/model", config)


def test_a_prefill_as_long_as_the_longest_input_fits() -> None:
    ENGINE.check("org/model", {"max_input_tokens": 4096, "max_batch_prefill_tokens": 4096})


def test_it_answers_under_its_own_name_and_is_asked_on_its_own_path() -> None:
    launch = ENGINE.launch("org/model", {"num_shard": 2}, artifact=None, host="h", port=55_000)

    assert (launch.model, launch.url, launch.gpus) == ("tgi", "http://h:55000", 2)
    assert launch.probe is not None
    assert launch.probe[0] == "/generate"
    rendezvous = launch.argv[launch.argv.index("--master-port") + 1]
    assert 1024 < int(rendezvous) < 65_536
