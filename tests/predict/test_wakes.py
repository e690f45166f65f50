"""Tokens that are held back: a receiver's turn, and what it does to TTFT and TPOT."""

import msgspec
import pytest

from llmdyno.knobs import Config
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.rules import Ask
from llmdyno.predict.server import Setup, server_of
from llmdyno.predict.shapes import shape_of
from llmdyno.predict.simulated import Point, simulated_at
from llmdyno.predict.steptime import MEDIANS
from llmdyno.predict.underway import Request
from llmdyno.predict.wakes import Wakes
from llmdyno.units import Lengths


def test_a_receiver_is_woken_when_all_before_it_were() -> None:
    wakes = Wakes(0.001)
    requests = [Request(Ask(10, 0, 5), 0.0, user) for user in range(3)]
    for request in requests:
        wakes.join(request)
        wakes.tell(request, last=False)
    told = list(wakes.passed(0.0, 0.002, 0.0))
    assert [request.user for request, _, _ in told] == [0, 1]
    assert [moment_s for _, moment_s, _ in told] == pytest.approx([0.001, 0.002])
    assert wakes.next_s() == pytest.approx(0.001)


def test_its_next_turn_comes_after_all_others_and_its_end_then() -> None:
    wakes = Wakes(0.001)
    first, second = (Request(Ask(10, 0, 5), 0.0, user) for user in (0, 1))
    for request in (first, second):
        wakes.join(request)
        wakes.tell(request, last=False)
    assert len(list(wakes.passed(0.0, 0.0052, 0.0))) == 2
    wakes.tell(first, last=True)  # its turns are the wakes 1, 3, 5, 7
    [(told, moment_s, last)] = wakes.passed(0.0052, 0.0102, 0.0)
    assert (told, last) == (first, True)
    assert moment_s == pytest.approx(0.007)


def test_who_waits_for_its_first_token_already_is_told_at_once() -> None:
    wakes = Wakes(0.001)
    request = Request(Ask(10, 0, 5), 0.0, 0)
    wakes.join(request)
    assert not list(wakes.passed(0.0, 0.05, 0.0))
    wakes.tell(request, last=False)
    [(_, moment_s, _)] = wakes.passed(0.05, 0.06, 0.0)
    assert moment_s == pytest.approx(0.05)


def test_one_is_woken_in_a_step_that_keeps_the_thread_busy() -> None:
    wakes = Wakes(0.001)
    for user in range(4):
        request = Request(Ask(10, 0, 5), 0.0, user)
        wakes.join(request)
        wakes.tell(request, last=False)
    assert len(list(wakes.passed(0.0, 0.03, 0.03))) == 1
    assert len(list(wakes.passed(0.03, 0.06, 0.0275))) == 2


def test_a_server_that_holds_tokens_back_tells_of_the_first_later_the_more_streams() -> None:
    config: Config = {"backend": "pytorch", "num_gpu_blocks": 2400}
    server = server_of(Setup("lmdeploy", shape_of("llama-3-8b"), gpu_of("h200"), config=config))
    at_once = msgspec.structs.replace(
        server, rules=msgspec.structs.replace(server.rules, wake_s=0.0)
    )
    lengths = Lengths("fixed", 100), Lengths("fixed", 256)
    later = []
    for users in (1, 10, 100):
        point = Point(users=users, isl=lengths[0], osl=lengths[1], duration_s=10.0, ramp_s=0.0)
        held, told = (
            simulated_at(each, point, MEDIANS, together=False, starts=1)
            for each in (server, at_once)
        )
        later.append(held.ttft_ms_p50 - told.ttft_ms_p50)
        assert held.token_rate <= told.token_rate * 1.01
    assert later[0] < 10 < later[1] < 60
    assert later[2] > 100
