"""Who reads results writes nothing: every reading command works on a folder that is read-only."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

import lab
from conftest import DYNO, last_json
from llmdyno import store
from llmdyno.cli import flags
from llmdyno.cli.rebuild import run_summary
from llmdyno.load.plan import Point
from llmdyno.load.ray_workers import NodeAgent
from llmdyno.load.worker import Assignment
from llmdyno.workload.share import Share

# Binds a folder onto itself, read-only, in a mount namespace that ends with the command.
_SEAL = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && cd "$0" && exec "$@"'

Dyno = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def sealed(results: Path) -> Dyno:
    """Run `dyno` in the folder of the results, which is read-only for it, for root as well."""
    prefix: Sequence[str] = ()

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, *command],
            cwd=results,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def can_write() -> bool:
        return run("touch", "new").returncode == 0

    for path in (results, *results.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    if can_write():  # root, whom permissions do not stop
        prefix = ("unshare", "--mount", "sh", "-c", _SEAL, str(results))
    if can_write() or run("ls").returncode != 0:
        pytest.skip(
            "cannot make a folder read-only here: permissions do not stop us, nor can we mount"
        )
    return lambda *arguments: run(*DYNO, *arguments)


def test_a_read_only_study_is_reported_elsewhere(sealed: Dyno, results: Path) -> None:
    out = results.parent / "page"
    before = lab.snapshot(results)

    done = sealed("report", lab.STUDY, "--out", str(out), "--json")

    assert done.returncode == 0, done.stderr
    document = json.loads((out / store.STUDY).read_text())
    assert document == last_json(done.stdout)
    assert document["bundle"] == str(out / "bundle")
    assert (out / store.REPORT).stat().st_size > 10_000
    assert "--itl 20ms" in (out / "bundle" / "serve.sh").read_text()
    assert lab.snapshot(results) == before


def test_a_read_only_run_is_reported_elsewhere(sealed: Dyno, results: Path) -> None:
    out = results.parent / "page"
    out.mkdir()
    store.write_json(out / store.SUMMARY, run_summary(results / lab.RUN))  # it may be made again
    before = lab.snapshot(results)

    done = sealed("report", "r", "--out", str(out))

    assert (done.returncode, done.stdout) == (0, f"{out / store.REPORT}\n"), done.stderr
    assert json.loads((out / store.SUMMARY).read_text())["run"] == "r"
    assert sorted(path.name for path in out.iterdir()) == [store.REPORT, store.SUMMARY]
    assert lab.snapshot(results) == before


@pytest.mark.parametrize("name", [lab.RUN, lab.STUDY])
def test_a_read_only_folder_is_told_from_one_sentence(name: str, sealed: Dyno) -> None:
    done = sealed("report", name)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"dyno: {name}: may not be written; name another folder with --out.\n"


def test_the_winner_of_a_read_only_study_is_deployed(sealed: Dyno, results: Path) -> None:
    out = results.parent / "deployed"
    before = lab.snapshot(results)

    done = sealed("deploy", "--study", lab.STUDY, "--out", str(out))

    assert (done.returncode, done.stdout) == (0, f"{out}\n"), done.stderr
    assert "--itl 20ms" in (out / "serve.sh").read_text()
    assert "times the token rate" in (out / "README.md").read_text()
    assert lab.snapshot(results) == before


def test_read_only_results_are_listed_exported_and_compared(sealed: Dyno, results: Path) -> None:
    table, page = results.parent / "r.csv", results.parent / "compare.html"
    before = lab.snapshot(results)

    listed = sealed("runs", "--json")
    exported = sealed("export", "r", "--csv", str(table))
    compared = sealed("compare", "r", f"{lab.STUDY}/runs/trial-0", "--out", str(page))
    here = sealed("compare", "r", "r")

    assert [row["id"] for row in last_json(listed.stdout)] == ["r", "s"], listed.stderr
    assert exported.returncode == 0, exported.stderr
    assert len(table.read_text().splitlines()) == 201
    assert compared.returncode == 0, compared.stderr
    assert page.stat().st_size > 10_000
    assert here.returncode == 2
    assert here.stderr == "dyno: --out compare.html: may not be written; name another one.\n"
    assert lab.snapshot(results) == before


def test_a_read_only_study_cannot_go_on(sealed: Dyno) -> None:
    done = sealed("tune", "--resume", lab.STUDY)

    assert done.returncode == 3
    assert done.stderr.startswith(f"dyno: cannot write {lab.STUDY}/.lock: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["r", "s", "--out", "new"], "--out new: takes the report of one run or study; "),
        (["r", "--out", ""], "--out: is empty; name a folder."),
        (["r", "--out", "runs/r/journal.jsonl"], "is a file; name a folder."),
    ],
)
def test_wrong_places_of_a_report_are_one_sentence(
    arguments: list[str], words: str, results: Path
) -> None:
    before = lab.snapshot(results)

    done = subprocess.run(
        [*DYNO, "report", *arguments], cwd=results, capture_output=True, text=True, check=False
    )

    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert lab.snapshot(results) == before


@pytest.mark.parametrize(
    "command", [("report", "--out", "new"), ("export", "--csv", "new.csv"), ("deploy", "--study")]
)
def test_a_folder_that_may_not_be_read_is_one_sentence(
    command: Sequence[str], results: Path
) -> None:
    (results / "runs").chmod(0)
    # Without its capabilities root is held by permissions, too.
    prefix = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
    if prefix and shutil.which("setpriv") is None:
        pytest.skip("root may read everything, and there is no setpriv to become less")
    arguments = (
        (*command, lab.RUN) if command[0] == "deploy" else (command[0], lab.RUN, *command[1:])
    )

    done = subprocess.run(
        [*prefix, *DYNO, *arguments], cwd=results, capture_output=True, text=True, check=False
    )
    (results / "runs").chmod(0o755)

    assert done.returncode == 2, done.stderr
    assert done.stderr == f"dyno: {lab.RUN}: cannot be read: Permission denied.\n"


def test_what_starts_a_worker_afar_makes_its_folder_when_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spec = flags.bench_spec({"url": "http://127.0.0.1:9", "endpoint": "openai-chat", "model": "m"})
    point = Point(spec=spec, level=0, repeat=0, load=1, again=0)
    assignment = Assignment(point=point, share=Share(), zero_ns=0, journal="")

    post = NodeAgent()
    assert not list(tmp_path.iterdir())

    post.start(msgspec.json.encode(assignment), ())
    try:
        (folder,) = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert post.wait_until_ready()
    finally:
        post.leave()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("results.export", {"bench", "load", "results.summary"}),
        ("importers", {"bench", "load"}),
        ("tune.ledger", {"bench", "load"}),
        ("terminal.lists", {"bench", "load", "tune"}),
        ("report", {"bench", "load"}),
        ("tune.study", {"bench", "load", "deploy"}),
        ("results.summary", {"bench", "load"}),
    ],
)
def test_a_reader_does_not_load_what_it_does_not_use(module: str, without: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, llmdyno.{module}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )

    loaded = set(done.stdout.split())
    assert f"llmdyno.{module}" in loaded
    assert not loaded & {f"llmdyno.{name}" for name in without}
