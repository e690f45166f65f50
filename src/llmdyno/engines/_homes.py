"""Where an engine is installed: beside dyno, or in a Python environment of its own.

vLLM, SGLang and LMDeploy pin different versions of torch, so who has two of them has an environment
for each, and dyno is in at most one. An engine is looked for in three places, the first that has it
counts: in the Python that an environment variable names (DYNO_VLLM_PYTHON), in the Python that
runs dyno, and behind a program of its name on the path. Where an engine lies is the machine's
business: no study, ledger or bundle says it.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import msgspec

from llmdyno.errors import HomeError, reason

_ANSWER_S = 60.0  # a cold disk, or one of a network
# What another Python is asked; it knows nothing of llmdyno. It looks at the times before it reads.
_QUESTION = """
import importlib.metadata, importlib.util, os, sys
package = sys.argv[1]
def time_of(path):
    if path and os.path.exists(path):
        print("time=%d %s" % (os.stat(path).st_mtime_ns, path))
for path in sys.path:
    time_of(path)
if importlib.util.find_spec(package):
    named = importlib.metadata.packages_distributions().get(package, [package])
    versions = []
    for name in named:
        try:
            about = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        time_of(str(getattr(about, "_path", "")))
        time_of(str(about.locate_file(os.path.join(str(getattr(about, "_path", "")), "METADATA"))))
        versions.append(about.version)
    print("version=" + (versions or ["unknown"])[0])
"""


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What another Python has said of a package."""

    version: str | None = None  # None: it has none, or has not said
    fault: str = ""  # why it has not said
    late: bool = False  # whether that is for want of time
    times: Mapping[str, int] = {}  # when what it looked at was changed, in ns, by path

    @property
    def holds(self) -> bool:
        """Whether nothing that it looked at was changed since."""
        return bool(self.times) and all(_changed(path) == ns for path, ns in self.times.items())


# A start of Python, and one answer until the package is replaced; that there is none is asked anew.
_answers: dict[tuple[str, str], _Answer] = {}


class Home(msgspec.Struct, frozen=True, kw_only=True):
    """Where one engine is installed."""

    version: str  # "unknown" for a copy without metadata, or behind a script that we cannot read
    python: str = ""  # of its environment; empty: only the script is known
    script: str = ""  # its program; empty: it has none

    def program(self, module: str) -> tuple[str, ...]:
        """Return the command of the engine's program: its script, else the module that it runs."""
        return (self.script,) if self.script else (self.python, "-m", module)

    @property
    def apart(self) -> bool:
        """Whether it is known to be another environment than that of dyno."""
        return self.python not in {"", sys.executable}

    def resolved(self, words: Sequence[str]) -> tuple[str, ...]:
        """Return a command whose program, named without a folder, is that of this environment."""
        if not self.apart:
            return tuple(words)
        named = self.python if words[0] == "python3" else _beside(self.python, words[0])
        return (named or words[0], *words[1:])

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables of its server: an environment's own programs (ninja) are found on the path."""
        if not self.apart:
            return {}
        return {"PATH": f"{Path(self.python).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def variable(engine: str) -> str:
    """Return the environment variable that names an engine's Python."""
    return f"DYNO_{engine.upper().replace('-', '_')}_PYTHON"


def home(engine: str, package: str, console: str, *, as_module: bool = False) -> Home | None:
    """Return where an engine is installed; None if it is not.

    Args:
        engine: its name, as after --engine.
        package: the name by which Python imports it.
        console: its program.
        as_module: whether its server is started by `python -m`, so that its Python must be known.

    Raises:
        HomeError: the environment variable names no Python, or one without the engine, or the
            engine's Python does not answer.
    """
    if named := os.environ.get(variable(engine)):
        return _named(engine, package, console, named)
    if (version := _version_here(package)) is not None:
        script = _beside(sys.executable, console)
        return Home(version=version, python=sys.executable, script=script)
    if (found := shutil.which(console)) is None:
        return None
    python = _python_of(Path(found))
    if python is None:
        return None if as_module else Home(version="unknown", script=found)
    there = _said_there(python, package)
    if there.late:
        raise HomeError(f"{found}: {there.fault} Take it off the path, or try again.")
    return Home(version=there.version, python=python, script=found) if there.version else None


def required(engine: str, package: str, console: str, *, as_module: bool = False) -> Home:
    """Return where an engine is installed; where it is not, a home as it would be beside dyno.

    A bundle is written for other machines, where the engine need not be on this one.

    Raises:
        HomeError: as home().
    """
    found = home(engine, package, console, as_module=as_module)
    return found or Home(version="unknown", python=sys.executable)


def _named(engine: str, package: str, console: str, named: str) -> Home:
    """Return the home in the Python that the environment variable names."""
    path = Path(named).expanduser().absolute()
    python = path / "bin" / "python" if path.is_dir() else path
    if not os.access(python, os.X_OK):
        raise HomeError(
            f"{variable(engine)}={named}: give the Python that {engine} is installed in, or the"
            " folder of its environment."
        )
    there = _said_there(str(python), package)
    if there.fault:
        raise HomeError(f"{variable(engine)}={named}: {there.fault}")
    if there.version is None:
        raise HomeError(
            f"{variable(engine)}={named}: that Python has no {package}; give one that {engine} is"
            " installed in."
        )
    return Home(version=there.version, python=str(python), script=_beside(str(python), console))


def _beside(python: str, console: str) -> str:
    """Return the program of a Python's environment; empty: it has none."""
    script = Path(python).parent / console
    return str(script) if os.access(script, os.X_OK) else ""


def _version_here(package: str) -> str | None:
    """Return a package's version in this Python, without importing it."""
    if find_spec(package) is None:
        return None
    for distribution in metadata.packages_distributions().get(package, [package]):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def _said_there(python: str, package: str) -> _Answer:
    """Return what another Python says of a package, without importing it."""
    known = _answers.get((python, package))
    if known is not None and known.holds:
        return known
    answer = _asked_there(python, package)
    if answer.version is None:
        _answers.pop((python, package), None)
    else:
        _answers[python, package] = answer
    return answer


def _asked_there(python: str, package: str) -> _Answer:
    """Start another Python and ask it."""
    own = _changed(python)
    try:
        answer = subprocess.run(
            [python, "-c", _QUESTION, package],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_ANSWER_S,
            cwd="/",  # no file of the user's folder is taken for the package
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        fault = f"has not said within {_ANSWER_S:g} s whether it has {package}."
        return _Answer(fault=f"{python} {fault}", late=True)
    except OSError as error:
        return _Answer(fault=f"{python} cannot be started: {reason(error)}.")
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or ["it says nothing"])[-1]
        status = f"ends with status {answer.returncode}"
        return _Answer(fault=f"{python} cannot say whether it has {package}: {status}, {last}.")
    times = re.findall(r"^time=(\d+) (.+)$", answer.stdout, re.MULTILINE)
    found = re.search(r"^version=(\S+)$", answer.stdout, re.MULTILINE)
    return _Answer(
        version=found[1] if found else None,
        times={path: int(ns) for ns, path in times} | ({} if own is None else {python: own}),
    )


def _changed(path: str) -> int | None:
    """Return when a path was changed, in ns; None: it is not there."""
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return None


def _python_of(script: Path) -> str | None:
    """Return the Python that a console script starts; None if it is no such script."""
    try:
        with script.open("rb") as file:
            head = file.read(4096).decode("utf-8", "replace")
    except OSError:
        return None
    first, _, rest = head.partition("\n")
    # Where the path is too long for the first line, or has blanks, pip and uv write it below.
    below = re.match(r"'''exec' (['\"]?)(.+?)\1 \"\$0\"", rest)
    if first.startswith("#!/bin/sh") and below:
        return below[2]
    words = first.removeprefix("#!").split()
    if not first.startswith("#!") or not words:
        return None
    program = words[1] if words[0].endswith("/env") and len(words) > 1 else words[0]
    return shutil.which(program) if re.match(r"python[\d.]*$", Path(program).name) else None
