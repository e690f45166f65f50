"""serve.sh: the launch as a shell script, from the bundle's own folder."""

import re
import shlex

from llmdyno.deploy.plan import HOST, BundlePlan
from llmdyno.deploy.portable import PYTHON

BUILD = "build.sh"
_FLAG = re.compile(r"--[A-Za-z]")


def serve(plan: BundlePlan) -> str:
    """Return serve.sh: it runs from the bundle's folder and ends by becoming the server."""
    lines = [
        "#!/bin/sh",
        f"# {plan.engine} behind the front {plan.front}; written by llmdyno.",
        "# HOST is the address to listen on (127.0.0.1), PYTHON the Python to use (python3).",
    ]
    if plan.unproven:
        lines.append(f"# Mind: {plan.unproven}")
    if plan.secrets:
        lines.append(f"# Secrets are read from the environment: {', '.join(plan.secrets)}.")
    lines += ["set -eu", 'cd -- "$(dirname -- "$0")"', "host=${HOST:-127.0.0.1}"]
    for place in plan.places:
        how = f"; bash {BUILD} {place} builds it" if plan.built and place not in plan.links else ""
        words = shlex.quote(f"serve.sh: {place} is missing{how}")
        lines.append(f"[ -e {shlex.quote(place)} ] || {{ echo {words} >&2; exit 1; }}")
    # The hub's token is optional; a secret that the engine was given is not.
    lines += [
        f': "${{{name}:?set it; it is a secret}}"'
        for name in plan.secrets
        if name in plan.launch.environment
    ]
    lines += [f"export {name}={_word(value)}" for name, value in plan.variables.items()]
    if plan.prepare:
        lines.append(plan.prepare)
    return "\n".join([*lines, f"exec {_command(plan.launch.argv)}", ""])


def _command(argv: tuple[str, ...]) -> str:
    """Write a command with a flag a line."""
    program = '"${PYTHON:-python3}"' if argv[0] == PYTHON else _word(argv[0])
    command = program
    for word in argv[1:]:
        command += (" \\\n  " if _FLAG.match(word) else " ") + _word(word)
    return command


def _word(word: str) -> str:
    """Quote a word, with the address as the script's variable."""
    return '"$host"'.join(part and shlex.quote(part) for part in word.split(HOST)) or "''"
