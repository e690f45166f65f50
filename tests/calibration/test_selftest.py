"""`dyno selftest`: how exact and how fast the client is on this machine."""

import subprocess
from collections.abc import Callable

from conftest import last_json

Dyno = Callable[..., subprocess.CompletedProcess[str]]


def test_the_selftest_says_how_exact_and_how_fast_the_client_is(dyno: Dyno) -> None:
    done = dyno("selftest", "--json")
    assert done.returncode == 0, done.stderr
    document = last_json(done.stdout)

    assert [load["name"] for load in document["loads"]] == ["1 user", "100 users", "burst"]
    for load in document["loads"]:
        assert load["tokens_lost"] == 0
        assert load["requests"] >= 3
        assert load["cpu_us_per_token"] > 0
    assert document["loads"][1]["ttft_error_ms_p50"] < 10  # on any machine that does anything else
    assert document["events_per_s_max"] == document["loads"][2]["events_per_s_max"] > 2000
    assert "on one core" in done.stderr
