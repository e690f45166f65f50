"""The commands that only look: what they print, and how they end."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmdyno import plugins

Dyno = Callable[..., subprocess.CompletedProcess[str]]


def test_the_guide_says_what_a_knob_does_when_to_turn_it_and_what_it_costs(dyno: Dyno) -> None:
    table, guide = dyno("knobs", "openvino"), dyno("knobs", "openvino", "max_num_seqs")

    assert (table.returncode, guide.returncode) == (0, 0)
    assert "enable_prefix_caching=false    true or false" in table.stdout
    assert max(map(len, table.stdout.splitlines())) < 100
    for words in ("what it does", "when to turn it", "what it trades", "dynamic_split_fuse=false"):
        assert words in guide.stdout


def test_every_engine_has_a_guide(dyno: Dyno) -> None:
    guide = dyno("knobs", "vllm").stdout

    assert "max_num_batched_tokens=unset" in guide
    here = plugins.load("engines", "vllm").version()
    assert guide.startswith(f"vllm {here}" if here else "vllm, not installed here: ")
    assert dyno("knobs", "openvino").stdout.startswith("openvino 2")
    excluded = dyno("knobs", "vllm", "quantization").stdout
    assert "does not go with\n    dtype=float32;" in excluded


def test_the_facts_of_the_machine_are_one_line_each_or_one_document(dyno: Dyno) -> None:
    lines, document = dyno("env"), dyno("env", "--json")

    assert "cpu: model " in lines.stdout
    assert json.loads(document.stdout)["llmdyno"]


def test_runs_lists_what_is_in_this_folder(dyno: Dyno, tmp_path: Path) -> None:
    assert dyno("runs").stdout == "No runs and no studies in this folder.\n"
    sample = next((Path(__file__).parent.parent / "importers" / "samples").glob("*vllm*.json"))

    imported = dyno("import", str(sample))
    assert imported.returncode == 0, imported.stderr

    (folder,) = (tmp_path / "runs").iterdir()
    assert imported.stdout.strip() == f"runs/{folder.name}"
    assert f"{folder.name}  from vllm: " in dyno("runs").stdout
    assert json.loads(dyno("runs", "--json").stdout)[0]["id"] == folder.name


def test_two_runs_are_compared_on_one_page(dyno: Dyno, tmp_path: Path) -> None:
    for sample in sorted(
        (Path(__file__).parent.parent / "importers" / "samples").glob("*vllm*.json")
    )[:2]:
        dyno("import", str(sample))
    first, *rest = sorted(folder.name for folder in (tmp_path / "runs").iterdir())

    done = dyno("compare", first, (rest or [first])[-1])

    assert (done.returncode, done.stdout) == (0, "compare.html\n"), done.stderr
    assert (tmp_path / "compare.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["knobs", "openvin"], "Did you mean 'openvino'?"),
        (["knobs", "openvino", "max_num_seq"], "Did you mean 'max_num_seqs'?"),
        (["report", "nowhere"], "nowhere: no such run or study here"),
        (["export", "nowhere"], "name a file with --csv or --parquet"),
        (["import", "nowhere.json"], "nowhere.json"),
        (["serve", "--engine", "openvino", "--set", "cache_size=-1"], "cache_size=-1: must be"),
        (["serve", "--model", "hugee"], "hugee"),
        (["serve", "--set", "cache_size"], "write knob=value"),
        (["build", "--engine", "openvin"], "Did you mean 'openvino'?"),
        (["build", "--model", "hugee"], "hugee"),
        (["build", "--set", "weight_format=int3"], "must be one of fp16, int8, int4"),
        (["build", "--set", "int4_ratio=0.5"], "no effect while weight_format=unset"),
        (["build", "--set", "weight_fromat=int8"], "Did you mean 'weight_format'?"),
        (["artifacts", "prune", "--older-than", "old"], "write a duration such as"),
        (["artifacts", "prune", "--keep", "-1"], "--keep -1: must be at least 0"),
    ],
)
def test_wrong_usage_is_one_sentence(arguments: list[str], words: str, dyno: Dyno) -> None:
    done = dyno(*arguments)

    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_folder_that_holds_nothing_says_so(dyno: Dyno, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    done = dyno("report", "empty")

    assert (done.returncode, done.stderr) == (2, "dyno: empty: holds neither a run nor a study.\n")


def test_a_pipe_that_closes_early_is_no_fault(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m llmdyno knobs openvino | head -1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr


def test_numpy_comes_without_threads_and_leaves_no_variable_to_servers() -> None:
    script = (
        "import os; from llmdyno.cli.output import import_numpy; import_numpy();"
        "print('OPENBLAS_NUM_THREADS' in os.environ, len(os.listdir('/proc/self/task')))"
    )
    clean = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=clean, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["False", "1"]
