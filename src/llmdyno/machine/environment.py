"""The facts beside every result: what the machine and its software were when it was measured.

A figure without them cannot be believed later, nor compared. `describe` takes them down, `warnings`
says what in them spoils a measurement, `differences` why two results are unlike. Environment
variables, host and user names are left out on purpose: results are passed on.
"""

import os
import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from llmdyno import __version__, plugins
from llmdyno.errors import DynoError
from llmdyno.machine import hardware
from llmdyno.machine.peaks import this_machine
from llmdyno.wire import inbox

# Distributions that explain a result, beside those that bear the name of an engine or a front.
_PACKAGES = (
    "llama-cpp-python",
    "onnxruntime-genai",
    "ray",
    "text-generation-server",
    "torch",
    "transformers",
    "uvloop",
)
_LISTED_BY = "name"  # until November 2026, which did not say so, a shorter list was looked up
_FEW_CORES = 4
# (name, path in the document): results that differ in one of these are not comparable.
_FACTS = (
    ("CPU", ("cpu", "model")),
    ("usable cores", ("cpu", "cores_usable")),
    ("CPU quota in cores", ("cpu", "quota_cores")),
    ("CPU governor", ("cpu", "governor")),
    ("memory in bytes", ("memory_bytes",)),
    ("operating system", ("os",)),
    ("kernel", ("kernel",)),
    ("Python", ("python",)),
    ("llmdyno", ("llmdyno",)),
)


def describe(*, peaks: bool = False) -> dict[str, Any]:
    """Return the facts of this machine now, ready for JSON.

    Args:
        peaks: whether what the processor can do at most is one of them, see peaks.py: where an
            engine computes on it. They are left out where they cannot be measured.
    """
    cpu = msgspec.to_builtins(hardware.cpu())
    if peaks:
        with suppress(DynoError):  # no result depends on them
            cpu["peaks"] = msgspec.to_builtins(this_machine())
    return {
        "llmdyno": __version__,  # not the metadata: a copied source tree has none
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "os": _operating_system(),
        "kernel": platform.release(),
        "boot": hardware.boot_id(),
        "reading": "plain" if inbox.look is None else "compiled",  # see wire/inbox.py
        "cpu": cpu,
        "memory_bytes": hardware.memory_bytes(),
        "load_average": list(os.getloadavg()),
        "gpus": msgspec.to_builtins(list(hardware.gpus())),
        "packages": _packages(),
        "packages_listed_by": _LISTED_BY,
    }


def machine_ids(environment: Mapping[str, Any]) -> frozenset[str]:
    """Return what no other machine has: ids of its GPUs and of its boot; none where it is not told.

    Two results are of one machine if they share one of these.
    """
    gpus = [gpu.get("id") for gpu in environment.get("gpus") or []]
    return frozenset(filter(None, [*gpus, environment.get("boot")]))


def this_machine_ids() -> frozenset[str]:
    """Return machine_ids() of this machine."""
    gpus = msgspec.to_builtins(list(hardware.gpus()))
    return machine_ids({"gpus": gpus, "boot": hardware.boot_id()})


def warnings(environment: Mapping[str, Any]) -> list[str]:
    """Say, in sentences, what on this machine makes measurements doubtful."""
    return list(findings(environment).values())


def findings(environment: Mapping[str, Any]) -> dict[str, str]:
    """Return the same sentences by the codes of their doubts (results/doubts.py)."""
    found: dict[str, str] = {}
    cpu = environment.get("cpu", {})
    cores = cpu.get("quota_cores") or cpu.get("cores_usable")
    load = next(iter(environment.get("load_average", [])), None)
    if cores and load is not None and load > cores / 2:
        found["busy-machine"] = (
            f"The machine is busy: load average {load:.1f} on {cores:g} cores. What else runs here"
            " takes part in the result; stop it or expect noise."
        )
    if cores and cores < _FEW_CORES:
        found["few-cores"] = (
            f"Only {cores:g} CPU cores: if the server runs here too, it and the client slow each"
            " other down."
        )
    governor = cpu.get("governor")
    if governor not in {None, "performance"}:
        found["varying-clock"] = (
            f"The CPU's clock follows its load (governor '{governor}'): set 'performance' for"
            " steady latencies."
        )
    return found


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Say in which facts two results are unlike; empty if a comparison is fair in that respect."""
    found = [
        f"{words}: {_show(one)} before, {_show(other)} after"
        for words, path in _FACTS
        if (one := _at(before, path)) != (other := _at(after, path))
    ]
    gpus_before, gpus_after = (_gpus(environment) for environment in (before, after))
    if gpus_before != gpus_after:
        found.append(f"GPUs: {_show(gpus_before)} before, {_show(gpus_after)} after")
    ids_before, ids_after = (_gpu_ids(environment) for environment in (before, after))
    if ids_before and ids_after and ids_before != ids_after:  # older results have none
        found.append(f"GPU ids: {ids_before} before, {ids_after} after")
    packages = [environment.get("packages", {}) for environment in (before, after)]
    names = {*packages[0], *packages[1]}
    if before.get("packages_listed_by") != after.get("packages_listed_by"):
        names = {*packages[0]} & {*packages[1]}  # what one list lacks may have been there
    for name in sorted(names):
        one, other = (versions.get(name) for versions in packages)
        if one != other:
            found.append(f"{name}: {_show(one)} before, {_show(other)} after")
    return found


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def _packages() -> dict[str, str]:
    """Return the versions of the installed distributions that explain a result.

    Those of engines and fronts are told by their names: importing every plug-in to ask it would
    cost each run 0.05 s of CPU.
    """
    plugged = [name for kind in ("engines", "fronts") for name in plugins.names(kind)]
    return {
        name: version
        for name, version in sorted(_installed().items())
        if name in _PACKAGES or any(plugin in name for plugin in plugged)
    }


def _installed() -> dict[str, str]:
    """Return name → version of all installed distributions, as the names of their folders say."""
    found: dict[str, str] = {}
    for place in reversed(sys.path):  # the first place on the path wins
        try:
            entries = [entry.name for entry in Path(place or ".").iterdir()]
        except OSError:
            continue
        for entry in entries:
            if entry.endswith((".dist-info", ".egg-info")):
                name, _, rest = entry.rpartition(".")[0].partition("-")
                # An .egg-info may have the Python's version after its own.
                version = rest.partition("-py")[0]
                if version:
                    found[name.replace("_", "-").replace(".", "-").lower()] = version
    return found


def _at(environment: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = environment
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _gpus(environment: Mapping[str, Any]) -> str | None:
    """Name the GPUs with all that changes their speed."""
    names = [
        f"{gpu['name']} (driver {gpu['driver']}, {_show(gpu['power_limit_w'])} W"
        f"{', MIG' if gpu['mig'] else ''})"
        for gpu in environment.get("gpus", [])
    ]
    return ", ".join(names) or None


def _gpu_ids(environment: Mapping[str, Any]) -> str:
    """Name the very GPUs: two machines of one kind are still two."""
    return " ".join(gpu.get("id") or "" for gpu in environment.get("gpus", [])).strip()


def _show(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
