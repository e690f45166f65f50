"""What a load point says of all its rounds, and of requests that began before its window."""

from pathlib import Path
from typing import Any, Literal

import msgspec

from llmdyno import spec
from llmdyno.records.columns import Collector, Window
from llmdyno.records.entries import (
    Entry,
    GpuSample,
    LevelEnded,
    LevelStarted,
    Opened,
    Record,
    Scrape,
    Tick,
)
from llmdyno.records.journal import Journal
from llmdyno.report.documents import Run
from llmdyno.report.doubts import of_run
from llmdyno.results.measures import distribution
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.summary import summarise

SECOND = 1_000_000_000
TOKENS = 50
REQUESTS = 20


def _scrape(level: int, moment: Literal["before", "after"], tokens: int) -> Scrape:
    values = {"output_tokens": float(tokens), "running": 1.0}
    return Scrape(level=level, t_ns=level * 60 * SECOND, moment=moment, kind="vllm", values=values)


def _request(level: int, number: int, sent_ns: int, error: str) -> Record:
    return Record(
        level=level,
        request=number,
        user=0,
        prompt=number,
        due_ns=sent_ns,
        sent_ns=sent_ns,
        end_ns=SECOND,
        outcome="failed" if error else "completed",
        error=error,
        detail=f"in round {level + 1}" if error else "",
        gaps_ns=(20_000_000,) * TOKENS,
        output_tokens=TOKENS,
        source="usage",
        reads=TOKENS,
    )


def _round(level: int, *, error: str, lag_ms: int, throttle: int, lost: int) -> list[Entry]:
    start_ns = level * 60 * SECOND
    counted = level * (REQUESTS + 1) * TOKENS
    entries: list[Entry] = [
        _scrape(level, "before", counted),
        LevelStarted(level=level, users=1, start_ns=start_ns, ramp_ns=0, repeat=level),
    ]
    for number in range(REQUESTS):
        sent_ns = start_ns + number * SECOND
        entries.append(_request(level, number, sent_ns, ""))
        entries.append(
            Tick(
                level=level,
                t_ns=sent_ns + SECOND,
                users=1,
                in_flight=1,
                cpu_s=0.01 * number,
                loop_lags_us=(lag_ms * 1000,) * 50,
            )
        )
    end_ns = start_ns + (REQUESTS + 1) * SECOND
    entries += [
        _request(level, REQUESTS, start_ns + REQUESTS * SECOND, error),
        LevelEnded(level=level, end_ns=end_ns, full_until_ns=end_ns),
        _scrape(level, "after", counted + (REQUESTS + 1) * TOKENS + lost),
        GpuSample(
            level=level,
            t_ns=end_ns,
            gpu=0,
            use=0.5 + 0.5 * level,
            memory_mib=1000.0 * (level + 1),
            power_w=None,
            clock_mhz=None,
            temperature_c=None,
            throttle=throttle,
        ),
    ]
    return entries


def _summary(folder: Path, *rounds: list[Entry]) -> dict[str, Any]:
    journal = Journal(folder / "journal.jsonl")
    asked = spec.Bench(url="http://h", repeat=len(rounds), load=spec.Load(users=(1,)))
    journal.append(
        Opened(
            run="r",
            started="2026-11-24T00:00:00+00:00",
            spec=msgspec.to_builtins(asked),
            environment={},
        )
    )
    for entries in rounds:
        for entry in entries:
            journal.append(entry)
    journal.close()
    return summarise(journal.path)


def test_what_went_wrong_in_a_later_round_is_said_of_the_whole(tmp_path: Path) -> None:
    summary = _summary(
        tmp_path,
        _round(0, error="reset", lag_ms=0, throttle=0, lost=0),
        _round(1, error="timeout", lag_ms=15, throttle=0x40, lost=500),
    )

    (level,) = summary["levels"]

    assert {fault: said["example"] for fault, said in level["faults"].items()} == {
        "reset": "in round 1",
        "timeout": "in round 2",
    }
    assert "ttft_ms" in level["doubtful"]
    assert all(reason.startswith("round 2: ") for reason in level["client"]["reasons"])
    told = 2 * (REQUESTS + 1) * TOKENS
    assert level["server"]["tokens"]["server"] == told + 500
    assert level["server"]["tokens"]["client"] == told
    assert "more than 0.5 % apart" in level["server"]["notes"][0]
    (gpu,) = level["gpu"]
    assert (gpu["samples"], gpu["use_mean"], gpu["memory_mib_max"]) == (2, 0.75, 2000.0)
    assert gpu["throttled"] == {"heat (hardware)": 0.5}


def test_tokens_that_were_not_streamed_are_in_no_rate_and_no_latency(tmp_path: Path) -> None:
    def hiding(entry: Entry) -> Entry:
        if not isinstance(entry, Record):
            return entry
        return msgspec.structs.replace(entry, unstreamed=5, oddities=("usage-below-stream",))

    rounds = [_round(n, error="", lag_ms=0, throttle=0, lost=0) for n in range(2)]
    hidden = [[hiding(entry) for entry in one] for one in rounds]
    (tmp_path / "plain").mkdir()

    plain = _summary(tmp_path / "plain", *rounds)
    summary = _summary(tmp_path, *hidden)

    (level,), (of_plain,) = summary["levels"], plain["levels"]
    requests = 2 * (REQUESTS + 1)
    assert level["tokens"]["output"] == requests * TOKENS
    assert level["tokens"]["unstreamed"] == 5 * requests
    assert level["tokens"]["oddities"] == {"usage-below-stream": requests}
    assert level["server"]["tokens"]["client"] == requests * (TOKENS + 5)
    for metric in ("token_rate", "tpot_ms", "itl_ms", "e2e_ms"):
        assert level[metric] == of_plain[metric]
    spoilt = {doubt["code"]: doubt["metrics"] for doubt in summary["doubts"]}
    assert spoilt["unstreamed-tokens"] == [
        *("token_rate", "cost_per_million_output", "cost_per_million_total", "joules_per_token"),
    ]
    assert "tpot_ms" in spoilt["usage-below-stream"]
    assert not {"unstreamed-tokens", "usage-below-stream"} & {
        doubt["code"] for doubt in plain["doubts"]
    }


def test_first_tokens_of_requests_sent_before_the_window_are_told_apart() -> None:
    collector = Collector()
    for number in range(10):
        collector.add(_request(0, number, number * SECOND // 100, ""))  # a first token 20 ms later
    window = Window(start_ns=45_000_000, end_ns=SECOND, method="test")

    observed = BY_NAME["ttft_ms"].observe
    assert observed is not None
    found = observed(collector.columns(), window)

    # Sent at 30 and 40 ms, their first tokens came at 50 and 60.
    assert (len(found.values), found.sent_before) == (7, 2)
    document = distribution(found)
    assert document["sent_before"] == 2
    level = {"ttft_ms": document, "requests": {"completed": 10, "failed": 0, "cut": 0}}
    doubts = of_run(Run(name="r", summary={"levels": [{"users": 1, **level}]}))
    assert any("28.6 % of the times to first token" in doubt for doubt in doubts)
