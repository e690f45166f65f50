"""A release: packages are built, looked into, and tried in clean environments. Nothing is uploaded.

make packages       (dist/: the sdist, the wheel that is compiled for every CPython from 3.11 on by
                    its stable ABI, the pure wheel for machines where that one does not run)
make release        (the same, and refuses changes that CHANGELOG.md gives to no version yet)

Both wheels are built from the unpacked sdist, so that nothing outside it can be needed. Each wheel
is installed for each Python that is found, without the compiler's help, and measures a server of
known timing; then `uv tool install` and `pipx install` do it as people do.
"""

import argparse
import email
import email.message
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYTHONS = ("python3.11", "python3.12", "python3.13", "python3.14")
EXTENSION = "llmdyno/wire/_reading.abi3.so"
# What a package never holds: caches, keys, what was measured, editors' leavings.
_STRAY = re.compile(
    r"__pycache__|\.py[cod]$|\.new$|\.orig$|\.rej$|~$|\.sw[op]$|(^|/)\.(?!gitignore$)"
    r"|journal.*\.jsonl$|(^|/)(evidence|benchmarks|dist|build|studies|runs)/"
)


class ReleaseError(Exception):
    """A package is not what it should be; the sentence says how."""


def pythons() -> dict[str, str]:
    """Return the Pythons of PYTHONS that are on the PATH or among pyenv's: where each is."""
    home = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = {}
    for name in PYTHONS:
        kept = sorted(home.glob(f"{name.removeprefix('python')}.*/bin/{name}"))
        for path in filter(None, (shutil.which(name), *map(str, reversed(kept)))):
            # A shim of pyenv's may lead nowhere.
            if not subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode:
                found[name] = path
                break
    return found


def version_of(changelog: str, *, uncut: bool = False) -> str:
    """Return the newest version of a changelog.

    Args:
        changelog: its text.
        uncut: whether there may be changes that no version has yet.

    Raises:
        ReleaseError: there is no empty "Unreleased" above it, or it has no date.
    """
    sections = re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", changelog, re.MULTILINE)
    is_cut = len(sections) > 1 and (uncut or not sections[0][1].strip())
    if not is_cut or sections[0][0] != "Unreleased":
        raise ReleaseError("CHANGELOG.md: 'Unreleased' must stand first, and be empty: cut it.")
    found = re.fullmatch(r"(\d+\.\d+\.\d+) - \d{4}-\d\d-\d\d", sections[1][0])
    if not found:
        raise ReleaseError(f"CHANGELOG.md: '{sections[1][0]}' is not like '0.2.0 - 2026-11-29'.")
    return found[1]


def check_wheel(wheel: Path, version: str, sources: Sequence[str]) -> None:
    """Refuse a wheel that lacks a file of the package, has a stray one, or is called wrongly.

    Args:
        wheel: compiled or pure; its name says which.
        version: what it must be.
        sources: the package's files: "llmdyno/py.typed".

    Raises:
        ReleaseError: names the wheel and what is wrong.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        about = f"llmdyno-{version}.dist-info"
        metadata = email.message_from_bytes(archive.read(f"{about}/METADATA"))
        tags = email.message_from_bytes(archive.read(f"{about}/WHEEL")).get_all("Tag", [])
        commands = archive.read(f"{about}/entry_points.txt").decode()
    held = {name for name in names if not name.startswith(about) and not name.endswith("/")}
    pure = wheel.name.endswith("-py3-none-any.whl")
    wanted = set(sources) | (set() if pure else {EXTENSION})
    _check_names(wheel, held, wanted, exact=True)
    wrong = {
        f"its tags are {tags}": pure != (tags == ["py3-none-any"]),
        "it is not for the stable ABI": not pure and "-cp311-abi3-" not in wheel.name,
        "it has no command dyno": "dyno = llmdyno.__main__:main" not in commands,
        "it has no licence": f"{about}/licenses/LICENSE" not in names,
    }
    _check(wheel, metadata, version, wrong)


def check_sdist(sdist: Path, version: str, sources: Sequence[str]) -> None:
    """Refuse a source distribution that lacks what a build needs, or has a stray file.

    Raises:
        ReleaseError: names it and what is wrong.
    """
    root = f"llmdyno-{version}"
    with tarfile.open(sdist) as archive:
        names = {name.removeprefix(f"{root}/") for name in archive.getnames()}
        inside = archive.extractfile(f"{root}/PKG-INFO")
        assert inside is not None
        metadata = email.message_from_bytes(inside.read())
    wanted = {f"src/{name}" for name in sources}
    wanted |= {"pyproject.toml", "hatch_build.py", "README.md", "CHANGELOG.md", "LICENSE"}
    _check_names(sdist, names, wanted, exact=False)
    _check(sdist, metadata, version, {})


def _check_names(package: Path, held: set[str], wanted: set[str], *, exact: bool) -> None:
    stray = sorted(name for name in held if _STRAY.search(name))
    stray += sorted(held - wanted) if exact else []
    missing = sorted(wanted - held)
    if missing or stray:
        said = "; ".join(
            f"{word} {', '.join(names[:5])}"
            for word, names in (("lacks", missing), ("has", stray))
            if names
        )
        raise ReleaseError(f"{package.name}: {said}.")


def _check(
    package: Path, metadata: email.message.Message, version: str, wrong: Mapping[str, bool]
) -> None:
    classifiers = metadata.get_all("Classifier", [])
    pythons = {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13, 14)}
    wrong = {
        **wrong,
        f"its version is {metadata['Version']}": metadata["Version"] != version,
        f"it is for Python {metadata['Requires-Python']}": metadata["Requires-Python"] != ">=3.11",
        "its page is not Markdown": metadata["Description-Content-Type"] != "text/markdown",
        "it does not name the Pythons that it runs on": not pythons <= set(classifiers),
        "it has no licence expression": metadata["License-Expression"] != "Apache-2.0",
    }
    if faults := [fault for fault, holds in wrong.items() if holds]:
        raise ReleaseError(f"{package.name}: {'; '.join(faults)}.")


def sources() -> list[str]:
    """Return the files of the package that git knows: "llmdyno/py.typed"."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return [
        name.removeprefix("src/") for name in listed.stdout.splitlines() if (ROOT / name).exists()
    ]


def build(dist: Path) -> list[Path]:
    """Build the sdist, and from it the compiled wheel and the pure one; return the three."""
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir(parents=True)
    _run(_tool("build"), "--sdist", "--outdir", dist, ROOT)
    sdist = next(dist.glob("*.tar.gz"))
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(sdist) as archive:
            archive.extractall(scratch, filter="data")
        source, made = next(Path(scratch).iterdir()), Path(scratch) / "made"
        _run(_tool("build"), "--wheel", "--outdir", made, source)
        linux = next(made.glob("*.whl"))
        if "abi3" not in linux.name:
            raise ReleaseError(f"{linux.name}: was not compiled; a release needs a C compiler.")
        # The oldest glibc that the compiled file is content with, instead of this machine's.
        _run(_tool("auditwheel"), "repair", "--wheel-dir", dist, linux)
        (source / "src" / EXTENSION).unlink()
        pure = {**os.environ, "LLMDYNO_PLAIN_READING": "1"}
        _run(_tool("build"), "--wheel", "--outdir", dist, source, environment=pure)
    compiled = next(dist.glob("*abi3*.whl"))
    return [sdist, compiled, next(dist.glob("*-none-any.whl"))]


def try_wheel(wheel: Path, python: str, folder: Path) -> str:
    """Install a wheel for a Python where there is no compiler; return what it measured.

    Raises:
        ReleaseError: it does not install, start or measure as it should.
    """
    place = folder / f"{Path(python).name}-{'pure' if 'none-any' in wheel.name else 'compiled'}"
    _run("uv", "venv", "--quiet", "--python", python, place)
    _run("uv", "pip", "install", "--quiet", "--python", place / "bin" / "python", wheel)
    _run("uv", "pip", "check", "--quiet", "--python", place / "bin" / "python")
    return try_dyno(place / "bin" / "dyno", place / "bin" / "python", folder, wheel)


def try_dyno(dyno: Path, python: Path, folder: Path, wheel: Path) -> str:
    """Let an installed `dyno` measure the streamer of its package; return what it found.

    Raises:
        ReleaseError: its version, its way of reading or what it measured is wrong.
    """
    version = wheel.name.split("-")[1]
    if (said := _run(dyno, "--version").strip()) != version:
        raise ReleaseError(f"{wheel.name}: dyno --version says {said}.")
    server = subprocess.Popen(
        [python, "-m", "llmdyno.streamer", "--port", "0", "--ttft", "50ms", "--itl", "5ms"],
        stdout=subprocess.PIPE, text=True, cwd=folder,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        port = json.loads(server.stdout.readline())["port"]
        said = _run(
            *(dyno, "bench", "--url", f"http://127.0.0.1:{port}", "-c", "4", "--osl", "20"),
            *("--duration", "2s", "--ramp", "0s", "--no-calibration", "--json"),
            folder=folder,
        )
    finally:
        server.terminate()
        server.communicate()
    summary = json.loads(said.splitlines()[-1])
    level, reading = summary["levels"][0], summary["environment"]["reading"]
    ttft_ms = level["ttft_ms"]["p50"]
    if level["requests"]["failed"] or not 45 < ttft_ms < 150:
        raise ReleaseError(f"{wheel.name}: {level['requests']}, TTFT p50 {ttft_ms} ms of 50.")
    if (reading == "compiled") != ("none-any" not in wheel.name):
        raise ReleaseError(f"{wheel.name}: its reading is {reading}.")
    page = folder / _run(dyno, "report", summary["dir"], folder=folder).strip()
    if not page.read_text().rstrip().endswith("</html>"):
        raise ReleaseError(f"{wheel.name}: the run's page, {page}, is not whole.")
    completed = level["requests"]["completed"]
    return f"{reading}, {completed} requests, TTFT p50 {ttft_ms:.1f} ms of 50"


def try_tools(wheel: Path, folder: Path) -> dict[str, str]:
    """Install a wheel with `uv tool` and with pipx; return what each measured."""
    homes = {
        "HOME": folder, "UV_TOOL_DIR": folder / "uv", "UV_TOOL_BIN_DIR": folder / "uv-bin",
        "PIPX_HOME": folder / "pipx", "PIPX_BIN_DIR": folder / "pipx-bin",
    }  # fmt: skip
    environment = {**os.environ, **{name: str(path) for name, path in homes.items()}}
    _run("uv", "tool", "install", "--python", sys.executable, wheel, environment=environment)
    _run(*(_tool("pipx"), "install", "--python", sys.executable, wheel), environment=environment)
    return {
        tool: try_dyno(folder / f"{bin_of}-bin" / "dyno", python, folder, wheel)
        for tool, bin_of, python in (
            ("uv tool", "uv", folder / "uv" / "llmdyno" / "bin" / "python"),
            ("pipx", "pipx", folder / "pipx" / "venvs" / "llmdyno" / "bin" / "python"),
        )
    }


def _tool(module: str) -> list[str]:
    return [sys.executable, "-m", module]


def _run(
    *words: str | Path | list[str],
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    """Run a command; return what it printed.

    Raises:
        ReleaseError: it failed; with the end of what it said.
    """
    command: list[str] = []
    for word in words:
        command += word if isinstance(word, list) else [str(word)]
    given = {**(environment or os.environ), "PATH": _path()}
    given.pop("LLMDYNO_PLAIN_READING", None) if environment is None else None
    done = subprocess.run(
        command, env=given, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).splitlines()[-15:])
        raise ReleaseError(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    return done.stdout


def _path() -> str:
    """Return the PATH with this environment's own tools first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def main() -> int:
    """Build, check and try a release; return the exit status."""
    parser = argparse.ArgumentParser(description="Build a release, and try it.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of the packages")
    parser.add_argument("--python", nargs="*", help="the Pythons to try [all that are found]")
    parser.add_argument(
        "--uncut", action="store_true", help="also with changes that no version has yet"
    )
    given = parser.parse_args()
    found = {name: name for name in given.python} if given.python else pythons()
    try:
        version = version_of((ROOT / "CHANGELOG.md").read_text(), uncut=given.uncut)
        packages = build(given.out)
        sdist, *wheels = packages
        files = sources()
        check_sdist(sdist, version, files)
        for wheel in wheels:
            check_wheel(wheel, version, files)
        _run(_tool("twine"), "check", "--strict", *packages)
        for package in packages:
            print(f"{package.name}: {package.stat().st_size / 1e3:,.0f} kB", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            for name, python in found.items():
                for wheel in wheels:
                    said = try_wheel(wheel, python, Path(scratch))
                    print(f"{name}, {wheel.name}: {said}", flush=True)
            for tool, said in try_tools(wheels[0], Path(scratch)).items():
                print(f"{tool}: {said}", flush=True)
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    missing = [name for name in PYTHONS if name not in found]
    if missing and not given.python:
        print(f"Not tried, as not found here: {', '.join(missing)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
