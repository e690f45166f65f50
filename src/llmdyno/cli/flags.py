"""What the user typed, in flags or in a TOML file, into the specs of spec.py.

Flags and file have the same names (`--trial-duration 30s`, `trial_duration = "30s"`) and the same
texts, so there is one reader for both. A flag wins over the file, the file over a profile
(`--quick`), the profile over the spec's own defaults.
"""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmdyno import endpoints, units, workload
from llmdyno.errors import UsageError, nearest
from llmdyno.knobs import Config
from llmdyno.results.slo import parse_objective, parse_slos
from llmdyno.spec import REPEATS_MAX, UNTIL_BUDGET_S, Bench, Load, Study, Workload

Given = Mapping[str, Any]

# For two CPU cores and a few minutes: the whole study within `budget` and a bit.
QUICK: Given = {
    "workload": "chat-system",
    "osl": "32",
    "users": "10,50,100",
    "ramp": "2s",
    "duration": "14s",
    "trial_duration": "10s",
    "warmup": "0s",
    "interval": "2s",
    "trials": 8,
    "pairs": 3,
    "budget": "380s",
    "hang": "30s",
}


# Into so many levels the budget of --until is cut when no duration is given.
_UNTIL_LEVELS = 20


def _whole(value: Any, field: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise UsageError(f"{field} {value}: must be a whole number.")


def _number(value: Any, field: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise UsageError(f"{field} {value}: must be a number.")


def _truth(value: Any, field: str) -> bool:
    if isinstance(value, bool):
        return value
    raise UsageError(f"{field} {value}: must be true or false.")


def _text(value: Any, field: str) -> str:
    if isinstance(value, str):
        return value
    raise UsageError(f"{field} {value}: must be a text in quotes.")


def _seconds(value: Any, field: str) -> float:
    return units.seconds(str(value), field)


def _users(value: Any, field: str) -> tuple[int, ...]:
    parts = value if isinstance(value, list) else str(value).split(",")
    try:
        return tuple(int(part) for part in parts)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{field} {value}: write whole numbers, e.g. 10,50,100.") from error


def _lengths(value: Any, field: str) -> units.Lengths:
    return units.lengths(str(value), field)


def _file_text(value: Any, field: str) -> str:
    try:
        return Path(_text(value, field)).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{field} {value}: cannot be read: {error}.") from error


def _names(value: Any, field: str) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else _text(value, field).split(",")
    return tuple(str(part).strip() for part in parts)


def _config(value: Any, field: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise UsageError(f"{field} {value}: must be a table of knobs.")


def _configs(value: Any, field: str) -> tuple[dict[str, Any], ...]:
    name = field.removeprefix("--")  # no flag has it
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise UsageError(f"{name} {value}: must be tables of knobs, each under [[{name}]].")
    return tuple(value)


def _rates(value: Any, field: str) -> tuple[float, ...]:
    parts = value if isinstance(value, list) else str(value).split(",")
    try:
        return tuple(float(part) for part in parts)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{field} {value}: write requests per second, e.g. 1,2.5,4.") from error


def _workers(value: Any, field: str) -> int | str:
    if value == "auto":
        return "auto"
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{field} {value}: write a whole number, or auto.") from error


Reader = Callable[[Any, str], Any]

# Name on the command line and in files → (field of the spec, how to read it).
_WORKLOAD: Mapping[str, tuple[str, Reader]] = {
    "workload": ("name", _text),
    "dataset": ("dataset", _text),
    "isl": ("isl", _lengths),
    "osl": ("osl", _lengths),
    "dataset_osl": ("dataset_osl", _truth),
    "unique": ("unique", _truth),
    "turns": ("turns", _lengths),
    "system_prompt": ("system_prompt", _file_text),
    "seed": ("seed", _whole),
}
_LOAD: Mapping[str, tuple[str, Reader]] = {
    "users": ("users", _users),
    "ramp": ("ramp_s", _seconds),
    "duration": ("duration_s", _seconds),
    "requests": ("requests", _whole),
    "interval": ("interval_s", _seconds),
    "think_time": ("think_s", lambda value, field: units.seconds_between(str(value), field)),
    "timeout": ("timeout_s", _seconds),
    "grace": ("grace_s", _seconds),
}
# Of a benchmark's load only: a tuner's trial that fails is a result, however it fails.
_LIMITS: Mapping[str, tuple[str, Reader]] = {
    "max_errors": ("max_errors", _whole),
    "max_error_rate": ("max_error_rate", _number),
}
_ARRIVALS: Mapping[str, tuple[str, Reader]] = {
    "request_rate": ("rates", _rates),
    "arrival": ("arrival", _text),
    "burstiness": ("burstiness", _number),
    "max_concurrency": ("max_concurrency", _whole),
    "time_scale": ("time_scale", _number),
}
_BENCH: Mapping[str, tuple[str, Reader]] = {
    "url": ("url", _text),
    "ca_cert": ("ca_cert", _text),
    "insecure": ("insecure", _truth),
    "proxy": ("proxy", _text),
    "endpoint": ("endpoint", _text),
    "model": ("model", _text),
    "tokenizer": ("tokenizer", _text),
    "slo": ("slos", lambda value, field: parse_slos(_text(value, field))),
    "repeat": ("repeat", _whole),
    "repeat_until": ("repeat_until", lambda value, field: units.share(str(value), field)),
    "calibration": ("calibration", _truth),
    "scrape": ("scrape", _truth),
    "workers": ("workers", _workers),
    "ray": ("ray", _text),
    "metrics_url": ("metrics_url", _text),
    "until": ("until", _truth),
    "until_budget": ("until_budget_s", _seconds),
}
_STUDY: Mapping[str, tuple[str, Reader]] = {
    "engine": ("engine", _text),
    "front": ("front", _text),
    "model": ("model", _text),
    "baseline": ("baseline", _config),
    "candidates": ("candidates", _configs),
    "search": ("search", _names),
    "allow_altered_output": ("allow_altered_output", _truth),
    "objective": ("objective", lambda value, field: parse_objective(_text(value, field))),
    "slo": ("slos", lambda value, field: parse_slos(_text(value, field))),
    "trials": ("trials", _whole),
    "budget": ("budget_s", _seconds),
    "pairs": ("pairs", _whole),
    "trial_duration": ("trial_duration_s", _seconds),
    "warmup": ("warmup_s", _seconds),
    "hang": ("hang_s", _seconds),
    "seed": ("seed", _whole),
}


def bench_spec(given: Given) -> Bench:
    """Return the spec of a benchmark.

    Raises:
        UsageError: a value cannot be read or does not fit the others.
    """
    fields = _fields(_BENCH, given)
    if "endpoint" in fields:
        fields["url"] = endpoints.full_url(fields["endpoint"], fields["url"])
    if "repeat_until" in fields:
        fields.setdefault("repeat", REPEATS_MAX)
    if fields.get("until") and not {"duration", "requests"} & given.keys():
        budget_s = fields.get("until_budget_s", UNTIL_BUDGET_S)
        given = {**given, "duration": f"{budget_s / _UNTIL_LEVELS:.3f}s"}
    return Bench(**fields, workload=_workload_spec(given), load=_load_spec(given))


def study_spec(given: Given) -> Study:
    """Return the spec of a study.

    Raises:
        UsageError: a value cannot be read or does not fit the others.
    """
    load = {"duration_s": 60.0, "grace_s": 0.0, **_fields(_LOAD, given)}
    return Study(**_fields(_STUDY, given), workload=_workload_spec(given), load=Load(**load))


def with_baseline(study: Study, config: Config) -> Study:
    """Return the study with these knobs of its baseline set, over those of the file."""
    return msgspec.structs.replace(study, baseline={**study.baseline, **config})


def read_toml(path: Path) -> dict[str, Any]:
    """Read a study's TOML file.

    Raises:
        UsageError: it cannot be read, or has a key that no flag has; names the nearest one.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is not TOML: {error}.") from error
    known = {*_WORKLOAD, *_LOAD, *_STUDY}
    given = {key.replace("-", "_"): value for key, value in given.items()}
    for key in given:
        if key not in known:
            raise UsageError(f"{path}: unknown key '{key}'.{nearest(key, known)}")
    return given


def _load_spec(given: Given) -> Load:
    """Return the load; a rate alone means Poisson arrivals, a burstiness gamma ones."""
    fields = _fields({**_LOAD, **_LIMITS, **_ARRIVALS}, given)
    if "rates" in fields and "users" in fields:
        raise UsageError(
            f"-c {given['users']}: users are a closed loop, --request-rate is an open one; to limit"
            " the requests under way, write --max-concurrency."
        )
    if fields.get("arrival") == "trace" and "duration_s" in fields:
        raise UsageError(
            f"--duration {given['duration']}: a trace lasts as long as it does; to take only its"
            " beginning, write --requests."
        )
    if "rates" in fields and "arrival" not in fields:
        fields["arrival"] = "gamma" if "burstiness" in fields else "poisson"
    return Load(**fields)


def _workload_spec(given: Given) -> Workload:
    fields = _fields(_WORKLOAD, given)
    return Workload(**{"name": workload.implied(fields, given.get("arrival")), **fields})


def _fields(readers: Mapping[str, tuple[str, Reader]], given: Given) -> dict[str, Any]:
    return {
        field: read(given[name], f"--{name.replace('_', '-')}")
        for name, (field, read) in readers.items()
        if given.get(name) is not None
    }
