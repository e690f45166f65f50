"""Many measured points on one lent GPU: several servers resident at once, one under load at a time.

    python benchmarks/h200/points.py run PLAN.toml MODEL OUT [--seconds 1500]
    python benchmarks/h200/points.py table OUT|STUDY ... > points.csv
    python benchmarks/h200/points.py chart points.csv points.png
    python benchmarks/h200/points.py bars points.csv [MORE.csv ...] engines.png

A server takes a minute to start and its measurement seconds, so a round starts all its servers
together and then loads them one after the other, in an order that turns round by round (ABBA). The
others lie idle in the GPU's memory meanwhile. Every round has fresh servers: two rounds are two
servers of each arm. All goes through the command line: `dyno serve`, `dyno bench`.

A plan has [common] knobs, [arms.NAME] knobs, [loads.NAME] flags of `dyno bench`, and [[rounds]] of
arms, loads, and which arm takes which load. An arm may be named by `best_of` earlier ones: the one
with the best geometric mean of token rates over the loads in `by`, each at its last level.

Arms may be of several engines: an arm names its `engine` where it is not the plan's, [engines.NAME]
has knobs that all its arms share in place of [common], `engine_args` for what has no knob, and
`environment` (a $NAME in it is this process's own).

What has been measured is not measured again: call it again in the same OUT and it goes on with the
next round. No round starts that could not end within --seconds, by what the last one took. A table
takes the runs of `dyno tune` in, too: a study's folder.
"""

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

DYNO = (sys.executable, "-m", "llmdyno")
START_TIMEOUT_S = 300.0
PORT = 8100
RUNS, SUMMARY, CONFIG, LEDGER = "runs", "summary.json", "config.json", "ledger.jsonl"


class Server:
    """One `dyno serve` with its log."""

    def __init__(
        self, plan: Mapping[str, Any], arm: str, model: str, folder: Path, port: int
    ) -> None:
        self.arm = arm
        self.url = f"http://127.0.0.1:{port}"
        engine, special = engine_of(plan, arm)
        config = {**shared(plan, arm), **own(plan, arm)}
        settings = [f"--set={name}={_text(value)}" for name, value in config.items()]
        settings += [f"--engine-arg={word}" for word in special.get("engine_args", ())]
        self.argv = [*DYNO, "serve", "--engine", engine, "--model", model]
        self.argv += ["--port", str(port), *settings]
        environment = {
            name: os.path.expandvars(value)
            for name, value in special.get("environment", {}).items()
        }
        self._log = folder / f"server-{arm}.log"
        self._began_s = time.monotonic()
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                self.argv, stdout=output, stderr=output, env={**os.environ, **environment}
            )

    def is_ready(self) -> bool:
        """Whether it has made its first token; it may also have died before."""
        return b"ready after" in self._log.read_bytes()

    def is_dead(self) -> bool:
        """Whether it has ended by itself."""
        return self.process.poll() is not None

    def stop(self) -> None:
        """End it and wait until its memory is free."""
        if not self.is_dead():
            self.process.terminate()
        self.process.wait(timeout=60)


def engine_of(plan: Mapping[str, Any], arm: str) -> tuple[str, Mapping[str, Any]]:
    """Return the engine of an arm, and what the plan says of that engine."""
    engine = plan["arms"][arm].get("engine", plan["engine"])
    return engine, plan.get("engines", {}).get(engine, {})


def shared(plan: Mapping[str, Any], arm: str) -> dict[str, Any]:
    """Return the knobs that an arm shares with the other arms of its engine."""
    _, special = engine_of(plan, arm)
    return dict(special.get("common", plan.get("common", {})))


def own(plan: Mapping[str, Any], arm: str) -> dict[str, Any]:
    """Return the knobs that an arm has for itself."""
    return {name: value for name, value in plan["arms"][arm].items() if name != "engine"}


class Campaign:
    """A plan, carried out round by round into a folder."""

    def __init__(self, plan: dict[str, Any], model: str, out: Path) -> None:
        self._plan = plan
        self._model = model
        self._out = out
        self._resolve()

    def run(self, seconds: float) -> bool:
        """Run the rounds that are left; return whether all are done."""
        ends_s = time.monotonic() + seconds
        took_s = 0.0
        for number, entry in enumerate(self._plan["rounds"]):
            if (done := self._out / f"round-{number}.done").exists():
                continue
            if time.monotonic() + took_s > ends_s:
                say(f"round {number} would not end in time")
                return False
            began_s = time.monotonic()
            self._round(number, entry)
            took_s = time.monotonic() - began_s
            done.write_text(f"{took_s:.1f} s\n")
        return True

    def _round(self, number: int, entry: Mapping[str, Any]) -> None:
        self._resolve()
        folder = self._out / f"round-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        servers = self._start(entry["arms"], folder)
        try:
            self._warm_up(list(servers.values()), folder)
            for turn, load in enumerate(entry["loads"]):
                arms = [arm for arm in entry["arms"] if arm in servers and _takes(entry, arm, load)]
                for arm in arms if (number + turn) % 2 else reversed(arms):
                    self._load(servers[arm], load, folder)
            self._alone(entry.get("alone", ()), servers, folder)
        finally:
            for server in servers.values():
                if not server.is_dead():
                    server.process.terminate()
            for server in servers.values():
                server.stop()

    def _warm_up(self, servers: Sequence[Server], folder: Path) -> None:
        """Load all servers at once: what they compile at first use costs no round its time."""
        with ThreadPoolExecutor(max(1, len(servers))) as pool:
            for done in [
                pool.submit(self._load, server, "warmup", folder, keep=False) for server in servers
            ]:
                done.result()

    def _start(self, arms: Sequence[str], folder: Path) -> dict[str, Server]:
        """Start all servers at once; one that dies is started once more when they are there."""
        servers = self._started(arms, folder, PORT)
        missing = [arm for arm in arms if arm not in servers]
        if missing:
            say(f"{folder.name}: once more: {', '.join(missing)}")
            servers |= self._started(missing, folder, PORT + len(arms))
        return servers

    def _started(self, arms: Sequence[str], folder: Path, port: int) -> dict[str, Server]:
        """Return those servers that got ready."""
        began_s = time.monotonic()
        waiting = [
            Server(self._plan, arm, self._model, folder, port + place)
            for place, arm in enumerate(arms)
        ]
        ready = {}
        while waiting and time.monotonic() - began_s < START_TIMEOUT_S:
            for server in [each for each in waiting if each.is_ready() or each.is_dead()]:
                waiting.remove(server)
                outcome = "died"
                if not server.is_dead():
                    ready[server.arm], outcome = server, "ready"
                after_s = time.monotonic() - began_s
                say(f"{folder.name}: {server.arm} {outcome} after {after_s:.0f} s")
            time.sleep(0.5)
        for server in waiting:
            say(f"{folder.name}: {server.arm} did not get ready in {START_TIMEOUT_S:.0f} s")
            server.stop()
        return {arm: ready[arm] for arm in arms if arm in ready}

    def _alone(self, entry: Sequence[str], servers: Mapping[str, Server], folder: Path) -> None:
        """Measure one arm once more when the others are gone: do idle neighbours cost anything?"""
        if not entry or entry[0] not in servers:
            return
        arm, load = entry
        self._load(servers[arm], load, folder, suffix="-neighbours")
        for name, server in servers.items():
            if name != arm:
                server.stop()
        self._load(servers[arm], load, folder, suffix="-alone")

    def _load(
        self, server: Server, load: str, folder: Path, *, keep: bool = True, suffix: str = ""
    ) -> None:
        """Put a server under one load; what is kept has its config beside it."""
        name = f"{folder.name}-{server.arm}-{load}{suffix}"
        run = (self._out / RUNS if keep else folder) / name
        if keep and (run / SUMMARY).exists():
            return
        # Each load of a server asks other prompts: its prefix cache must not know them.
        seed = 1 + list(self._plan["loads"]).index(load) + 100 * len(suffix)
        flags = [*self._plan["loads"][load], "--seed", str(seed)]
        argv = [*DYNO, "bench", "--url", server.url, "--endpoint", "openai-chat", "-m", self._model]
        argv += ["--no-calibration", *flags, "--out", str(run)]
        with (folder / f"{name}.log").open("wb") as log:
            status = subprocess.call(argv, stdout=log, stderr=log)
        if not (run / SUMMARY).exists():
            say(f"  {name}: no result, status {status}")
            return
        facts: dict[str, Any] = {
            "arm": server.arm,
            "load": load + suffix,
            "round": folder.name,
            "argv": argv,
        }
        facts |= {"serve": server.argv, "config": own(self._plan, server.arm)}
        facts["common"] = shared(self._plan, server.arm)
        (run / CONFIG).write_text(json.dumps(facts, indent=1) + "\n")
        for level in json.loads((run / SUMMARY).read_text())["levels"]:
            rate, ttft = level["token_rate"] or {}, level["ttft_ms"] or {}
            asked = f"{level['users']} users" if level["users"] else f"{level['rate']:g} req/s"
            say(
                f"  {name}: {asked} {rate.get('mean', 0):,.0f} tok/s, TTFT p50"
                f" {ttft.get('p50') or 0:,.1f} p99 {ttft.get('p99') or 0:,.1f} ms,"
                f" failed {level['requests']['failed']}, {level['client']['verdict']}"
            )

    def _resolve(self) -> None:
        """Give arms that are the best of others their config, as soon as those are measured."""
        for name, arm in self._plan["arms"].items():
            if "best_of" not in arm:
                continue
            scores = {each: self._score(each, arm["by"]) for each in arm["best_of"]}
            if any(scores.values()):
                best = max(scores, key=lambda each: scores[each])
                say(f"{name} is {best}: " + ", ".join(f"{k} {v:,.0f}" for k, v in scores.items()))
                self._plan["arms"][name] = self._plan["arms"][best]

    def _score(self, arm: str, loads: Sequence[str]) -> float:
        """Return the geometric mean of an arm's token rates at the loads' last levels."""
        rates: list[float] = []
        for load in loads:
            found = sorted((self._out / RUNS).glob(f"*-{arm}-{load}/{SUMMARY}"))
            if not found:
                return 0.0
            rates.append(json.loads(found[0].read_text())["levels"][-1]["token_rate"]["mean"])
        return float(math.prod(rates) ** (1 / len(rates)))


def _takes(entry: Mapping[str, Any], arm: str, load: str) -> bool:
    only = entry.get("only", {}).get(load)
    return only is None or arm in only


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def say(line: str) -> None:
    """Tell whoever waits."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def rows(out: Path) -> list[dict[str, Any]]:
    """Return one row a level of every run of a folder: the config, the load, what came of it."""
    found = []
    for path in sorted((out / RUNS).glob(f"*/{SUMMARY}")):
        facts = json.loads((path.parent / CONFIG).read_text())
        config = {**facts["common"], **facts["config"]}
        engine = facts["serve"][facts["serve"].index("--engine") + 1]
        found += _levels(path, facts["arm"], engine, config)
    return found


def study_rows(study: Path) -> list[dict[str, Any]]:
    """Return one row a level of a study's runs; the arms: ENGINE-baseline, -tuned, -trial."""
    ledger = [json.loads(line) for line in (study / LEDGER).read_text().splitlines()]
    (engine,) = (line["spec"]["engine"] for line in ledger if "engine" in line.get("spec", {}))
    steps = [line for line in ledger if line["type"] == "step" and line["state"] == "measured"]
    names = {"baseline": "baseline", "best": "tuned"}
    arms = {str(step["config"]): names[step["phase"]] for step in steps if step["phase"] in names}
    found: list[dict[str, Any]] = []
    for step in steps:
        arm = f"{engine}-{arms.get(str(step['config']), 'trial')}"
        found += _levels(study / step["run"] / SUMMARY, arm, engine, step["config"])
    return found


def _levels(path: Path, arm: str, engine: str, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    document = json.loads(path.read_text())
    asked = document["spec"]
    facts = {"run": path.parent.name, "arm": arm, "engine": engine, **_knobs(config)}
    return [{**facts, **_row(each, asked)} for each in document["levels"]]


def _knobs(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a column for each knob of vLLM that the predictor reads, and one for all others."""
    columns = {
        "max_num_seqs": config.get("max_num_seqs"),
        "max_num_batched_tokens": config.get("max_num_batched_tokens"),
        "api_server_count": config.get("api_server_count"),
        "cudagraph_mode": config.get("cudagraph_mode"),
        "weights": config.get("quantization") or config.get("dtype"),
        "kv_cache_dtype": config.get("kv_cache_dtype", "auto"),
        "gpu_memory_utilization": config.get("gpu_memory_utilization"),
        "kv_cache_memory_bytes": config.get("kv_cache_memory_bytes"),
    }
    others = {k: v for k, v in config.items() if k not in {*columns, "quantization", "dtype"}}
    return {**columns, "other_knobs": json.dumps(others)}


def _row(level: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    completed = level["requests"]["completed"] or 1
    server = level.get("server") or {}
    rate, tokens, load = level["token_rate"] or {}, level["tokens"], asked["load"]
    ci95 = rate.get("ci95") or (None, None)

    def stat(metric: str, name: str) -> Any:
        return (level[metric] or {}).get(name)

    return {
        "workload": asked["workload"]["name"],
        "users": level["users"],
        "request_rate": level.get("rate"),
        "ramp_s": load.get("ramp_s"),
        "duration_s": load.get("duration_s"),
        "input_tokens_mean": round(tokens["input"] / completed, 1),
        "output_tokens_mean": _answer(level, asked, round(tokens["output"] / completed, 1)),
        "requests_completed": level["requests"]["completed"],
        "requests_failed": level["requests"]["failed"],
        "token_rate": rate.get("mean"),
        "token_rate_low": ci95[0],
        "token_rate_high": ci95[1],
        **{f"ttft_ms_{name}": stat("ttft_ms", name) for name in ("mean", "p50", "p99")},
        **{f"tpot_ms_{name}": stat("tpot_ms", name) for name in ("mean", "p50", "p99")},
        "e2e_ms_p50": stat("e2e_ms", "p50"),
        "kv_use_mean": server.get("kv_use_mean"),
        "kv_use_max": server.get("kv_use_max"),
        "server_running_mean": server.get("running_mean"),
        "server_waiting_mean": server.get("waiting_mean"),
        "server_queue_ms_mean": server.get("queue_ms_mean"),
        "server_ttft_ms_mean": (server.get("ttft_ms") or {}).get("server_mean"),
        "prefix_cache_hits": server.get("prefix_cache_hits"),
        "output_tokens_server": (server.get("tokens") or {}).get("server"),
        "output_tokens_client": (server.get("tokens") or {}).get("client"),
        "client_verdict": level["client"]["verdict"],
        "client_cpu_us_per_token": level["client"]["cpu_us_per_token"],
        "client_lag_ms_p99": level["client"]["loop_lag_ms_p99"],
    }


def _answer(level: Mapping[str, Any], asked: Mapping[str, Any], mean: float) -> float:
    """Return the tokens of an answer: the mean counts those of requests that were cut, too."""
    osl = asked["workload"]["osl"] or {}
    cut = level["requests"].get("cut") and osl.get("shape") == "fixed"
    return float(osl["a"]) if cut else mean


def write_table(folders: Sequence[Path], stream: TextIO) -> None:
    """Write the rows of folders and of studies as CSV."""
    table = [
        row
        for folder in folders
        for row in (study_rows if (folder / LEDGER).exists() else rows)(folder)
    ]
    writer = csv.DictWriter(stream, fieldnames=list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)


def draw(table: Path, picture: Path) -> None:
    """Draw every point: what the server gave, and how long its users waited for it."""
    import altair as alt

    with table.open() as file:
        points = [
            {
                "token rate (tok/s)": float(row["token_rate"]),
                "TTFT p50 (ms)": float(row["ttft_ms_p50"]),
                "server": row["arm"],
                "users": int(row["users"]),
                "prompts": f"{round(float(row['input_tokens_mean']), -2):.0f} tokens in",
            }
            for row in csv.DictReader(file)
            if row["users"]
        ]
    chart = (
        alt.Chart(alt.Data(values=points), width=560, height=340)
        .mark_point(filled=True, opacity=0.8)
        .encode(
            x=alt.X("token rate (tok/s):Q"),
            y=alt.Y("TTFT p50 (ms):Q", scale=alt.Scale(type="log")),
            color=alt.Color("server:N"),
            shape=alt.Shape("prompts:N"),
            size=alt.Size("users:O", scale=alt.Scale(range=[40, 200])),
        )
    )
    chart.save(picture, scale_factor=2)


def draw_bars(tables: Sequence[Path], picture: Path) -> None:
    """Draw each server's token rate and TTFT by users, with chat's prompts; a dot is a start."""
    import altair as alt

    points = [
        {
            "server": row["arm"],
            "users": f"{row['users']} users",
            "token rate (tok/s)": float(row["token_rate"]),
            "low": float(row["token_rate_low"]),
            "high": float(row["token_rate_high"]),
            "TTFT p50 (ms)": float(row["ttft_ms_p50"]),
        }
        for table in tables
        for row in csv.DictReader(table.read_text().splitlines())
        if row["users"] and row["workload"] == "chat"
    ]
    order = sorted({point["users"] for point in points}, key=lambda users: int(users.split()[0]))
    base = alt.Chart(alt.Data(values=points)).encode(
        y=alt.Y("server:N", title=None), color=alt.Color("server:N", legend=None)
    )

    def panel(metric: str, scale: str, users: str) -> alt.LayerChart:
        axis = alt.Axis(labelOverlap="greedy")
        x = alt.X(f"{metric}:Q", title=metric, scale=alt.Scale(type=scale), axis=axis)
        dots = base.mark_point(filled=True, size=60).encode(x=x)
        ends = base.mark_rule().encode(x=alt.X("low:Q", title=metric), x2="high:Q")
        layers = (dots, ends) if metric.startswith("token") else (dots,)
        shown = alt.layer(*layers).transform_filter(alt.datum.users == users)
        return shown.properties(title=users, width=230, height=130)

    rows = [
        alt.hconcat(*(panel(metric, scale, users) for users in order))
        for metric, scale in (("token rate (tok/s)", "linear"), ("TTFT p50 (ms)", "log"))
    ]
    alt.vconcat(*rows).save(picture, scale_factor=1.3)


def main() -> int:
    """Run from the command line; exit status 10: call again."""
    parser = argparse.ArgumentParser(description="Measure many points on one GPU.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("plan", type=Path)
    run.add_argument("model")
    run.add_argument("out", type=Path)
    run.add_argument("--seconds", type=float, default=1e9)
    table = commands.add_parser("table")
    table.add_argument("folders", type=Path, nargs="+")
    chart = commands.add_parser("chart")
    bars = commands.add_parser("bars")
    chart.add_argument("table", type=Path)
    bars.add_argument("table", type=Path, nargs="+")
    for drawn in (chart, bars):
        drawn.add_argument("picture", type=Path)
    given = parser.parse_args()
    if given.command in {"chart", "bars"}:
        (draw if given.command == "chart" else draw_bars)(given.table, given.picture)
        return 0
    if given.command == "table":
        write_table(given.folders, sys.stdout)
        return 0
    given.out.mkdir(parents=True, exist_ok=True)
    plan = tomllib.loads(given.plan.read_text())
    return 0 if Campaign(plan, given.model, given.out).run(given.seconds) else 10


if __name__ == "__main__":
    sys.exit(main())
