"""Install this project into the Python that runs this: `python dev/install.py '.[cpu]'`.

uv does it in a tenth of pip's time. Where it cannot be had, or cannot do it, pip does.
"""

import subprocess
import sys
from os import environ
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from llmdyno.processes import indexes

PIP = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-compile"]
UV = [Path(sys.executable).parent / "uv", "pip", "install", "--python", sys.executable]


def succeeds(command: list[str | Path], **variables: str) -> bool:
    """Run an installer, and say whether it did its work."""
    try:
        return not subprocess.call([*command, "--quiet"], env={**environ, **variables})
    except OSError:
        return False


def main(project: str) -> int:
    """Install a project, such as `.[cpu]`, and return the exit status."""
    by_uv = [*UV, "--editable", project]
    if succeeds([*PIP, indexes.UV]) and succeeds(by_uv, **indexes.settings()):
        return 0
    print("uv did not install it: pip does.", file=sys.stderr)
    return not succeeds([*PIP, "--editable", project])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
