"""One plug-in, one file: the file's name is the plug-in's name.

A kind of plug-in is a package: engines, fronts, endpoints, workload.kinds, workload.traces,
importers and report.plots. Each of its modules binds an object of the package's interface to one
agreed name, e.g. `ENGINE` (a package `kinds` is called as the one around it: `WORKLOAD`). The name
on the command line has dashes where the file has underscores. A name with a dot is a module of
somebody else's, so a plug-in need not live here: `--engine my_package.my_engine`.
"""

import importlib
import importlib.util
import pkgutil
from functools import cache
from pathlib import Path
from typing import Any

from llmdyno.errors import UsageError, nearest


def names(kind: str) -> list[str]:
    """Return the names of all plug-ins of a kind, e.g. "engines", sorted."""
    return list(_names(kind))


@cache  # a run asks dozens of times
def _names(kind: str) -> tuple[str, ...]:
    # Listed, not imported: a command's help must stay quick.
    folder = Path(__file__).parent.joinpath(*kind.split("."))
    modules = (module.name for module in pkgutil.iter_modules([str(folder)]))
    return tuple(sorted(name.replace("_", "-") for name in modules if not name.startswith("_")))


def load(kind: str, name: str) -> Any:
    """Return the plug-in object: `ENGINE` of llmdyno.engines.NAME, and so on.

    Raises:
        UsageError: there is no plug-in of that name.
    """
    word = kind.removesuffix(".kinds").rpartition(".")[2].removesuffix("s")
    attribute = word.upper()
    if "." in name:
        try:
            return getattr(importlib.import_module(name), attribute)
        except (ImportError, AttributeError, TypeError) as error:  # TypeError: a relative name
            raise UsageError(
                f"{word}: '{name}' is not a module with {attribute}: {error};"
                f" ours are {', '.join(names(kind))}."
            ) from error
    known = names(kind)
    if name not in known:
        own = _hint_of_own(name) if name.isidentifier() else ""
        raise UsageError(f"{word}: no '{name}'.{own or nearest(name, known)}")
    return getattr(importlib.import_module(f"llmdyno.{kind}.{name.replace('-', '_')}"), attribute)


def _hint_of_own(name: str) -> str:
    """Say how a plug-in of somebody's own is named, where there is a module of that name."""
    if importlib.util.find_spec(name) is None:
        return ""
    return f" A module of your own is named with its package: PACKAGE.{name}."
