"""Compiles src/llmdyno/wire/_reading.c on installation, where there is a C compiler.

Without one, or should it fail, the package is installed all the same and inbox.py does its work.
LLMDYNO_PLAIN_READING=1 asks for that, as it does where llmdyno runs: so the pure wheel is made.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("src/llmdyno/wire/_reading.c")


class CompileReading(BuildHookInterface[Any]):
    """The hook that hatchling finds by `[tool.hatch.build.hooks.custom]`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Compile before the wheel, or the editable installation, is put together."""
        if self.target_name != "wheel" or not sys.platform.startswith("linux"):
            return
        source = Path(self.root) / SOURCE
        made = source.with_suffix(".abi3.so")
        words = _compile(source, made)
        if words:
            made.unlink(missing_ok=True)
            self.app.display_warning(f"{source.name} was not compiled, reading costs more: {words}")
            return
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"cp311-abi3-{platform}"
        build_data["artifacts"].append(str(made.relative_to(self.root)))


def _compile(source: Path, made: Path) -> str:
    """Compile; return why it could not be done, or nothing."""
    if os.environ.get("LLMDYNO_PLAIN_READING") == "1":
        return "LLMDYNO_PLAIN_READING=1 asks for the pure wheel"
    named = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "")
    compiler = next((name for name in (*named[:1], "cc", "gcc", "clang") if shutil.which(name)), "")
    if not compiler:
        return "no C compiler was found"
    # Under another name first: a process that has the old one loaded must not see it change.
    fresh = made.with_suffix(".new")
    command = [compiler, "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Wno-unused-parameter",
               "-Wno-cast-function-type", "-Wno-missing-field-initializers",
               f"-I{sysconfig.get_path('include')}", str(source), "-o", str(fresh)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        fresh.unlink(missing_ok=True)
        return (done.stderr.strip().splitlines() or ["the compiler failed"])[-1]
    fresh.replace(made)
    return ""
