"""The commands in the documents are real: the command line reads every one, and many are run."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import documents
from documents import DOCS, ROOT
from llmdyno.cli.app import app, load
from llmdyno.cli.flags import bench_flags, bench_spec, spec_of, study_flags, study_spec
from llmdyno.cli.options import with_values
from llmdyno.cli.plan import plan_flags
from llmdyno.cli.serve import read_stack
from llmdyno.flag import Field
from llmdyno.predict.asked import Plan
from llmdyno.results.metrics import BY_NAME

# They need a GPU, a server or a study.
NOT_HERE = ("serve", "bench", "tune", "--study")
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def commands(page: str) -> list[list[str]]:
    return [words for line in documents.lines(page) for words in documents.calls(line)]


@pytest.mark.parametrize("page", ["from-zero-to-tensorrt-llm.md", "deploying.md"])
def test_every_command_of_a_page_that_can_run_here_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "Meta-Llama-3-8B-Instruct"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')

    ran = 0
    for command in commands(f"docs/{page}"):
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


def read(words: list[str]) -> None:
    """Read a command as the command line does, up to where it would begin."""
    name, *rest = words
    command: Any = load(name)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        command, rest = command.commands[rest[0]], rest[1:]
    if hasattr(command, "commands") and not rest:
        return
    with command.make_context(name, with_values(rest)) as context:
        params = {key.removesuffix("_"): value for key, value in context.params.items()}
    flags: dict[str, Callable[[], list[Field]]] = {"bench": bench_flags, "plan": plan_flags}
    known = {field.name for field in flags.get(name, study_flags)()}
    given = {
        key: list(one) if isinstance(one, tuple) else one
        for key, one in params.items()
        if key in known and one not in (None, [], ())
    }
    if name == "bench":
        bench_spec(given)
    elif name == "plan":
        spec_of(Plan, given)
    elif name in {"tune", "serve", "build", "deploy"}:
        study = study_spec(given)
        if not study.combines:
            read_stack(study, params.get("settings"))


@pytest.mark.parametrize("page", documents.pages())
def test_the_command_line_reads_every_command(page: str) -> None:
    for line in documents.lines(page):
        try:
            for words in documents.calls(line):
                read(words)
        except Exception as error:
            raise AssertionError(f"{page}: {line}") from error


def test_a_command_that_is_none_is_seen() -> None:
    for line in (
        "dyno bench --url http://h --userz 3",
        "dyno bench --url http://h --slo 'ttft:p99<'",
        "dyno bench -c 3",
        "dyno nothing",
        "dyno serve --engine vllm --set nothing=1",
        "echo x | dyno chat --endpoint openai-chat",
        "dyno artifacts removed",
    ):
        (words,) = documents.calls(line)
        with pytest.raises(Exception, match=r"."):
            read(words)


def test_the_commands_of_a_line_are_found() -> None:
    assert documents.calls("dyno report a; dyno report 'b c' > x # dyno runs") == [
        ["report", "a"],
        ["report", "b c"],
    ]
    assert documents.calls("echo 'dyno x' | dyno chat --url u") == [["chat", "--url", "u"]]
    assert documents.calls("A=. dyno runs") == [["runs"]]
    assert documents.calls("dynometer") == documents.calls("a dyno is") == []


@pytest.mark.parametrize("command", [[], ["artifacts"]])
def test_no_line_of_the_help_is_cut(command: list[str]) -> None:
    done = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*command, "--help"])

    assert done.output.count("\n") > 5
    assert not [line for line in done.output.splitlines()[1:] if line.endswith("...")]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (DOCS / page).read_text())

    assert not [link for link in links if not (DOCS / page).parent.joinpath(link).exists()]


@pytest.mark.parametrize("name", ["vllm", "sglang", "tensorrt-llm", "triton", "bentoml"])
def test_the_knobs_fit_80_columns(name: str) -> None:
    lines = CliRunner().invoke(app, ["knobs", name]).output.splitlines()

    assert len(lines) > 10
    assert not [line for line in lines if len(line) > 80]


def test_the_page_on_measuring_defines_every_metric() -> None:
    page = (DOCS / "bench.md").read_text()

    for row in BY_NAME.values():
        assert f"| `{row.name}` | {row.title} | {row.unit} | {row.definition} |" in page


@pytest.mark.parametrize("page", documents.pages())
def test_a_title_of_a_block_says_how_it_runs(page: str) -> None:
    known = {documents.ONCE, documents.ANOTHER_TERMINAL}
    known |= {documents.NEEDS_GPU, documents.NEEDS_SERVER}
    for block in documents.blocks(page):
        if block.language == "sh" and block.title:
            ends = re.fullmatch(rf"{documents.ENDS_WITH}[1-3]", block.title)
            assert block.title in known or ends, block


def test_the_readme_leads_to_the_site() -> None:
    assert "docs/quickstart.md" in (ROOT / "README.md").read_text()
