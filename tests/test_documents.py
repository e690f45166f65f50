"""The commands in docs/ are real: those that need no GPU are run, all are parsed."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmdyno.cli.app import app
from llmdyno.results.metrics import BY_NAME

DOCS = Path(__file__).parent.parent / "docs"
# They need a GPU, a server or a study.
NOT_HERE = ("serve", "bench", "tune", "--study")


def commands(page: str) -> list[list[str]]:
    lines = re.findall(r"^    dyno (.+)$", (DOCS / page).read_text(), re.MULTILINE)
    return [shlex.split(line) for line in lines]


def _is_in_group(command: list[str]) -> bool:
    return command[0] in {"artifacts", "runs"} and not command[1].startswith("--")


@pytest.mark.parametrize("page", ["from-zero-to-tensorrt-llm.md", "deploying.md"])
def test_every_command_of_a_page_that_can_run_here_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "Meta-Llama-3-8B-Instruct"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')

    ran = 0
    for command in commands(page):
        if any(word in NOT_HERE for word in command):
            continue
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, (command, done.output, done.exception)
        ran += 1
        if "--out" in command:
            assert (tmp_path / command[command.index("--out") + 1] / "README.md").is_file()
    assert ran >= 2
    if page.startswith("from-zero"):
        assert ran == 8


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_every_flag_of_a_page_is_one_of_its_command(page: str) -> None:
    for command in commands(page):
        flags = {word.partition("=")[0] for word in command if word.startswith("--")}
        if flags:
            help_text = (
                CliRunner().invoke(app, [*command[: 1 + _is_in_group(command)], "--help"]).output
            )
            assert not {flag for flag in flags if flag not in help_text}, command


@pytest.mark.parametrize("command", [[], ["artifacts"]])
def test_no_line_of_the_help_is_cut(command: list[str]) -> None:
    done = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*command, "--help"])

    assert done.output.count("\n") > 5
    assert not [line for line in done.output.splitlines()[1:] if line.endswith("...")]


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (DOCS / page).read_text())

    assert not [link for link in links if not (DOCS / link).exists()]


@pytest.mark.parametrize("name", ["vllm", "sglang", "tensorrt-llm", "triton", "bentoml"])
def test_the_knobs_fit_80_columns(name: str) -> None:
    lines = CliRunner().invoke(app, ["knobs", name]).output.splitlines()

    assert len(lines) > 10
    assert not [line for line in lines if len(line) > 80]


def test_the_page_on_measuring_defines_every_metric() -> None:
    page = (DOCS / "bench.md").read_text()

    for row in BY_NAME.values():
        assert f"| `{row.name}` | {row.title} | {row.unit} | {row.definition} |" in page
