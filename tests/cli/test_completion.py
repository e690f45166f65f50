"""Completion: the words that may stand at the end of a line, and real shells that ask for them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmdyno import plugins
from llmdyno.cli.app import COMMANDS, COMPLETING, load
from llmdyno.cli.completion import SHELLS, Commands, Word, complete
from llmdyno.engines.openvino import ENGINE

Dyno = Callable[..., subprocess.CompletedProcess[str]]
KNOBS = [knob.name for knob in ENGINE.knobs]


def words(line: str) -> list[Word]:
    lines = {name: line for name, (_, line) in COMMANDS.items()}
    return complete(line, Commands(lines, load))


def texts(line: str) -> list[str]:
    return [word.text for word in words(line)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dyno ", [*COMMANDS, "--help", "--version"]),
        ("dyno be", ["bench"]),
        ("dyno artifacts ", ["list", "remove", "prune"]),
        ("dyno artifacts prune --ke", ["--keep"]),
        ("dyno runs ", ["tag", "prune", "export"]),
        ("dyno runs --si", ["--since"]),
        ("dyno runs --engine vl", ["vllm"]),
        ("dyno runs prune --ke", ["--keep"]),
        ("dyno tune --engine ", plugins.names("engines")),
        ("dyno tune --engine=v", ["--engine=vllm"]),
        ("dyno tune --engine vllm,sg", ["vllm,sglang"]),
        ("dyno tune --engine sglang,s", []),
        ("dyno serve --front tr", ["triton"]),
        ("dyno bench --endpoint triton-", ["triton-generate", "triton-grpc"]),
        ("dyno bench -c 1 --arrival p", ["poisson"]),
        ("dyno tune --sampler hi", ["hill-climb"]),
        ("dyno tune --objective ttft:p9", ["ttft:p90", "ttft:p95", "ttft:p99"]),
        ("dyno tune --objective token_", ["token_rate"]),
        ("dyno import --from guide", ["guidellm"]),
        ("dyno knobs open", ["openvino"]),
        ("dyno knobs openvino ", KNOBS),
        ("dyno knobs openvino cache_size ", []),
        ("dyno serve --set enable_prefix_caching=t", ["enable_prefix_caching=true"]),
        ("dyno tune --search cache_size,max_num_s", ["cache_size,max_num_seqs"]),
        ("dyno completion f", ["fish"]),
        # Without a word the shell completes names of files.
        ("dyno bench --out ", []),
        ("dyno bench --dataset x", []),
        ("dyno nonsense ", []),
        ("dyno serve --engine nonsense --front native --fr", ["--front"]),
        ("dyno tune 'not closed", []),
    ],
)
def test_a_line_is_gone_on_with(line: str, expected: list[str]) -> None:
    assert texts(line) == expected


def test_the_knobs_are_those_of_the_engine_and_the_front_that_the_line_names() -> None:
    of_vllm = {f"{knob.name}=" for knob in plugins.load("engines", "vllm").knobs}
    of_triton = {f"{knob.name}=" for knob in plugins.load("fronts", "triton").knobs}

    assert set(texts("dyno serve --engine vllm --set ")) == of_vllm
    assert set(texts("dyno serve --engine vllm --front triton --set ")) == of_vllm | of_triton
    assert set(texts("dyno serve --set ")) == {f"{name}=" for name in KNOBS}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_of_a_command_is_offered_with_its_help(name: str) -> None:
    offered = words(f"dyno {name} -")

    assert "--help" in {word.text for word in offered}
    assert all(word.help for word in offered)


def test_runs_and_studies_of_the_folder_are_offered_newest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/20260101-a", "runs/20260102-b", "studies/20260103-c"):
        (tmp_path / folder).mkdir(parents=True)

    assert texts("dyno export ") == ["20260102-b", "20260101-a", "20260103-c"]
    assert texts("dyno runs tag 2026010") == ["20260102-b", "20260101-a", "20260103-c"]
    assert texts("dyno report 20260102-b ") == ["20260102-b", "20260101-a", "20260103-c"]
    assert texts("dyno tune --resume ") == ["20260103-c"]
    (tmp_path / "first-run").mkdir()
    (tmp_path / "first-run" / "journal.jsonl").write_text("")
    (tmp_path / "first-of-another-tool").mkdir()
    (tmp_path / "first-of-another-tool" / "summary.json").write_text("{}")
    assert texts("dyno runs tag first") == ["first-run"]


def test_a_shell_that_is_not_known_is_one_sentence(dyno: Dyno) -> None:
    done = dyno("completion", "tcsh")

    assert done.returncode == 2
    assert done.stderr.startswith("dyno: dyno completion tcsh: no such shell.")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_goes_to_where_its_shell_looks_for_it(
    shell: str, dyno: Dyno, tmp_path: Path
) -> None:
    printed = dyno("completion", shell).stdout
    done = dyno("completion", shell, "--install", HOME=str(tmp_path))

    written = tmp_path / SHELLS[shell].home
    assert done.stdout.strip() == str(written)
    assert written.read_text() == printed


# What a real shell makes of a line: it sources the script, asks, and prints what it was told.
BASH = """
source {script}
COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}
compopt() {{ echo "$@"; }}
_dyno dyno
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
FISH = "source {script}; complete -C {line!r}"
ZSH = r"""
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "PS1= ; autoload -Uz compinit; compinit -u -d {folder}/dump; source {script}"
zpty -w z "bindkey '^I' complete-word; zstyle ':completion:*' list-prompt ''; LISTMAX=0; echo READY"
zpty -r z seen '*READY*READY*'
zpty -n -w z {line!r}$'\t'
sleep 0.1
zpty -n -w z $'\C-a# \C-e END\n'
zpty -r z seen '*END*'
print -r -- "$seen"
"""
ASKS = {"bash": BASH, "fish": FISH, "zsh": ZSH}


@pytest.fixture
def ask(tmp_path: Path) -> Callable[[str, str], str]:
    """Return what a shell says to a line, with `dyno` on its PATH."""

    def asked(shell: str, line: str) -> str:
        if shutil.which(shell) is None:
            pytest.skip(f"needs {shell}")
        command = tmp_path / "dyno"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m llmdyno "$@"\n')
        command.chmod(0o755)
        script = tmp_path / f"script.{shell}"
        script.write_text(SHELLS[shell].script)
        text = ASKS[shell].format(script=script, line=line, folder=tmp_path)
        return subprocess.run(
            [shell, "-c", text],
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout

    return asked


def test_bash_completes(ask: Callable[[str, str], str]) -> None:
    # Readline takes what stands behind "=" and ":" for a word of its own.
    assert ask("bash", "dyno tune --engine=vl").split() == ["vllm"]
    assert ask("bash", "dyno tune --objective ttft:p99").split() == ["p99"]
    assert ask("bash", "dyno serve --set enable_pre").split() == [
        "-o", "nospace", "enable_prefix_caching="
    ]  # fmt: skip


def test_fish_completes(ask: Callable[[str, str], str]) -> None:
    assert ask("fish", "dyno be") == "bench\tPut a server under load and measure it.\n"


def test_zsh_completes(ask: Callable[[str, str], str]) -> None:
    assert "dyno tune --engine vllm" in ask("zsh", "dyno tune --engine vl")


def test_an_answer_is_a_line_a_word_with_its_help(dyno: Dyno) -> None:
    done = dyno(**{COMPLETING: "dyno be"})

    assert done.stdout == "bench\tPut a server under load and measure it.\n"
    assert done.returncode == 0
    assert done.stderr == ""
