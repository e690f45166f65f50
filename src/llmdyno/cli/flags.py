"""What the user typed, in flags or in a TOML file, into the specs.

Flags and file have the same names (`--trial-duration 30s`, `trial_duration = "30s"`) and the same
readers, those of the specs' fields. A flag wins over the file, the file over a profile (`--quick`),
the profile over the spec's own defaults.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from llmdyno import files
from llmdyno.errors import UsageError, nearest
from llmdyno.flag import Field, all_fields, own_fields
from llmdyno.knobs import Config
from llmdyno.spec import REPEATS_MAX, UNTIL_BUDGET_S, Bench, Load, Workload, parse_models
from llmdyno.wire.headers import Header, from_variables

if TYPE_CHECKING:  # a benchmark does without it
    from llmdyno.tune.spec import Study

Given = Mapping[str, Any]
Spec = TypeVar("Spec", bound=msgspec.Struct)

# For two CPU cores and a few minutes. The ablation begins no pair past 0.8 of `budget`.
QUICK: Given = {
    "workload": "chat-system",
    "osl": "32",
    "users": "10,50,100",
    "ramp": "2s",
    "duration": "12s",
    "trial_duration": "10s",
    "warmup": "0s",
    "interval": "2s",
    "trials": 12,
    "pairs": 3,
    "budget": "460s",
    "hang": "30s",
}

# What a user asks for takes the place of these of a profile, which exclude it.
_INSTEAD: Mapping[str, tuple[str, ...]] = {
    "dataset": ("workload",),
    "isl": ("workload",),
    "prefix_share": ("workload",),
    "max_tokens": ("osl",),
    "dataset_osl": ("osl",),
    "max_pairs": ("pairs",),
    "requests": ("duration", "trial_duration"),
    "request_rate": ("users", "ramp"),
}
# What a flag takes the place of in a file: the two are refused side by side.
_INSTEAD_IN_FILE: Mapping[str, tuple[str, ...]] = {
    "users": ("request_rate", "arrival", "burstiness", "max_concurrency"),
    "request_rate": ("users", "ramp", "think_time"),
    "requests": ("duration", "trial_duration"),
    "duration": ("requests",),
    "trial_duration": ("requests",),
}
_INSTEAD_OF_TIMES = ("users", "ramp")  # a trace has its own

# The budget of --until is divided into so many levels when no duration is given.
_UNTIL_LEVELS = 20


# How a server is reached: fields of Bench that `dyno chat` takes, too.
CONNECTION = (
    *("ca_cert", "insecure", "client_cert", "client_key", "proxy"),
    *("header", "header_env", "basic_auth_env"),
)


def secrets_of(spec: Bench, api_key_env: str | None) -> tuple[Header, ...]:
    """Return the headers whose values stand in variables of the environment.

    Raises:
        UsageError: a variable is not set, or its value cannot be what it should be.
    """
    return from_variables(
        spec.header_env, spec.basic_auth_env, api_key_env, os.environ, spec.plain_headers
    )


def one_model(spec: Bench, why: str) -> None:
    """Refuse several models.

    Raises:
        UsageError: the spec names more than one; `why` says whom it is for.
    """
    if len(parse_models(spec.model)) > 1:
        raise UsageError(f"--model {spec.model}: {why}; name one.")


def server_flags() -> list[Field]:
    """Return the flags of `dyno bench` that say which server it is, and how it is reached."""
    names = ("url", "endpoint", "model", *CONNECTION)
    one = "Name of the model."  # a benchmark asks several
    return [
        msgspec.structs.replace(field, flag=msgspec.structs.replace(field.flag, help=one))
        if field.name == "model"
        else field
        for field in bench_flags()
        if field.name in names
    ]


def bench_flags(spec: type[Bench] = Bench) -> list[Field]:
    """Return the fields that are flags of `dyno bench`."""
    return all_fields(spec)


def study_flags(spec: "type[Study] | None" = None, *, in_file: bool = False) -> list[Field]:
    """Return the fields that are flags of `dyno tune`; in_file: those that its TOML file has."""
    spec = spec or _study()
    has = {"flag", "file"} if in_file else {"flag"}
    return [field for field in all_fields(spec) if field.flag.tune in has]


def bench_spec(given: Given, spec: type[Bench] = Bench) -> Bench:
    """Return the spec of a benchmark.

    Raises:
        UsageError: a value cannot be read or does not fit the others.
    """
    from llmdyno import endpoints  # imports the wire, which a help does without

    fields = _fields(spec, given)
    if "endpoint" in fields:
        fields["url"] = endpoints.full_url(fields["endpoint"], fields["url"])
    _check_end(given)
    if "repeat_until" in fields:
        fields.setdefault("repeat", REPEATS_MAX)
    if fields.get("until") and not {"duration", "requests"} & given.keys():
        budget_s = fields.get("until_budget_s", UNTIL_BUDGET_S)
        given = {**given, "duration": f"{budget_s / _UNTIL_LEVELS:.3f}s"}
    return spec(**fields, workload=_workload_spec(given), load=_load_spec(given))


def _check_end(given: Given) -> None:
    """Refuse a duration where something else ends a level: it would be ignored.

    Raises:
        UsageError: it is given beside a number of requests, or a trace.
    """
    _check_count(given)
    duration = given.get("duration")
    if duration is not None and given.get("arrival") == "trace":
        raise UsageError(
            f"--duration {duration}: a trace ends with its last request; leave it out, or write"
            " --requests N for its first N."
        )
    _check_pause(
        given, is_open="request_rate" in given or given.get("arrival", "closed") != "closed"
    )


def _check_count(given: Given) -> None:
    """Refuse a duration beside a number of requests, which ends a level whatever it takes."""
    requests = given.get("requests")
    for name in ("duration", "trial_duration"):
        if requests is not None and given.get(name) is not None:
            raise UsageError(
                f"--{name.replace('_', '-')} {given[name]}: a level ends after --requests"
                f" {requests}, however long that takes; leave one of them out."
            )


def _check_pause(given: Given, *, is_open: bool) -> None:
    """Refuse a pause of users where there are none."""
    if is_open and given.get("think_time") is not None:
        raise UsageError(
            f"--think-time {given['think_time']}: is the pause of a user, and requests come at"
            " their own times here; leave it out, or write -c N for users."
        )


def study_spec(
    given: Given, spec: "type[Study] | None" = None, *, profile: Given | None = None
) -> "Study":
    """Return the spec of a study.

    Args:
        given: what the user asks for.
        spec: of the study, where it is another one.
        profile: holds for what the user does not ask for, nor excludes by what is asked for.

    Raises:
        UsageError: a value cannot be read or does not fit the others.
    """
    from llmdyno import workload  # as in bench_spec

    spec = spec or _study()
    _check_count(given)
    _check_number_of_pairs(given)
    instead = {name for asked in given for name in _INSTEAD.get(asked, ())}
    rest = {name: value for name, value in (profile or {}).items() if name not in instead}
    asked = _workload_spec({**rest, **given})
    has_times = workload.has_times(workload.load(asked.name))
    if has_times:
        _check_trace(given)
        rest = {name: value for name, value in rest.items() if name not in _INSTEAD_OF_TIMES}
    given = {**rest, **given}
    fields = _load_fields(given)
    if has_times:
        fields["arrival"] = "trace"  # a study needs no flag for it
    elif fields.get("rates"):
        _check_rates(given)
    # The last level decides, and the largest is meant.
    fields |= {name: tuple(sorted(fields[name])) for name in ("users", "rates") if name in fields}
    load = msgspec.structs.replace(spec().load, **fields)
    return spec(**_fields(spec, given), workload=asked, load=load)


def _check_number_of_pairs(given: Given) -> None:
    """Refuse a largest number of pairs where their number is given."""
    pairs, most = given.get("pairs"), given.get("max_pairs")
    if pairs is not None and most is not None and given.get("confirm_until") is None:
        raise UsageError(
            f"--max-pairs {most}: --pairs {pairs} says how many there are; leave one of them out,"
            " or say with --confirm-until when they end."
        )


def _check_trace(given: Given) -> None:
    """Refuse what a trace has itself, in a study: there --duration says how much of it is asked."""
    for name, flag in (("users", "-c"), ("request_rate", "--request-rate")):
        if name in given:
            raise UsageError(f"{flag} {given[name]}: a trace has its own load.")
    if given.get("requests") is not None:
        raise UsageError(
            f"--requests {given['requests']}: a study asks what a trace has within --duration, and"
            " in a trial within --trial-duration; leave it out."
        )
    _check_pause(given, is_open=True)


def _check_rates(given: Given) -> None:
    """Refuse a study at a rate that does not say what is to be better there."""
    if "objective" not in given:
        raise UsageError(
            f"--request-rate {given['request_rate']}: every config that keeps up with a rate makes"
            " the same token rate there; say what is to be better, e.g. --objective ttft:p99, or"
            " goodput with --slo."
        )
    _check_pause(given, is_open=True)


def over(file: Given, given: Given) -> dict[str, Any]:
    """Return what a file has, with the flags over it: each takes the place of what it excludes."""
    instead = {name for asked in given for name in _INSTEAD_IN_FILE.get(asked, ())}
    return {**{name: value for name, value in file.items() if name not in instead}, **given}


def with_baseline(study: "Study", config: Config) -> "Study":
    """Return the study with these knobs of its baseline set, over those of the file."""
    return msgspec.structs.replace(study, baseline={**study.baseline, **config})


def read_toml(path: Path, spec: "type[Study] | None" = None) -> dict[str, Any]:
    """Read a study's TOML file.

    Raises:
        UsageError: it cannot be read, or has a key that no flag has; names the nearest one.
    """
    return read_file(path, study_flags(spec, in_file=True), {"set": "[baseline]"})


def _study() -> "type[Study]":
    from llmdyno.tune.spec import Study

    return Study


def read_file(
    path: Path, fields: Iterable[Field], instead: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Read a TOML file that has these fields as its keys.

    Args:
        path: of the file.
        fields: its keys.
        instead: what a file has for flags that are no keys.

    Raises:
        UsageError: it cannot be read, or has a key that no field has; names the nearest one.
    """
    import tomllib  # as a command line does without it

    try:
        given = tomllib.loads(files.text(path))
    except files.FileError as error:
        raise UsageError(f"{path}: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f'{path}: is not TOML: {error}. A text stands in quotes, a time, too: budget = "2h".'
        ) from error
    known = {field.key: field.name for field in fields}
    given = {key.replace("-", "_"): value for key, value in given.items()}
    for key in given:
        if key not in known:
            right = (instead or {}).get(key)
            hint = f" A file has {right} for --{key}." if right else nearest(key, known)
            raise UsageError(f"{path}: unknown key '{key}'.{hint}")
    return {known[key]: value for key, value in given.items()}


def spec_of(spec: type[Spec], given: Given) -> Spec:
    """Return a spec that has no parts, of what was given.

    Raises:
        UsageError: a value cannot be read or does not fit the others.
    """
    return spec(**_fields(spec, given))


def _load_spec(given: Given) -> Load:
    return Load(**_load_fields(given))


def _load_fields(given: Given) -> dict[str, Any]:
    """Return the load's fields; a rate alone means Poisson arrivals, a burstiness gamma ones."""
    fields = _fields(Load, given)
    if "rates" in fields and "users" in fields:
        raise UsageError(
            f"-c {given['users']}: users are a closed loop, --request-rate is an open one; to limit"
            " the requests under way, write --max-concurrency."
        )
    if "rates" in fields and "arrival" not in fields:
        fields["arrival"] = "gamma" if "burstiness" in fields else "poisson"
    return fields


def _workload_spec(given: Given) -> Workload:
    from llmdyno import workload  # as above

    fields = _fields(Workload, given)
    return Workload(**{"name": workload.implied(fields, given.get("arrival")), **fields})


def _fields(spec: type[msgspec.Struct], given: Given) -> dict[str, Any]:
    """Return what was given of a spec's own fields, read."""
    return {
        field.attribute: field.read(given[field.name])
        for field in own_fields(spec)
        if given.get(field.name) is not None
    }
