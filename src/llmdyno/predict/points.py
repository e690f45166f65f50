"""What was measured, as the calibration takes it: rows of a CSV file, levels of runs and studies.

A CSV has a row a level with the columns of evidence/h200/points/points.csv: knobs of the engine by
their names (`weights` is the number format of the weights), `users` or `request_rate`,
`input_tokens_mean`, `output_tokens_mean`, `token_rate`, `ttft_ms_p50`, `tpot_ms_p50`; columns
`gpu`, `engine` and `model` may say whose they are, an environment.json beside it the GPU, `ramp_s`
and `duration_s` how long users took to start and how long the level was, and `other_knobs` has a
JSON object of knobs without a column. A table with a column of settings says all settings of its
servers: a knob that it does not name had the engine's default. A table without any, and a run, say
nothing of them: they are those that the caller names. A study says all.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from llmdyno import files, plugins, store
from llmdyno.errors import UsageError
from llmdyno.knobs import Config, Value
from llmdyno.machine.environment import machine_ids
from llmdyno.predict.cells import check_units, read_number
from llmdyno.predict.gpus import CPU, Gpu, gpu_of
from llmdyno.predict.server import Setup, is_simulated, parts_of, ranks_of
from llmdyno.predict.shapes import Shape, shape_of


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One level that was measured. Of `users` and `request_rate` one is None."""

    gpu: Gpu
    engine: str
    shape: Shape
    config: Mapping[str, Value]
    users: int | None
    request_rate: float | None
    isl: float  # mean tokens of a prompt
    osl: float  # mean tokens of an answer
    cached_share: float  # of the prompts' tokens, found in a prefix cache
    duration_s: float
    ramp_s: float | None = None  # in which users started; None: not known
    token_rate: float  # output tokens a second
    token_rate_ci: tuple[float, float] | None
    ttft_ms_p50: float | None
    tpot_ms_p50: float | None
    source: str  # the file or folder, and the row or level
    batches: int | None = None  # of a pipeline, see server.Setup
    machine: frozenset[str] = frozenset()  # see machine_ids(); empty: nobody knows which it was


class Whose(msgspec.Struct, frozen=True, kw_only=True):
    """Whose the points are, where their source does not say it."""

    gpu: Gpu
    engine: str
    shape: Shape
    config: Mapping[str, Value] = {}
    machine: frozenset[str] = frozenset()


def read_points(source: str, whose: Whose) -> list[Measured]:
    """Read a CSV file, a run or a study: a path, or the end of a run's id.

    Raises:
        UsageError: there is no such thing, or nothing in it can be used; names the source.
        StorageError: a document of ours that cannot be read.
    """
    path = Path(source).expanduser()
    if path.suffix.lower() == ".csv":
        found = _csv_points(path, whose)
    else:
        folder = store.find(source)
        if (folder / store.LEDGER).exists() or (folder / store.STUDY).exists():
            found = _study_points(folder, whose)
        elif (folder / store.SUMMARY).exists():
            found = list(run_points(store.read_json(folder / store.SUMMARY), whose, str(folder)))
        else:
            raise UsageError(
                f"--from {source}: is no run, no study and no CSV file; `dyno runs` lists them."
            )
    if not found:
        raise UsageError(f"--from {source}: has no level that answered, so it calibrates nothing.")
    return [of_a_part(one) for one in found]


def of_a_part(one: Measured) -> Measured:
    """Return what one of a server's ranks, and of its pipeline's batches, did: it is simulated."""
    if not is_simulated(one.engine):
        return one
    setup = Setup(one.engine, one.shape, one.gpu, config=one.config)
    ranks = parts_of(setup)
    if ranks == 1:
        return one
    if one.users is not None:
        ranks = min(ranks, one.users)  # the others were idle
    interval = one.token_rate_ci
    return msgspec.structs.replace(
        one,
        batches=-(-ranks // ranks_of(setup)),
        users=None if one.users is None else -(-one.users // ranks),
        request_rate=None if one.request_rate is None else one.request_rate / ranks,
        token_rate=one.token_rate / ranks,
        token_rate_ci=None if interval is None else (interval[0] / ranks, interval[1] / ranks),
    )


def run_points(summary: Mapping[str, Any], whose: Whose, source: str) -> Iterator[Measured]:
    """Yield the levels of a run's summary in which requests were answered."""
    spec = summary.get("spec") or {}
    whose = msgspec.structs.replace(whose, machine=machine_ids(summary.get("environment") or {}))
    for level in summary.get("levels") or []:
        point = _level_point(level, spec, whose, source)
        if point is not None:
            yield point


def _level_point(
    level: Mapping[str, Any], spec: Mapping[str, Any], whose: Whose, source: str
) -> Measured | None:
    requests, tokens = level.get("requests") or {}, level.get("tokens") or {}
    answered = requests.get("completed") or 0
    rate = (level.get("token_rate") or {}).get("mean")
    if not answered or not rate or not tokens.get("output"):
        return None
    users, arrivals = level.get("users"), level.get("rate")
    if users is None and arrivals is None:
        return None  # a trace has times of its own
    window = level.get("window") or {}
    interval = (level.get("token_rate") or {}).get("ci95")
    return Measured(
        gpu=whose.gpu,
        engine=whose.engine,
        shape=whose.shape,
        config=whose.config,
        users=None if users is None else int(users),
        request_rate=float(arrivals) if users is None and arrivals is not None else None,
        isl=(tokens.get("input") or _typical(spec, "isl") * answered) / answered,
        osl=_answer(
            tokens["output"] / answered,
            *((level.get(name) or {}).get("p50") for name in ("e2e_ms", "ttft_ms", "tpot_ms")),
        ),
        cached_share=_cached(level),
        duration_s=float(window.get("end_s") or level.get("duration_s") or 0.0),
        ramp_s=(spec.get("load") or {}).get("ramp_s"),
        token_rate=float(rate),
        token_rate_ci=tuple(interval) if interval else None,
        ttft_ms_p50=(level.get("ttft_ms") or {}).get("p50"),
        tpot_ms_p50=(level.get("tpot_ms") or {}).get("p50"),
        source=f"{source}: {users if users is not None else arrivals}",
        machine=whose.machine,
    )


def _cached(level: Mapping[str, Any]) -> float:
    """Return the share of the prompts' tokens that a prefix cache holds.

    It is what the server has counted, else what a cache that never evicts would find. A server
    without such a cache has none of it: whoever reads this knows the config.
    """
    counted = (level.get("server") or {}).get("prefix_cache_hits")
    if counted is None:
        counted = (level.get("prefix") or {}).get("ideal_hit_rate")
    return float(counted or 0.0)


def _answer(
    mean: float, e2e_ms: float | None, ttft_ms: float | None, tpot_ms: float | None
) -> float:
    """Return the tokens of an answer. `mean` is too large where requests were cut.

    Their tokens are in the sum, they are not in the count. By the latencies of whole requests an
    answer has 1 + (E2E - TTFT) / TPOT tokens.
    """
    # Where requests queue, the medians of the three are of different requests.
    if not (e2e_ms and ttft_ms and tpot_ms) or ttft_ms > 0.1 * e2e_ms:
        return mean
    whole = round(1 + (e2e_ms - ttft_ms) / tpot_ms)
    return float(whole) if 1.02 * whole < mean < 1.12 * whole else mean


def _typical(spec: Mapping[str, Any], name: str) -> float:
    lengths = (spec.get("workload") or {}).get(name) or {}
    return float(lengths.get("a", 0.0))


def _study_points(folder: Path, whose: Whose) -> list[Measured]:
    """Read what each step of a study measured, with the config that its ledger has."""
    began, steps = _ledger(folder)
    if not began:
        return []
    spec = began.get("spec") or {}
    whose = msgspec.structs.replace(
        whose,
        gpu=_gpu_there(began.get("environment") or {}, whose.gpu),
        engine=spec.get("engine", whose.engine),
        shape=_shape_there(spec.get("model"), whose.shape),
    )
    found: list[Measured] = []
    for step in steps:
        summary = folder / str(step.get("run") or ".") / store.SUMMARY
        if step.get("state") == "measured" and step.get("run") and summary.is_file():
            of_it = msgspec.structs.replace(whose, config=step.get("config") or {})
            found += run_points(store.read_json(summary), of_it, str(summary.parent))
    return found


def _ledger(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a ledger's first line and its steps; a torn last line is left out.

    The tuner's own reader stands in a layer above this one.
    """
    began: dict[str, Any] = {}
    steps: list[dict[str, Any]] = []
    try:
        lines = files.text(folder / store.LEDGER).splitlines()
    except files.FileError:
        return began, steps
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.get("type") == "study":
            began = entry
        elif entry.get("type") == "step":
            steps.append(entry)
    return began, steps


def _gpu_there(environment: Mapping[str, Any], otherwise: Gpu) -> Gpu:
    """Return the GPU of the machine that a study ran on."""
    gpus = environment.get("gpus")
    if gpus is None:
        return otherwise
    try:
        return gpu_of(gpus[0]["name"] if gpus else CPU)
    except UsageError:
        return otherwise


def _shape_there(model: str | None, otherwise: Shape) -> Shape:
    """Return the shape of a study's model; a folder that is gone says nothing any more."""
    try:
        return shape_of(model) if model else otherwise
    except UsageError:
        return otherwise


# The columns that a row cannot do without.
_NEEDED = ("token_rate", "input_tokens_mean", "output_tokens_mean")
# Weights in a CSV, as the knob "quantization" of the engines has them; 16 bits is no quantisation.
_PLAIN = frozenset({"bfloat16", "bf16", "float16", "fp16", "half", "auto", ""})


def _csv_points(path: Path, whose: Whose) -> list[Measured]:
    if not path.is_file():
        raise UsageError(f"--from {path}: there is no such file.")
    try:
        rows = list(csv.DictReader(files.text(path).splitlines()))
    except (files.FileError, csv.Error) as error:
        raise UsageError(f"--from {path}: cannot be read: {error}.") from error
    if not rows:
        raise UsageError(f"--from {path}: has no row; each is a level, see docs/plan.md.")
    columns = set(rows[0])
    missing = [name for name in _NEEDED if name not in columns]
    if not {"users", "request_rate"} & columns:
        missing.append("users")
    if missing:
        raise UsageError(
            f"--from {path}: has no column {', '.join(missing)}; see docs/plan.md for the columns."
        )
    beside = _environment_beside(path)
    gpu = _gpu_in_name(path) or _gpu_there(beside, whose.gpu)
    whose = msgspec.structs.replace(whose, gpu=gpu, machine=machine_ids(beside))
    places = dict(enumerate(rows, start=2))
    found = [_row_point(row, whose, f"{path}:{number}") for number, row in places.items()]
    return [point for point in found if point is not None]


def _gpu_in_name(path: Path) -> Gpu | None:
    """Return the GPU that a file is named after, as points-h100.csv is."""
    for word in path.stem.split("-")[1:]:
        try:
            return gpu_of(word)
        except UsageError:
            continue
    return None


def _environment_beside(path: Path) -> Mapping[str, Any]:
    """Return a table's environment.json, in which `dyno env` describes the machine; {}: none."""
    beside = path.with_name("environment.json")
    try:
        found = json.loads(files.text(beside)) if beside.is_file() else {}
    except (files.FileError, ValueError):
        found = {}
    return found if isinstance(found, dict) else {}


def _row_point(row: Mapping[str, str | None], whose: Whose, where: str) -> Measured | None:
    cells = {name: (cell or "").strip() for name, cell in row.items() if name}
    engine = cells.get("engine") or whose.engine
    gpu = gpu_of(cells["gpu"], f"--from {where}: gpu") if cells.get("gpu") else whose.gpu
    shape = whose.shape
    if cells.get("model"):
        shape = shape_of(cells["model"], f"--from {where}: model")

    def number(name: str) -> float | None:
        return read_number(cells.get(name, ""), name, where)

    rate, osl, isl = number("token_rate"), number("output_tokens_mean"), number("input_tokens_mean")
    users, arrivals = number("users"), number("request_rate")
    if not rate or not osl or isl is None or (users is None and arrivals is None):
        return None
    if users is not None and users < 1:
        raise UsageError(f"--from {where}: users is {cells['users']!r}; it must be 1 or more.")
    check_units(users, rate / osl, number("ttft_ms_p50"), number("tpot_ms_p50"), osl, where)
    low, high = number("token_rate_low"), number("token_rate_high")
    answered = number("requests_completed") or 0.0
    return Measured(
        gpu=gpu,
        engine=engine,
        shape=shape,
        config=_row_config(cells, engine, where, whose),
        users=None if users is None else int(users),
        request_rate=arrivals if users is None else None,
        isl=isl,
        osl=_answer(osl, number("e2e_ms_p50"), number("ttft_ms_p50"), number("tpot_ms_p50")),
        cached_share=number("prefix_cache_hits") or 0.0,
        duration_s=number("duration_s") or answered * osl / rate,
        ramp_s=number("ramp_s"),
        token_rate=rate,
        token_rate_ci=(low, high) if low is not None and high is not None else None,
        ttft_ms_p50=number("ttft_ms_p50"),
        tpot_ms_p50=number("tpot_ms_p50"),
        source=where,
        machine=whose.machine,
    )


def _row_config(cells: Mapping[str, str], engine: str, where: str, whose: Whose) -> Config:
    """Return the knobs of a row; what is no knob of the engine is a result, not a setting.

    The caller's config is that of the server that is asked about. It is not mixed into rows that
    say their own: a row in 16 bits is not of fp8 because the question is.
    """
    knobs = {knob.name: knob for knob in plugins.load("engines", engine).knobs}
    if not cells.keys() & {*knobs, "weights", "other_knobs"}:
        return whose.config if engine == whose.engine else {}
    config = {
        name: _value(cell) for name, cell in cells.items() if name in knobs and cell and cell != "-"
    }
    weights = cells.get("weights", "")
    if weights not in _PLAIN and "quantization" in knobs:
        config.setdefault("quantization", weights)
    return {**_other_knobs(cells, where), **config}


def _other_knobs(cells: Mapping[str, str], where: str) -> Config:
    """Return the settings for which a table of several engines has no column."""
    cell = cells.get("other_knobs", "")
    try:
        found = json.loads(cell) if cell and cell != "-" else {}
    except ValueError:
        found = None
    if not isinstance(found, dict) or any(isinstance(each, dict | list) for each in found.values()):
        raise UsageError(
            f"--from {where}: other_knobs is {cell!r}; it must be a JSON object of knobs."
        )
    return {name: value for name, value in found.items() if value is not None}


def _value(cell: str) -> Value:
    if cell.lower() in ("true", "false"):
        return cell.lower() == "true"
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def sources(points: Sequence[Measured]) -> int:
    """Return how many servers' settings the points are of."""
    return len({json.dumps(dict(point.config), sort_keys=True) for point in points})
