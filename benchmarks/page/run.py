"""How large is a study's page, and how soon is it there, of three levels of 5 minutes each?

    python benchmarks/page/run.py [--users 10,50,100] [--seconds 300] [--opens 5] [--out DIR]

The study is made, not measured: its journals have as many requests, tokens and samples as runs of
that length have, and take the road of `dyno report` from the ledger to the page. A headless
Chromium opens the page, and a blank one beside it; what the page takes longer is what it costs. The
browser's own log of the network tells whether anything was asked for.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from llmdyno import store
from llmdyno.cli.flags import study_spec
from llmdyno.cli.rebuild import rebuild
from llmdyno.records.entries import LevelEnded, LevelStarted, Opened, Record
from llmdyno.records.journal import Journal
from llmdyno.results.summary import summarise
from llmdyno.tune.ledger import Began, Ledger, Phase, Step

_MS = 1_000_000
_TOKENS, _PROMPT, _RAMP_S = 128, 128, 20
_PAIRS, _TRIALS = 6, 25
BLANK = "<!doctype html><html lang=en><title>blank</title><p>Nothing.</html>"


def write_run(folder: Path, users: list[int], seconds: int, *, faster: float, seed: int) -> float:
    """Write the journal and summary of a run; return the token rate of its last level."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    journal = Journal(folder / store.JOURNAL)
    load = {"users": users, "interval_s": 5.0, "duration_s": seconds, "ramp_s": _RAMP_S}
    spec = {"load": load, "model": "tiny"}
    started = "2026-11-29T03:00:00+00:00"
    journal.append(Opened(run=folder.name, started=started, spec=spec, environment={}))
    start_ns = 0
    for level, count in enumerate(users):
        ramp_ns = _RAMP_S * 1000 * _MS
        end_ns = start_ns + seconds * 1000 * _MS
        journal.append(LevelStarted(level=level, users=count, start_ns=start_ns, ramp_ns=ramp_ns))
        for record in _records(rng, level, count, (start_ns, end_ns), faster):
            journal.append(record)
        start_ns = end_ns + 20_000 * _MS
        journal.append(LevelEnded(level=level, end_ns=start_ns, full_until_ns=end_ns))
    journal.close()
    summary = summarise(folder / store.JOURNAL)
    store.write_json(folder / store.SUMMARY, summary)
    rate: float = summary["levels"][-1]["token_rate"]["mean"]
    return rate


def _records(
    rng: np.random.Generator, level: int, users: int, span_ns: tuple[int, int], faster: float
) -> list[Record]:
    """Return the requests of a level: the more users, the longer a token takes."""
    start_ns, end_ns = span_ns
    asked = []
    for user in range(users):
        at_ns = start_ns + user * _RAMP_S * 1000 * _MS // users
        while at_ns < end_ns:
            gaps_ms = rng.gamma(20.0, 0.05, _TOKENS) * (15 + 0.25 * users) / faster
            gaps_ms[0] *= 8
            asked.append((at_ns, user, tuple(int(gap * _MS) for gap in gaps_ms)))
            at_ns += sum(asked[-1][2])
    asked.sort(key=lambda one: one[0])
    return [
        Record(
            level=level,
            request=number,
            user=user,
            prompt=number,
            due_ns=sent_ns,
            sent_ns=sent_ns,
            end_ns=sum(gaps_ns),
            outcome="completed",
            status=200,
            finish="stop",
            source="usage",
            input_tokens=_PROMPT,
            output_tokens=_TOKENS,
            reads=_TOKENS,
            gaps_ns=gaps_ns,
        )
        for number, (sent_ns, user, gaps_ns) in enumerate(asked)
    ]


def write_study(folder: Path, users: list[int], seconds: int) -> None:
    """Write a study of 25 trials and six pairs; what decides has a tenth of the full runs' time."""
    folder.mkdir(parents=True)
    ledger = Ledger(folder)
    given = {"users": ",".join(map(str, users)), "duration": f"{seconds}s", "trials": _TRIALS}
    spec = study_spec({**given, "pairs": _PAIRS, "engine": "openvino", "model": "tiny"})
    ledger.append(Began(study=folder.name, spec=spec, environment={}, engine_version="2026.4.1.0"))
    best = {"enable_prefix_caching": True, "max_num_batched_tokens": 1448}
    plan: list[tuple[Phase, dict[str, bool | int], int]] = [("baseline", {}, seconds)]
    plan += [
        ("trial", {**best, "max_num_batched_tokens": 1448 - 50 * number}, seconds // 10)
        for number in range(_TRIALS)
    ]
    plan += [("best", dict(best), seconds)]
    plan += [
        ("confirm", {} if place in {0, 3} else dict(best), seconds // 10)
        for _ in range(_PAIRS // 2)
        for place in range(4)
    ]
    numbers: dict[str, int] = {}
    for seed, (phase, config, length) in enumerate(plan):
        number = numbers.get(phase, 0)
        numbers[phase] = number + 1
        run = f"runs/{phase}-{number}"
        levels = users if length == seconds else users[-1:]
        faster = 1.5 - number / 100 if config else 1.0
        rate = write_run(folder / run, levels, max(60, length), faster=faster, seed=seed)
        ledger.append(
            Step(phase=phase, number=number, config=config, state="measured", run=run, value=rate)
        )


def opened_s(page: Path, folder: Path) -> tuple[float, list[str], list[str], int]:
    """Open a page; return the seconds, what the console said, the hosts asked, and the charts.

    Time that nothing is computed in is skipped by the browser, so the seconds are work.
    """
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        raise SystemExit("There is no chromium on the PATH.")
    log = folder / "net.json"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += ["--enable-logging=stderr", "--v=0", "--virtual-time-budget=10000", "--dump-dom"]
    flags += [f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}"]
    began = time.monotonic()
    done = subprocess.run(
        [browser, *flags, page.as_uri()], capture_output=True, text=True, check=True, timeout=120
    )
    took_s = time.monotonic() - began
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    asked = sorted(set(re.findall(r'"url":"(https?://[^/"?]+)', log.read_text())))
    return took_s, console, asked, done.stdout.split("<script")[0].count("<svg")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="The size of a study's page, and how it opens.")
    parser.add_argument("--users", default="10,50,100")
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--opens", type=int, default=5)
    parser.add_argument("--out", type=Path, help="where to leave the study; else it is removed")
    given = parser.parse_args()
    users = [int(count) for count in given.users.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.out or Path(temporary)).resolve()
        study = folder / "study"
        began = time.monotonic()
        write_study(study, users, given.seconds)
        made_s, began = time.monotonic() - began, time.monotonic()
        document, page = rebuild(study)
        built_s = time.monotonic() - began
        blank = folder / "blank.html"
        blank.write_text(BLANK)
        pages = [opened_s(page, folder) for _ in range(given.opens)]
        bare = [opened_s(blank, folder) for _ in range(given.opens)]
        requests = [
            level["requests"]["completed"] for level in document["best"]["summary"]["levels"]
        ]
        of_page, of_blank = (statistics.median(one[0] for one in some) for some in (pages, bare))
        found = {
            "requests": requests,
            "page_bytes": page.stat().st_size,
            "made_s": round(made_s, 1),
            "report_s": round(built_s, 1),
            "opens_s": round(of_page, 2),
            "blank_s": round(of_blank, 2),
            "charts": pages[-1][3],
            "console": pages[-1][1],
            # The browser asks its maker for updates by itself, whatever page it shows.
            "asked_for": [host for host in pages[-1][2] if host not in bare[-1][2]],
        }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
