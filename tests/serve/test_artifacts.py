"""Artifacts: built once, whole or not at all, found again, listed and removed."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import DYNO, last_json
from llmdyno import plugins
from llmdyno.engines import Engine
from llmdyno.errors import ServerError
from llmdyno.knobs import Value
from llmdyno.serve import artifacts, build
from waiting import until

ENGINE: Engine = plugins.load("engines", "built.scripted")
BUILD = (*DYNO, "build", "--engine", "built.scripted", "--model", "m")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; builds write a line each into the file that $BUILDS names."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("BUILDS", str(tmp_path / "builds"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "llmdyno" / "artifacts"


def ensure(model: str = "m", **config: Value) -> build.Artifact:
    artifact = build.ensure(ENGINE, model, config, notify=lambda _: None)
    assert artifact is not None
    return artifact


def builds(folder: Path) -> int:
    return len((folder / "builds").read_text())


def content(cache: Path) -> list[str]:
    """Return what is in the cache but for locks."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_an_artifact_is_built_once(cache: Path, tmp_path: Path) -> None:
    first, second = ensure(itl_ms=7), ensure(itl_ms=7)

    assert (first.path / "itl").read_text() == "7\n"
    assert (first.cached, second.cached) == (False, True)
    assert second.manifest == first.manifest
    assert builds(tmp_path) == 1
    assert content(cache) == [first.path.name]
    manifest = json.loads((first.path / "manifest.json").read_text())
    assert manifest["schema"] == "llmdyno.artifact/1"
    assert manifest["recipe"]["knobs"] == {"itl_ms": 7}
    assert [step["what"] for step in manifest["steps"]] == ["half of it", "the other half"]
    assert manifest["files"] == {"half": 2, "itl": 2}
    assert manifest["bytes"] == 4
    assert "$ sh -c 'echo 7 > " in (first.path / "build.log").read_text()


def test_the_id_is_of_all_that_matters_and_of_nothing_else(cache: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.bin"
    model.write_text("weights")
    plain = ensure(str(model))

    assert plain.path.parent == cache
    assert ensure(str(model), itl_ms=40).path == plain.path  # its default
    assert ensure(str(model), idle=3).path == plain.path  # no knob of the build
    assert ensure(str(model), itl_ms=8).path != plain.path
    assert ensure("m").path != plain.path
    model.write_text("others")
    assert ensure(str(model)).path != plain.path


@pytest.mark.parametrize(
    ("build", "kind", "words"),
    [
        ("greedy", "out-of-memory", "CUDA out of memory"),
        ("full", "disk-full", "No space left on device"),
        ("talks", "died", "asked with •••"),
    ],
)
def test_a_step_that_fails_leaves_nothing_but_its_log(
    build: str, kind: str, words: str, cache: Path
) -> None:
    with pytest.raises(ServerError, match=r"^the other half: The command ended with") as caught:
        ensure(build=build)

    assert caught.value.kind == kind
    assert words in str(caught.value)
    assert [Path(name).suffix for name in content(cache)] == [".log"]
    assert str(cache / content(cache)[0]) in str(caught.value)


def test_the_command_line_prints_the_folder(cache: Path, tmp_path: Path) -> None:
    first = subprocess.run([*BUILD, "--json"], capture_output=True, text=True, check=True)
    second = subprocess.run(BUILD, capture_output=True, text=True, check=True)

    document = last_json(first.stdout)
    assert second.stdout.strip() == document["artifact"] == str(cache / document["manifest"]["id"])
    assert not document["cached"]
    assert second.stderr.startswith("Found in ")
    assert builds(tmp_path) == 1


def begin_slow_build(cache: Path) -> subprocess.Popen[str]:
    """Start a build that stops half way, and return when it is there."""
    process = subprocess.Popen(
        BUILD,
        env={**os.environ, "SLEEP": "31"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: list(cache.glob(".*/half")), "half of the build")
    return process


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 130)]
)
def test_a_build_that_is_cut_off_leaves_nothing_to_be_used(
    number: signal.Signals, status: int, cache: Path
) -> None:
    process = begin_slow_build(cache)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)

    assert process.returncode == status
    assert "Traceback" not in said
    if number != signal.SIGKILL:
        assert [Path(name).suffix for name in content(cache)] == [".log"]
    step = ["pgrep", "-fx", "sleep 31"]
    until(
        lambda: not subprocess.run(step, capture_output=True, check=False).stdout,
        "the end of the step",
    )
    assert artifacts.listed() == []

    whole = ensure()

    assert not whole.cached
    assert content(cache) == [whole.path.name]


def test_pruning_leaves_a_build_under_way_alone(cache: Path) -> None:
    process = begin_slow_build(cache)
    before = content(cache)

    removed = artifacts.prune(older_than_s=None, keep=0)
    after = content(cache)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)

    assert removed == []
    assert after == before


def test_of_two_at_once_one_builds_and_one_waits(cache: Path, tmp_path: Path) -> None:
    two = [
        subprocess.Popen(
            BUILD,
            env={**os.environ, "SLEEP": "3"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60) for process in two]

    assert [process.returncode for process in two] == [0, 0], outputs
    assert len({stdout for stdout, _ in outputs}) == 1
    assert builds(tmp_path) == 1
    assert sum("another dyno is building it" in stderr for _, stderr in outputs) == 1
    assert len(content(cache)) == 1


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("damage", ["cut", "lost", "manifest"])
def test_a_damaged_artifact_is_built_again(damage: str) -> None:
    path = ensure().path
    if damage == "cut":
        (path / "itl").write_text("")
    elif damage == "lost":
        (path / "itl").unlink()
    else:
        (path / "manifest.json").write_text('{"schema"')
    said: list[str] = []
    assert artifacts.listed() == [artifacts.Damaged(id=path.name)]

    again = build.ensure(ENGINE, "m", {}, notify=said.append)

    assert again is not None
    assert (again.path, again.cached) == (path, False)
    assert (path / "itl").read_text() == "40\n"
    assert said[0] == f"{path} is damaged; building it again"


def test_artifacts_are_listed_and_removed(
    cache: Path, dyno: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    assert dyno("artifacts").stdout == "Nothing was built yet.\n"
    paths = [ensure(itl_ms=number).path for number in range(1, 6)]
    for age, path in enumerate(reversed(paths)):
        os.utime(path / "manifest.json", (time.time() - age * 86400,) * 2)
    (paths[1] / "itl").unlink()
    ids = [path.name for path in paths]

    listed = dyno("artifacts", "list").stdout.splitlines()
    assert [line.split()[0] for line in listed if "damaged" not in line] == [
        *(ids[4], ids[3], ids[2], ids[0]),
    ]
    assert "built.scripted 1.0  m  itl_ms=5" in listed[0]
    assert "used 4 days ago" in next(line for line in listed if line.startswith(ids[0]))
    rows = json.loads(dyno("artifacts", "--json").stdout)
    assert rows[0]["bytes"] == 4

    assert dyno("artifacts", "prune").stdout.split() == [ids[1]]
    assert dyno("artifacts", "prune", "--older-than", "3d").stdout.split() == [ids[0]]
    assert dyno("artifacts", "remove", str(paths[2])).stdout.split() == [ids[2]]
    assert dyno("artifacts", "prune", "--keep", "1").stdout.split() == [ids[3]]
    assert content(cache) == [ids[4]]
    assert dyno("artifacts", "prune", "--all").stdout.split() == [ids[4]]
    assert content(cache) == []
    wrong = dyno("artifacts", "remove", "0123")
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "dyno: artifact '0123': none begins so; `dyno artifacts` lists their ids.\n",
    )


@pytest.mark.usefixtures("cache")
def test_a_study_builds_each_value_once_and_a_failed_build_is_a_failed_trial(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [
            *(*DYNO, "tune", "--engine", "built.scripted", "--model", "m", "-c", "2"),
            *("--ramp", "100ms", "--duration", "1s", "--trial-duration", "1s", "--osl", "8"),
            *(
                "--interval",
                "1s",
                "--pairs",
                "2",
                "--warmup",
                "100ms",
                "--trials",
                "3",
                "--no-quality",
            ),
            *("--out", "s", "--json"),
        ],
        env={**os.environ, "SLEEP": "0.2"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = last_json(done.stdout)
    trials = {trial["config"]["build"]: trial for trial in document["trials"]}
    assert trials["greedy"]["failure"]["class"] == "out-of-memory"
    assert trials["fast"]["cost_s"]["build"] > 0.2
    assert document["best"]["config"] == {"build": "fast"}
    assert document["confirmation"]["verdict"] == "better"
    # The default, fast, and greedy, which leaves nothing and is built in vain each time.
    assert builds(tmp_path) == 3
    assert len(artifacts.listed()) == 2
