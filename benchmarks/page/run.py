"""How large is a study's page, and how soon is it there, of three levels of 5 minutes each?

    python benchmarks/page/run.py [--users 10,50,100] [--seconds 300] [--opens 5] [--out DIR]

The study is made, not measured: its journals have as many requests, tokens and samples as runs of
that length have, and take the road of `dyno report` from the ledger to the page. A headless
Chromium that is up opens the page, and says when all but the charts was there, when the charts in
its window were, at the page's top and at a section of charts, and when all were. It opens a blank
page, too. The browser tells whether the page asked a network for anything.
"""

import argparse
import fcntl
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from llmdyno import store
from llmdyno.cli.flags import study_spec
from llmdyno.cli.rebuild import rebuild
from llmdyno.records.entries import LevelEnded, LevelStarted, Opened, Record
from llmdyno.records.journal import Journal
from llmdyno.results.summary import summarise
from llmdyno.tune.entries import Began, Phase, Step
from llmdyno.tune.ledger import Ledger

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


# Since the page was asked for, in ms: when its load was over, when no chart in the window was
# missing any more, when none was at all; and how many there are.
_TIMES = """new Promise((done) => {
  const isIn = (one) => { const at = one.getBoundingClientRect();
    return at.bottom > 0 && at.top < innerHeight; };
  const isDrawn = (one) => one.querySelector("svg.marks");
  let inWindow = null;
  const look = () => {
    const isLoaded = performance.getEntriesByType("navigation")[0].loadEventEnd;
    const isThere = isLoaded && (!location.hash || scrollY);
    const charts = isThere ? [...document.querySelectorAll(".chart")] : [];
    if (isThere && inWindow === null && charts.filter(isIn).every(isDrawn))
      inWindow = performance.now();
    if (inWindow === null || !charts.every(isDrawn)) return setTimeout(look, 10);
    done([isLoaded, inWindow, performance.now(), charts.length]);
  };
  look();
})"""


_PARTS = ("loaded_s", "window_s", "all_s", "cpu_s")
_COMPLAINTS = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")


class Browser:
    """A headless Chromium with one page, spoken to over its pipe of remote debugging.

    Args:
        folder: for its profile.
    """

    def __init__(self, folder: Path) -> None:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        if program is None:
            raise SystemExit("There is no chromium on the PATH.")
        (theirs_in, self._out), (self._in, theirs_out) = os.pipe(), os.pipe()
        # It reads what it is told from descriptor 3, and answers on 4: neither may be one of these.
        pipes = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (theirs_in, theirs_out)]
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        flags += ["--window-size=1280,900", "--remote-debugging-pipe"]
        flags += [f"--user-data-dir={folder}"]
        shell = ["bash", "-c", f'exec "$@" 3<&{pipes[0]} 4>&{pipes[1]}', "bash"]
        self._process = subprocess.Popen(
            [*shell, program, *flags], pass_fds=pipes, stderr=subprocess.DEVNULL
        )
        for one in (theirs_in, theirs_out, *pipes):
            os.close(one)
        self._session: dict[str, str] = {}
        self._heard, self._asked = b"", 0
        self.console: list[str] = []
        self.asked_for: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def opened(self, url: str) -> tuple[list[float], int]:
        """Open a page; return the seconds of _PARTS, and how many charts there are."""
        self._call("Page.navigate", url="about:blank")
        before_s = self._cpu_s()
        self._call("Page.navigate", url=url)
        told = self._call(
            "Runtime.evaluate", expression=_TIMES, awaitPromise=True, returnByValue=True
        )
        *times_ms, charts = told["result"]["value"]
        return [*(one / 1000 for one in times_ms), self._cpu_s() - before_s], charts

    def _cpu_s(self) -> float:
        """Return the CPU time of all processes of the browser."""
        session, self._session = self._session, {}
        found = self._call("SystemInfo.getProcessInfo")["processInfo"]
        self._session = session
        return sum(float(one["cpuTime"]) for one in found)

    def close(self) -> None:
        """End it."""
        self._call("Browser.close")
        self._process.wait(20)
        os.close(self._out)
        os.close(self._in)

    def _call(self, method: str, **arguments: Any) -> Any:
        self._asked += 1
        asked = {"id": self._asked, "method": method, "params": arguments, **self._session}
        os.write(self._out, json.dumps(asked).encode() + b"\0")
        while (answer := self._read()).get("id") != self._asked:
            self._notice(answer)
        return answer["result"]

    def _notice(self, event: dict[str, Any]) -> None:
        said = event.get("params", {})
        if event.get("method") in _COMPLAINTS:
            self.console.append(json.dumps(said)[:300])
        if event.get("method") == "Network.requestWillBeSent":
            url = said["request"]["url"]
            if not url.startswith(("file:", "data:", "blob:", "about:")):
                self.asked_for.append(url)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._heard:
            data = os.read(self._in, 1 << 16)
            if not data:
                raise SystemExit("Chromium ended.")
            self._heard += data
        line, self._heard = self._heard.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        return message


def opened(page: Path, blank: Path, folder: Path, opens: int) -> dict[str, Any]:
    """Open the pages in turn in one browser; return what it said, medians in s."""
    browser = Browser(folder)
    urls = {"page": page.as_uri(), "at charts": f"{page.as_uri()}#latency", "blank": blank.as_uri()}
    times: dict[str, list[list[float]]] = {name: [] for name in urls}
    charts = 0
    for _ in range(opens):
        for name, url in urls.items():
            taken, count = browser.opened(url)
            times[name].append(taken)
            charts = max(charts, count)
    browser.close()
    return {
        "charts": charts,
        "opens": {
            name: {
                part: round(statistics.median(one[place] for one in taken), 2)
                for place, part in enumerate(_PARTS)
            }
            for name, taken in times.items()
        },
        "console": browser.console,
        "asked_for": browser.asked_for,
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="The size of a study's page, and how it opens.")
    parser.add_argument("--users", default="10,50,100")
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--opens", type=int, default=5)
    parser.add_argument("--out", type=Path, help="where the study lies, or is left; else removed")
    given = parser.parse_args()
    users = [int(count) for count in given.users.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        study = (given.out or Path(temporary)).resolve() / "study"
        began = time.monotonic()
        if not study.exists():
            write_study(study, users, given.seconds)
        made_s, began = time.monotonic() - began, time.monotonic()
        document, page = rebuild(study)
        built_s = time.monotonic() - began
        blank = Path(temporary) / "blank.html"
        blank.write_text(BLANK)
        requests = [
            level["requests"]["completed"] for level in document["best"]["summary"]["levels"]
        ]
        found = {
            "requests": requests,
            "page_bytes": page.stat().st_size,
            "made_s": round(made_s, 1),
            "report_s": round(built_s, 1),
            "load_average": os.getloadavg()[0],
            **opened(page, blank, Path(temporary) / "browser", given.opens),
        }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
