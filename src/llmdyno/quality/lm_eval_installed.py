"""Where lm-eval is, and whether it has what asking a server takes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from llmdyno.errors import UsageError

# The extra "api" of lm_eval 0.4.13, without which its api_models.py fails at the first question.
_PACKAGES = ("requests", "aiohttp", "tenacity", "tqdm")
# A program without lm_eval in its Python, such as a wrapper's, tells nothing.
_ASKED = (
    "from importlib.util import find_spec as f;"
    f"print(*(m for m in {_PACKAGES!r} if f('lm_eval') and not f(m)))"
)
_CHECK_S = 30.0


def program() -> str | None:
    """Return where lm-eval is; None: it is not installed."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return shutil.which("lm_eval", path=places)


def required(asked: str) -> str:
    """Return where lm-eval is.

    Args:
        asked: the tasks, as the user named them.

    Raises:
        UsageError: it is not installed, or without the packages with which it asks a server.
    """
    found = program()
    if found is None:
        raise UsageError(
            f"--lm-eval {asked}: lm-eval is not installed; pip install 'lm_eval[api]', here or"
            " where PATH finds it."
        )
    python = _python_of(Path(found))
    lacking = _lacking(python) if python else []
    if lacking:
        raise UsageError(
            f"--lm-eval {asked}: {found} lacks {', '.join(lacking)}, without which it asks no"
            f" server; {python} -m pip install 'lm_eval[api]'."
        )
    return found


def _python_of(script: Path) -> str:
    """Return the Python that runs a console script; empty: the script does not name one."""
    try:
        with script.open("rb") as opened:
            first = opened.readline(1000).decode("utf-8", "replace")
    except OSError:
        return ""
    words = first.removeprefix("#!").split()
    is_python = first.startswith("#!/") and len(words) == 1 and "python" in Path(words[0]).name
    return words[0] if is_python else ""


def _lacking(python: str) -> list[str]:
    """Return the packages that a Python with lm-eval lacks; none where it does not tell."""
    try:
        said = subprocess.run(
            [python, "-c", _ASKED], capture_output=True, text=True, check=False, timeout=_CHECK_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return said.stdout.split()
