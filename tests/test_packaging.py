"""What people install: the version, the packages' files, the image and the Job.

`make release` builds and installs the real packages; here is what can be known without that.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

import image
import llmdyno
from llmdyno.cli.app import load
from release import EXTENSION, ReleaseError, check_sdist, check_wheel, sources, version_of

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
JOB = ROOT / "examples" / "kubernetes" / "bench-job.yaml"
CI = ROOT / "examples" / "ci"
KUBERNETES = "1.34"


def test_the_version_stands_once_and_the_changelog_has_its_section() -> None:
    assert "version" in PROJECT["project"]["dynamic"]
    path = PROJECT["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{llmdyno.__version__}"' in (ROOT / path).read_text()
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == "Unreleased"
    assert llmdyno.__version__ in sections[1:]


@pytest.mark.parametrize(
    ("changelog", "words"),
    [
        ("## 0.2.0 - 2026-11-29\n\n- a\n", "must stand first"),
        ("## Unreleased\n\n- new\n\n## 0.2.0 - 2026-11-29\n", "and be empty"),
        ("## Unreleased\n\n## 0.2.0\n", "is not like '0.2.0 - 2026-11-29'"),
        ("## Unreleased\n", "must stand first"),
    ],
)
def test_a_changelog_that_is_not_cut_is_refused(changelog: str, words: str) -> None:
    with pytest.raises(ReleaseError, match=words):
        version_of(changelog)


def test_the_newest_version_is_that_of_the_first_cut() -> None:
    cut = "# C\n\n## Unreleased\n\n## 1.2.3 - 2026-11-29\n\n- a\n\n## 1.2.2 - 2026-01-01\n"

    assert version_of(cut) == "1.2.3"


def test_packages_of_a_checkout_may_hold_what_no_version_has_yet() -> None:
    between = "# C\n\n## Unreleased\n\n- new\n\n## 1.2.3 - 2026-11-29\n\n- a\n"

    assert version_of(between, uncut=True) == "1.2.3"
    with pytest.raises(ReleaseError, match="must stand first"):
        version_of("## 1.2.3 - 2026-11-29\n\n- a\n", uncut=True)


METADATA = """Metadata-Version: 2.4
Name: llmdyno
Version: 1.0.0
License-Expression: Apache-2.0
Requires-Python: >=3.11
Description-Content-Type: text/markdown
""" + "".join(f"Classifier: Programming Language :: Python :: 3.{n}\n" for n in (11, 12, 13, 14))
ABOUT = "llmdyno-1.0.0.dist-info"
ENTRIES = "[console_scripts]\ndyno = llmdyno.__main__:main\n"
PURE = "llmdyno-1.0.0-py3-none-any.whl"
COMPILED = "llmdyno-1.0.0-cp311-abi3-manylinux_2_17_x86_64.whl"
FILES = ["llmdyno/__init__.py", "llmdyno/report/page/page.css"]


def wheel(folder: Path, name: str, *, without: str = "", **also: str) -> Path:
    tag = name.removeprefix("llmdyno-1.0.0-").removesuffix(".whl")
    held = {
        **dict.fromkeys(FILES, ""),
        f"{ABOUT}/METADATA": METADATA,
        f"{ABOUT}/WHEEL": f"Wheel-Version: 1.0\nTag: {tag}\n",
        f"{ABOUT}/entry_points.txt": ENTRIES,
        f"{ABOUT}/licenses/LICENSE": "",
        **({EXTENSION: ""} if "abi3" in name else {}),
        **also,
    }
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("llmdyno/", "")
        for path, text in held.items():
            if path != without:
                archive.writestr(path, text)
    return folder / name


@pytest.mark.parametrize("name", [PURE, COMPILED])
def test_a_whole_wheel_passes(name: str, tmp_path: Path) -> None:
    check_wheel(wheel(tmp_path, name), "1.0.0", FILES)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        (PURE, {"without": FILES[1]}, "lacks llmdyno/report/page/page.css"),
        (COMPILED, {"without": EXTENSION}, "lacks llmdyno/wire/_reading.abi3.so"),
        (PURE, {EXTENSION: ""}, "has llmdyno/wire/_reading.abi3.so"),
        (PURE, {"llmdyno/__pycache__/a.pyc": ""}, "has llmdyno/__pycache__/a.pyc"),
        (PURE, {"tests/test_a.py": ""}, "has tests/test_a.py"),
        (PURE, {f"{ABOUT}/entry_points.txt": ""}, "has no command dyno"),
        (PURE, {"without": f"{ABOUT}/licenses/LICENSE"}, "has no licence"),
        (COMPILED.replace("-abi3-", "-cp311-"), {EXTENSION: ""}, "not for the stable ABI"),
        (PURE, {f"{ABOUT}/METADATA": METADATA.replace("1.0.0", "1.1.0")}, "its version is 1.1.0"),
        (PURE, {f"{ABOUT}/METADATA": METADATA.replace("3.11", "3.9", 1)}, "for Python >=3.9"),
        (PURE, {f"{ABOUT}/WHEEL": "Tag: cp311-abi3-linux_x86_64\n"}, "its tags are"),
    ],
)
def test_a_wheel_that_is_not_right_is_refused(
    name: str, given: dict[str, str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ReleaseError, match=re.escape(words)):
        check_wheel(wheel(tmp_path, name, **given), "1.0.0", FILES)


def test_an_sdist_without_what_a_build_needs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "PKG-INFO").write_text(METADATA)
    needed = ["pyproject.toml", "hatch_build.py", "README.md", "CHANGELOG.md", "LICENSE"]
    names = ["PKG-INFO", *needed, *(f"src/{name}" for name in FILES)]

    def packed(*names: str) -> Path:
        with tarfile.open(tmp_path / "llmdyno-1.0.0.tar.gz", "w:gz") as archive:
            for name in names:
                archive.add(tmp_path / "PKG-INFO", f"llmdyno-1.0.0/{name}")
        return tmp_path / "llmdyno-1.0.0.tar.gz"

    check_sdist(packed(*names), "1.0.0", FILES)
    with pytest.raises(ReleaseError, match=r"lacks hatch_build\.py"):
        check_sdist(packed(*(name for name in names if name != "hatch_build.py")), "1.0.0", FILES)
    with pytest.raises(ReleaseError, match=r"has evidence/study\.json"):
        check_sdist(packed(*names, "evidence/study.json"), "1.0.0", FILES)


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_the_packages_would_hold_every_file_of_the_source_and_no_stray_one(kind: str) -> None:
    builders = pytest.importorskip(f"hatchling.builders.{kind}")
    builder = {"wheel": "WheelBuilder", "sdist": "SdistBuilder"}[kind]
    found = getattr(builders, builder)(str(ROOT)).recurse_included_files()
    held = {file.distribution_path for file in found}

    wanted = {name if kind == "wheel" else f"src/{name}" for name in sources()}
    assert wanted <= held
    assert kind == "sdist" or held == wanted
    others = {name.split("/")[0] for name in held}
    assert not others & {"evidence", "benchmarks", "runs", "studies", ".ci", ".venv"}


def instructions() -> list[tuple[str, str]]:
    """Return the Containerfile's instructions, each with its words on one line."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Containerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def test_the_image_is_of_files_that_are_there_and_sent_to_the_builder() -> None:
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [shlex.split(rest)[:-1] for word, rest in instructions() if word == "COPY"]
    own = [name for names in copied if not names[0].startswith("--from") for name in names]

    assert own
    assert all((ROOT / name).exists() for name in own)
    assert {f"!{name}" for name in own} <= set(sent)
    # What the build of the package reads is among them.
    assert {"src", "hatch_build.py", PROJECT["project"]["readme"], "LICENSE"} <= set(own)


def test_the_image_has_a_pinned_base_its_own_user_and_the_command() -> None:
    said = instructions()
    bases = [rest.split()[0] for word, rest in said if word == "FROM"]
    (base,) = (rest.removeprefix("BASE=") for word, rest in said if word == "ARG")
    last = dict(said)  # of each kind the last one
    (wheel,) = (rest for word, rest in said if word == "RUN" and "pip wheel" in rest)

    assert set(bases) == {"${BASE}"}
    # The whole name: podman looks a short one up in a list, or asks.
    assert re.fullmatch(r"docker\.io/library/python:3\.1[1-4]-slim-[a-z]+", base)
    assert wheel.endswith("&& ls /wheels/*-abi3-*.whl")  # or the image would be slower, unnoticed
    assert last["USER"] == "10001"
    assert [word for word, _ in said].index("USER") > [rest for _, rest in said].index("${BASE}")
    (command,) = json.loads(last["ENTRYPOINT"])
    assert command in PROJECT["project"]["scripts"]
    assert "useradd --uid 10001" in " ".join(rest for word, rest in said if word == "RUN")


def job() -> Mapping[str, Any]:
    (found,) = (one for one in yaml.safe_load_all(JOB.read_text()) if one["kind"] == "Job")
    return dict(found)


def test_the_job_is_what_kubernetes_takes() -> None:
    documents = list(yaml.safe_load_all(JOB.read_text()))
    for document in documents:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)

    pod = job()["spec"]["template"]["spec"]
    claims = {one["metadata"]["name"] for one in documents if one["kind"].endswith("Claim")}
    volumes = {one["name"]: one for one in pod["volumes"]}
    (container,) = pod["containers"]
    assert volumes["results"]["persistentVolumeClaim"]["claimName"] in claims
    assert {one["name"] for one in container["volumeMounts"]} == set(volumes)
    assert pod["securityContext"]["runAsUser"] == 10001  # the image's
    assert container["image"] == f"llmdyno:{llmdyno.__version__}"


def test_the_jobs_command_is_one_of_dyno_and_its_key_a_secret() -> None:
    (container,) = job()["spec"]["template"]["spec"]["containers"]
    name, *words = container["args"]
    variables = {one["name"]: one for one in container["env"]}

    given = load(name).make_context(name, list(words)).params

    assert "secretKeyRef" in variables[given["api_key_env"]]["valueFrom"]
    assert given["out"] == "/results/$(POD_NAME)"
    assert "POD_NAME" in variables
    assert {one["mountPath"] for one in container["volumeMounts"]} >= {"/results"}


@pytest.mark.parametrize(
    ("file", "schema"), [("github.yml", "github-workflows"), ("gitlab.yml", "gitlab-ci")]
)
def test_the_pipelines_are_what_their_services_take(file: str, schema: str) -> None:
    text = (CI / file).read_text()
    # PyYAML reads YAML 1.1, where "on" is true.
    document = {"on" if key is True else key: one for key, one in yaml.safe_load(text).items()}
    kept = files("check_jsonschema") / f"builtin_schemas/vendor/{schema}.json"
    jsonschema.validate(document, json.loads(kept.read_text()))


@pytest.mark.parametrize("file", ["github.yml", "gitlab.yml"])
def test_the_pipelines_call_the_gate_with_what_it_reads(file: str) -> None:
    text, gate = (CI / file).read_text(), (CI / "gate.sh").read_text()
    calls = [
        shlex.split(call) for call in re.findall(r"examples/ci/(gate\.sh .+)$", text, re.MULTILINE)
    ]
    read = set(re.findall(r"\$\{(DYNO_\w+)", gate))

    assert sorted(call[1] for call in calls) == ["baseline", "check"]
    assert all(call[2] == "baseline" for call in calls)
    assert set(re.findall(r"^\s+(DYNO_\w+):", text, re.MULTILINE)) <= read
    assert {"DYNO_URL", "DYNO_START", "DYNO_LOAD", "DYNO_FAIL_ON"} <= read


@pytest.fixture
def gate(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run gate.sh in an empty folder, with this `dyno` on its PATH."""
    command = tmp_path / "bin" / "dyno"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m llmdyno "$@"\n')
    command.chmod(0o755)

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [CI / "gate.sh", *arguments],
            env={
                **os.environ,
                "PATH": f"{command.parent}:{os.environ['PATH']}",
                "DYNO_LOAD": "-c 4 --duration 1500ms --osl 20 --ramp 0s --no-calibration",
                **variables,
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


Gate = Callable[..., subprocess.CompletedProcess[str]]


def test_a_gate_without_a_baseline_or_a_server_has_not_passed(gate: Gate, tmp_path: Path) -> None:
    assert gate().returncode == 2
    done = gate("check", "baseline", "out")
    assert done.returncode == 3
    assert "there is no baseline at baseline" in done.stderr

    done = gate("baseline", "kept", DYNO_START="false")
    assert done.returncode == 3
    assert "the server has ended: false" in done.stderr
    assert not (tmp_path / "kept").exists()


def test_a_gate_keeps_a_run_and_stops_what_became_slower(
    gate: Gate, streamer: Callable[..., str], tmp_path: Path
) -> None:
    load = {"DYNO_LOAD": "-c 4 --duration 4s --osl 20 --ramp 0s --no-calibration"}
    done = gate("baseline", "kept", DYNO_URL=streamer("--itl", "5ms"), **load)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "kept" / "summary.json").is_file()

    summary = tmp_path / "summary.md"
    slower = {"DYNO_URL": streamer("--itl", "20ms"), "GITHUB_STEP_SUMMARY": str(summary)} | load
    # The rate is less than half, which is the streamer's doing. A busy machine may have so large a
    # share in a gap between tokens, or in a window of a second, that it is not compared.
    done = gate("check", "kept", "out", DYNO_FAIL_ON="token_rate:-20%", **slower)

    assert (tmp_path / "out" / "run" / "summary.json").is_file()
    assert done.returncode == 1, done.stderr
    assert "token rate" in done.stdout
    assert summary.read_text() == done.stdout
    assert (tmp_path / "out" / "junit.xml").is_file()
    assert (tmp_path / "out" / "compare.html").is_file()


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the only podman of the PATH be a script that is given."""

    def make(script: str) -> None:
        (tmp_path / "podman").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "podman").chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path))
    return make


def test_an_image_wants_a_builder_that_answers(builder: Callable[[str], None]) -> None:
    with pytest.raises(image.ImageError, match="no builder here that answers: podman or docker"):
        image.builder()
    builder("exit 125")
    with pytest.raises(image.ImageError, match="no builder"):
        image.builder()
    builder("exit 0")
    assert image.builder() == "podman"


@pytest.mark.parametrize(
    ("status", "after_s", "keeps", "fault"),
    [
        (130, 0.0, False, ""),
        (130, 2.0, True, ""),
        (130, 2.0, False, "summary none"),
        (137, 0.0, False, "status 137"),
    ],
)
def test_an_image_that_must_be_killed_or_keeps_nothing_is_refused(
    status: int,
    after_s: float,
    keeps: bool,
    fault: str,
    builder: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    builder(f'case "$1" in create) echo c1;; inspect) echo {status};; esac')
    monkeypatch.setattr("image.time.sleep", lambda _: None)
    if keeps:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "summary.json").touch()

    def stop() -> str:
        return image.try_stop("podman", "t", "http://127.0.0.1:1", tmp_path, after_s=after_s)

    if fault:
        with pytest.raises(image.ImageError, match=fault):
            stop()
    else:
        assert stop().endswith(f"summary {'kept' if keeps else 'none'}")


def test_the_image_is_tried_as_shut_as_the_job_runs_it() -> None:
    (container,) = job()["spec"]["template"]["spec"]["containers"]
    shut = container["securityContext"]

    assert ("--read-only" in image.SHUT) == shut["readOnlyRootFilesystem"]
    assert ("no-new-privileges" in image.SHUT) != shut["allowPrivilegeEscalation"]
    assert [f"--cap-drop {name}" in image.SHUT for name in shut["capabilities"]["drop"]] == [True]
