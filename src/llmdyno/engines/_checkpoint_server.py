"""What servers of Hugging Face checkpoints share: models, flags, GPUs, installed versions."""

import math
import shutil
import sys
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from llmdyno.errors import UsageError
from llmdyno.knobs import Config, Knob, default, show


def check_model(model: str) -> None:
    """Refuse a model that is neither a folder that is there nor looks like a hub id.

    Raises:
        UsageError: says what would be right.
    """
    if model.startswith((".", "/", "~")) and not Path(model).expanduser().is_dir():
        raise UsageError(f"--model {model}: there is no such folder.")
    if "/" not in model and not Path(model).is_dir():
        raise UsageError(f"--model {model}: give a folder or a hub id such as org/name.")


def installed_version(package: str) -> str | None:
    """Return a package's version without importing it; "unknown" for a copy without metadata."""
    if find_spec(package) is None:
        return None
    for distribution in metadata.packages_distributions().get(package, [package]):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def program(console: str, module: str) -> tuple[str, ...]:
    """Return the console script if it is on the path, else the module of this Python."""
    found = shutil.which(console)
    return (found,) if found else (sys.executable, "-m", module)


def gpus(config: Config, *sizes: str) -> int:
    """Return how many GPUs a server takes: the product of the knobs that share work out."""
    return math.prod(int(config.get(size, 1)) for size in sizes)


def flags(
    config: Config,
    knobs: tuple[Knob, ...],
    *,
    renamed: Mapping[str, str] | None = None,
    negatable: bool = False,
) -> tuple[str, ...]:
    """Write a config as flags: --knob-name value, and a bare --knob-name for true.

    A false that is the default needs no flag; another one is --no-knob-name where the server has
    such flags (`negatable`).
    """
    by_name = {knob.name: knob for knob in knobs}
    words: list[str] = []
    for name, value in config.items():
        flag = (renamed or {}).get(name, "--" + name.replace("_", "-"))
        if not isinstance(value, bool):
            words += [flag, show(value)]
        elif value:
            words.append(flag)
        elif default(by_name[name], None) is not False:
            assert negatable, f"{name}: a switch that is on by default cannot be turned off"
            words.append(f"--no-{flag[2:]}")
    return tuple(words)
