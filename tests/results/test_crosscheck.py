"""What servers say of themselves, set against what the client saw: pages, notes, a real server."""

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from conftest import last_json
from llmdyno.bench import gpu, scraper, server_metrics
from llmdyno.bench.gpu import is_local, read_line
from llmdyno.engines.openvino import ENGINE
from llmdyno.machine import hardware
from llmdyno.processes.ports import free_port
from llmdyno.processes.server import start
from llmdyno.records.entries import GpuSample, Scrape
from llmdyno.results.crosscheck import ClientSide, gpu_part, server_part, shared_tokens
from llmdyno.wire.target import parse_url
from metrics_pages import PAGES, page
from scripted_server import Client, plain, scripted

Dyno = Callable[..., subprocess.CompletedProcess[str]]
Streamer = Callable[..., str]


def seen(**more: Any) -> ClientSide:
    """Return what a client saw that agrees with one hundred requests of metrics_pages."""
    facts = {
        "input_tokens": 30_000,
        "output_tokens": 10_000,
        "requests": 100,
        "cut": 0,
        "failed": 0,
        "ttft_ms_mean": 201.0,
        "source": "usage",
        "input_tokens_shared": 15_000,
        "late_ms_p50": 0.2,
    }
    return ClientSide(**{**facts, **more})


def scrapes(kind: str, before: int = 1, after: int = 2, **more: Any) -> list[Scrape]:
    moments: list[tuple[Literal["before", "during", "after"], int]] = [
        ("before", before),
        ("during", before),
        ("after", after),
    ]
    return [scraped(page(kind, hundreds=hundreds, **more), moment) for moment, hundreds in moments]


def scraped(text: bytes, moment: Literal["before", "during", "after"] = "before") -> Scrape:
    server = server_metrics.recognise(text)
    assert server is not None
    values = server_metrics.read_page(text, server)
    return Scrape(level=0, t_ns=0, moment=moment, kind=server.kind, values=values)


# Reading pages


@pytest.mark.parametrize("kind", PAGES)
def test_every_name_of_a_servers_table_is_on_its_page(kind: str) -> None:
    (server,) = (server for server in server_metrics.pages() if server.kind == kind)

    found = scraped(page(kind, hundreds=3))

    assert found.kind == kind
    assert set(found.values) == set(server.series)
    if "requests" in server.series:
        assert found.values["requests"] == 300
        assert found.values["running"] == 8
    if "output_tokens" in server.series:
        assert found.values["output_tokens"] == 30_000
        assert found.values["input_tokens"] == 90_000
    if "ttft_sum_s" in server.series:
        assert found.values["ttft_sum_s"] / found.values["ttft_count"] == pytest.approx(0.2)
    if "queue_sum_s" in server.series:
        assert found.values["queue_sum_s"] / found.values["queue_count"] == pytest.approx(0.1)
    if "kv_use" in server.series:
        assert found.values["kv_use"] == 0.25


def test_an_engine_behind_a_front_is_read_as_the_engine() -> None:
    both = page("bentoml", hundreds=1) + page("vllm", hundreds=1)

    assert scraped(both).kind == "vllm"


def test_a_page_that_is_torn_or_odd_gives_what_can_be_read() -> None:
    odd = (
        b"# HELP vllm:generation_tokens_total vllm:generation_tokens_total 7\r\n"
        b'vllm:generation_tokens_total{text="a \\"}{ b"} 12 1700000000000\r\n'
        b"vllm:generation_tokens_total{broken 5\n"
        b"vllm:generation_tokens_total\n"
        b"vllm:num_requests_running NaN\n"
        b"vllm:num_requests_waiting +Inf\n"
        b"vllm:prompt_tokens_total many\n"
        b'vllm:request_success_total{} 3\nvllm:request_success_total{finished_reason="st'
    )

    assert scraped(odd).values == {"output_tokens": 12, "requests": 3}
    assert server_metrics.recognise(b'[{"iteration": 1}]') is None
    assert server_metrics.recognise(b"") is None


def test_a_server_without_metrics_or_one_that_hangs_costs_nothing_more() -> None:
    async def nothing(client: Client) -> None:
        while True:
            await client.request()
            await client.send(plain("404 Not Found", b"no"), pause_s=0)

    async def hangs(client: Client) -> None:
        await client.request()
        await asyncio.sleep(60)

    async def find(script: Callable[[Client], Any]) -> scraper.Scraper | None:
        async with scripted(script) as url, asyncio.timeout(8):
            return await scraper.find(parse_url(url), "openai-chat")

    assert asyncio.run(find(nothing)) is None
    assert asyncio.run(find(hangs)) is None


@pytest.mark.parametrize(
    ("url_path", "page_path"), [("/v1x", "/metrics"), ("", "/prometheus/metrics")]
)
def test_the_page_is_found_where_servers_put_it(url_path: str, page_path: str) -> None:
    async def server(client: Client) -> None:
        while True:
            await client.request()
            found = client.path == page_path
            body = page("tensorrt-llm", hundreds=1) if found else b""
            await client.send(plain("200 OK" if found else "404 Not Found", body), pause_s=0)

    async def find() -> list[Scrape]:
        notes: list[Scrape] = []
        enough = asyncio.Event()

        def note(entry: Scrape) -> None:
            notes.append(entry)
            if len(notes) == 2:
                enough.set()

        async with scripted(server) as url:
            found = await scraper.find(parse_url(url + url_path), "openai-chat")
            assert found is not None
            async with found.around(4, 0, 0.01, note), asyncio.timeout(30):
                await enough.wait()
            found.close()
        return notes

    notes = asyncio.run(find())

    assert [note.moment for note in notes][:2] == ["before", "during"]
    assert notes[-1].moment == "after"
    assert {note.level for note in notes} == {4}
    assert notes[0].values["output_tokens"] == 10_000


# What is made of them


@pytest.mark.parametrize("kind", ["vllm", "sglang", "lmdeploy", "tensorrt-llm", "triton"])
def test_a_server_that_agrees_gives_figures_and_one_note(kind: str) -> None:
    part = server_part([scrapes(kind)], seen())

    assert part is not None
    assert part["kind"] == kind
    assert part["tokens"] == {"server": 10_000, "client": 10_000, "difference": 0.0}
    assert part["ttft_ms"] == {"server_mean": 200.0, "client_mean": 201.0}
    assert part["queue_ms_mean"] == 100.0
    # Half of its TTFT is queueing: that is flagged, and nothing else is.
    assert [note for note in part["notes"] if "queue" not in note] == []
    assert len(part["notes"]) == 1


DIFFERENCES: dict[str, tuple[dict[str, Any], dict[str, Any], str | None]] = {
    "tokens within the bound": ({"output_tokens": 9_951}, {}, None),
    "tokens lost": ({"output_tokens": 9_900}, {}, "not explained: doubt the token rate"),
    "cut": ({"output_tokens": 9_900, "cut": 3}, {}, "3 requests were cut"),
    "chunks": ({"output_tokens": 5_000, "source": "chunks"}, {}, "counts chunks"),
    "others": ({"output_tokens": 9_000, "requests": 90}, {}, "not only ours"),
    "network": ({"ttft_ms_mean": 260.0}, {}, "60.0 ms longer than the server's"),
    "ttft within the bound": ({"ttft_ms_mean": 219.0}, {}, None),
    "ttft shorter": ({"ttft_ms_mean": 150.0}, {}, "longer than the client's"),
    "queue": ({}, {"queue_s": 6.0}, "waited 60 ms in the server's queue"),
    "warm cache": ({"input_tokens_shared": 3_000}, {}, "shares 10 % at most"),
    "cache as expected": ({"input_tokens_shared": 14_000}, {}, None),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_difference_is_explained_or_flagged(name: str) -> None:
    client, server, words = DIFFERENCES[name]
    part = server_part([scrapes("vllm", **{"queue_s": 1.0, **server})], seen(**client))

    assert part is not None
    if words is None:
        assert part["notes"] == []
    else:
        (note,) = part["notes"]
        assert words in note


def test_a_server_started_anew_gives_no_false_difference() -> None:
    part = server_part([scrapes("vllm", before=5, after=1)], seen())

    assert part is not None
    assert "tokens" not in part
    assert "started anew" in part["notes"][0]


def test_a_level_that_broke_off_says_that_it_cannot_be_checked() -> None:
    part = server_part([scrapes("vllm")[:2]], seen())

    assert part is not None
    assert "could not be read before and after" in part["notes"][0]
    assert server_part([], seen()) is None


def test_what_a_workload_shares_is_never_taken_for_a_warm_cache() -> None:
    fresh = [(0, 500), (1, 520), (2, 600)]

    assert shared_tokens(fresh, frozenset(), prefix_shared=True) == 3 * 500
    assert shared_tokens(fresh, frozenset(), prefix_shared=False) == 3 * 64
    assert shared_tokens([(0, 500), (0, 500)], frozenset(), prefix_shared=False) == 64 + 500
    assert shared_tokens([(0, 500)], frozenset({0}), prefix_shared=False) == 500
    assert shared_tokens([(0, -1)], frozenset(), prefix_shared=True) is None


def test_a_cache_that_helps_as_the_workload_lets_it_is_said_too() -> None:
    told = {"output_tokens": 10_000.0, "prefix_queries": 1_000.0, "prefix_hits": 800.0}
    moments: tuple[Literal["before", "after"], ...] = ("before", "after")
    read = [
        Scrape(
            level=0,
            t_ns=0,
            moment=moment,
            kind="vllm",
            values=dict.fromkeys(told, 0.0) if moment == "before" else told,
        )
        for moment in moments
    ]

    part = server_part([read], seen(input_tokens_shared=27_000))

    assert part is not None
    (note,) = part["notes"]
    assert note.startswith(
        "80 % of the input tokens came from the prefix cache, as prompts of this"
    )


# Real servers


def test_the_embedded_server_counts_as_the_client_does(
    dyno: Dyno, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    launch = ENGINE.launch("tiny", {}, artifact=None, host="127.0.0.1", port=free_port("127.0.0.1"))
    with start(launch, log=tmp_path / "server.log", progress=lambda _: None):
        done = dyno(
            *("bench", "--url", launch.url, "--model", launch.model, "-c", "2,4", "--ramp", "0s"),
            *("--requests", "16", "--osl", "16", "--interval", "200ms", "--json"),
        )
    assert done.returncode == 0, done.stderr
    document = last_json(done.stdout)

    for level in document["levels"]:
        told = level["server"]
        assert told["kind"] == "llmdyno"
        assert told["tokens"] == {"server": 256, "client": 256, "difference": 0.0}
        assert told["input_tokens"]["server"] == level["tokens"]["input"]
        assert told["requests"] == {"server": 16, "client": 16}
        # The server's clock stands inside the client's.
        assert 0 < told["ttft_ms"]["server_mean"] < told["ttft_ms"]["client_mean"]
    assert any("server" in row for level in document["levels"] for row in level["samples"])
    assert "Server (llmdyno)" in done.stderr


def test_a_run_can_leave_the_servers_metrics_alone(streamer: Streamer, dyno: Dyno) -> None:
    url = streamer("--ttft", "5ms", "--itl", "1ms")
    arguments = ("bench", "--url", url, "-c", "2", "--requests", "6", "--osl", "4", "--json")

    told, untold = dyno(*arguments), dyno(*arguments, "--no-scrape")

    (level,) = last_json(told.stdout)["levels"]
    assert level["server"]["kind"] == "streamer"
    assert level["server"]["tokens"] == {"server": 24, "client": 24, "difference": 0.0}
    (level,) = last_json(untold.stdout)["levels"]
    assert "server" not in level


# GPUs

# Lines of nvidia-smi on an H200 (driver 580): idle; the second is made up, at its power limit, as
# are the UUIDs.
SMI = (
    "0, 0, 0, 123.98, 1980, 39, 0x0000000000000001, GPU-1a2b3c4d-0000-0000-0000-000000000000\n",
    "1, 98, 91234, 699.1, 1455, 71, 0x04, GPU-5e6f7a8b-0000-0000-0000-000000000000\n",
)


def test_a_gpus_samples_are_read_and_throttling_is_flagged() -> None:
    idle, limited = (read_line(line, 0, 7) for line in SMI)
    assert idle is not None
    assert limited is not None
    assert (idle.use, idle.power_w, idle.clock_mhz, idle.temperature_c) == (0, 123.98, 1980, 39)

    first, second = gpu_part([idle, idle, limited])

    assert (first["gpu"], first["samples"], first["throttled"], first["notes"]) == (0, 2, {}, [])
    assert second["use_mean"] == 0.98
    assert second["throttled"] == {"the power limit": 1.0}
    assert second["notes"] == ["GPU 1 was held back by the power limit in 100 % of the samples"]


def test_what_is_no_sample_is_none_and_what_is_unknown_is_unknown() -> None:
    assert read_line("NVIDIA-SMI has failed\n", 0, 0) is None
    sample = read_line("0, [N/A], 12, [Not Supported], 100, 30, [N/A], GPU-1\n", 0, 0)
    assert sample is not None
    assert (sample.use, sample.power_w, sample.throttle) == (None, None, 0)


@pytest.mark.parametrize(
    ("setting", "seen"),
    [
        (None, [0, 1]),
        ("1", [1]),
        ("0,1", [0, 1]),
        ("GPU-5e6f", [1]),
        ("", []),
        ("-1", []),
        ("1,-1,0", [1]),
        ("MIG-5e6f7a8b", [0, 1]),  # of which GPU it is a part cannot be told
    ],
)
def test_only_gpus_that_cuda_shows_us_are_sampled(setting: str | None, seen: list[int]) -> None:
    variables = {} if setting is None else {"CUDA_VISIBLE_DEVICES": setting}
    shown = hardware.shown_gpus(variables)

    samples = [read_line(line, 0, 0, shown) for line in SMI]

    assert [sample.gpu for sample in samples if sample is not None] == seen


def test_this_machine_is_known_from_others() -> None:
    assert is_local("127.0.0.1")
    assert is_local("localhost")
    assert not is_local("192.0.2.1")  # TEST-NET-1: nobody's
    assert not is_local("no-such-host.invalid")


def test_nvidia_smi_runs_beside_a_level_and_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program of that name that writes what it writes; the real one needs a GPU.

    It is also what the sampler through NVML falls back on where there is no driver.
    """
    pid = tmp_path / "pid"
    program = tmp_path / "nvidia-smi"
    both = "".join(SMI).strip()
    program.write_text(
        f"#!/bin/sh\necho $$ > {pid}\nwhile true; do echo '{both}'; sleep 0.1; done\n"
    )
    program.chmod(0o755)
    assert gpu.sampler()[1:] == ["-m", "llmdyno.bench.nvml"]
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    samples: list[GpuSample] = []

    async def level() -> None:
        third = asyncio.Event()

        def note(sample: GpuSample) -> None:
            samples.append(sample)
            if len(samples) == 3:
                third.set()

        async with gpu.around(3, 0, 0.1, note):
            await third.wait()

    asyncio.run(asyncio.wait_for(level(), 20))

    assert {(sample.level, sample.gpu) for sample in samples} == {(3, 1)}
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()
