"""Tokens that are held back: a receiver's turn, and what it does to TTFT and TPOT."""

import math

import msgspec
import pytest

from llmdyno.engines import Waking
from llmdyno.knobs import Config
from llmdyno.predict.coarse import solve, stack
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.rules import Ask
from llmdyno.predict.server import Server, Setup, server_of
from llmdyno.predict.shapes import shape_of
from llmdyno.predict.simulated import Point, asked, loads_of, simulated_at
from llmdyno.predict.steptime import MEDIANS
from llmdyno.predict.underway import Request
from llmdyno.predict.wakes import Wakes
from llmdyno.units import Lengths

LENGTHS = Lengths("fixed", 100), Lengths("fixed", 256)
# A wake takes 1 ms while the loop is free; a step keeps it for 4 ms at least and has 1.25 besides.
WAKING = Waking(wake_s=0.001, a_step=1.25, busy_s=0.004)


def _waiting(wakes: Wakes, users: int) -> list[Request]:
    requests = [Request(Ask(10, 0, 5), 0.0, user) for user in range(users)]
    for request in requests:
        wakes.join(request)
        wakes.tell(request, last=False)
    return requests


def test_a_receiver_is_woken_when_all_before_it_were() -> None:
    wakes = Wakes(WAKING)
    _waiting(wakes, 3)
    told = list(wakes.passed(0.0, 0.002, 2.0))
    assert [request.user for request, _, _ in told] == [0, 1]
    assert [moment_s for _, moment_s, _ in told] == pytest.approx([0.001, 0.002])
    assert wakes.next_s() == pytest.approx(0.001)


def test_its_next_turn_comes_after_all_others_and_its_end_then() -> None:
    wakes = Wakes(WAKING)
    first, _ = _waiting(wakes, 2)
    assert len(list(wakes.passed(0.0, 0.0052, 5.2))) == 2
    assert wakes.until_end() == math.inf
    wakes.tell(first, last=True)  # its turns are the wakes 1, 3, 5, 7
    assert wakes.until_end() == pytest.approx(1.8)
    [(told, moment_s, last)] = wakes.passed(0.0052, 0.0102, 5.0)
    assert (told, last) == (first, True)
    assert moment_s == pytest.approx(0.007)


def test_who_waits_for_its_first_token_already_is_told_at_once() -> None:
    wakes = Wakes(WAKING)
    request = Request(Ask(10, 0, 5), 0.0, 0)
    wakes.join(request)
    assert not list(wakes.passed(0.0, 0.05, 50.0))
    wakes.tell(request, last=False)
    [(_, moment_s, _)] = wakes.passed(0.05, 0.06, 10.0)
    assert moment_s == pytest.approx(0.05)


def test_who_is_to_be_told_at_a_moment_is_told_when_it_has_come() -> None:
    """A third of a second is no binary fraction: the wait is over all the same."""
    wakes = Wakes(msgspec.structs.replace(WAKING, wake_s=1 / 3))
    _waiting(wakes, 1)
    begin_s = 0.1
    end_s = begin_s + wakes.next_s()
    assert len(list(wakes.passed(begin_s, end_s, wakes.while_idle(end_s - begin_s)))) == 1


def test_a_step_has_more_wakes_the_longer_the_loop_is_free_in_it() -> None:
    """Beside 1.25 there are those of the time for which the GPU is waited for."""
    wakes = Wakes(WAKING)
    assert wakes.a_step(0.003, 0.002) == pytest.approx(1.25)  # 3 ms of the GPU, 4 of the loop
    assert wakes.a_step(0.006, 0.002) == pytest.approx(1.25 + 2)  # 6 ms less 4
    assert wakes.a_step(0.006, 0.005) == pytest.approx(1.25 + 1)  # 6 ms less the host's 5
    assert wakes.a_step(0.006, 0.040) == pytest.approx(1.25)  # a prompt's kernels are started
    assert wakes.in_steps(4, 0.006, 0.002, prompts=False) == pytest.approx(4 * 3.25)


def test_the_step_before_a_prompts_is_never_free() -> None:
    wakes = Wakes(WAKING)
    wakes.prompt_next = True
    assert wakes.in_steps(4, 0.006, 0.002, prompts=False) == pytest.approx(3 * 3.25 + 1.25)


def test_what_comes_while_a_prompts_kernels_are_started_is_heard_of_a_step_later() -> None:
    wakes = Wakes(WAKING)
    assert wakes.heard_s(1.0) == 1.0
    wakes.in_steps(1, 0.005, 0.040, prompts=True)
    assert wakes.heard_s(1.04) == 1.0
    wakes.in_steps(1, 0.006, 0.002, prompts=False)
    assert wakes.heard_s(1.046) == 1.046
    wakes.in_steps(1, 0.005, 0.040, prompts=True)
    wakes.while_idle(0.1)  # nothing to start: whatever has come is heard of
    assert wakes.heard_s(1.2) == 1.2


def _servers() -> tuple[Server, Server]:
    """Return LMDeploy's PyTorch engine, and the same if it told all streams at once."""
    config: Config = {"backend": "pytorch", "num_gpu_blocks": 2400}
    server = server_of(Setup("lmdeploy", shape_of("llama-3-8b"), gpu_of("h200"), config=config))
    rules = msgspec.structs.replace(server.rules, wakes=None)
    return server, msgspec.structs.replace(server, rules=rules)


def test_a_rate_that_never_settles_counts_from_its_start_where_tokens_come_in_bursts() -> None:
    held, told = _servers()
    point = Point(
        request_rate=30.0, isl=LENGTHS[0], osl=LENGTHS[1], duration_s=9.0, ramp_s=1.0, users=None
    )
    assert [asked(each, point, 0, fill_s=2.0).window_s for each in (held, told)] == [3.0, 3.0]
    assert [asked(each, point, 0, fill_s=7.0).window_s for each in (held, told)] == [1.0, 4.5]


def test_the_coarse_pass_waits_for_a_turn_too() -> None:
    """100 streams, of which each step wakes about 6: one turn in some 17 steps of 7 ms.

    They start far apart: of those who ask together most wait for the prompts of the others.
    """
    servers = _servers()
    point = Point(users=100, isl=LENGTHS[0], osl=LENGTHS[1], duration_s=10.0, ramp_s=8.0)
    found = solve(stack(servers), loads_of(servers, [point, point]), MEDIANS[:, None])
    assert found.ttft_s[0] - found.ttft_s[1] > 0.08
    assert found.ttft_s[1] < 0.12


def test_a_server_that_holds_tokens_back_tells_of_the_first_later_the_more_streams() -> None:
    server, at_once = _servers()
    later = []
    for users in (1, 10, 100):
        point = Point(users=users, isl=LENGTHS[0], osl=LENGTHS[1], duration_s=10.0, ramp_s=0.0)
        held, told = (
            simulated_at(each, point, MEDIANS, together=False, starts=1)
            for each in (server, at_once)
        )
        later.append(held.ttft_ms_p50 - told.ttft_ms_p50)
        assert held.token_rate <= told.token_rate * 1.01
    assert later[0] < 10 < later[1] < 60
    assert later[2] > 100
