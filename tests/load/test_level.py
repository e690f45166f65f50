"""When a level's requests start, rest and end: exact moments, in virtual time."""

import asyncio
import gc
import time
import weakref
from itertools import pairwise

import pytest

from llmdyno.load.level import Level, rare_collections
from llmdyno.records.entries import LevelEnded, LevelStarted, Record, Tick
from virtual_time import Played, Reply, Server, play

OK = Reply(0.1)
BROKEN = Reply(0.1, status=500)


def gaps_s(records: list[Record]) -> list[float]:
    """Return the pauses between the end of one request and the start of the next."""
    return [
        (after.sent_ns - before.sent_ns - before.end_ns) / 1e9
        for before, after in pairwise(records)
    ]


def end_of(played: Played) -> LevelEnded:
    (end,) = [entry for entry in played.entries if isinstance(entry, LevelEnded)]
    return end


# Users.


def test_users_start_evenly_over_the_ramp_and_the_first_at_once() -> None:
    played = play(Server([Reply(100.0)]), users=5, ramp_s=10.0, duration_s=20.0, grace_s=0.0)

    assert played.sent_s == [0.0, 2.0, 4.0, 6.0, 8.0]
    (start,) = [entry for entry in played.entries if isinstance(entry, LevelStarted)]
    assert (start.start_ns, start.ramp_ns) == (0, 10_000_000_000)


def test_a_user_thinks_between_two_requests_and_not_before_the_first() -> None:
    played = play(Server([Reply(0.25)]), requests=4, think_s=3.0)

    assert played.sent_s == pytest.approx([0.0, 3.25, 6.5, 9.75])
    assert [record.due_ns for record in played.records] == [
        record.sent_ns for record in played.records
    ]


def test_think_times_are_drawn_from_their_range_anew_and_alike_for_the_same_user() -> None:
    first, second = (
        gaps_s(play(Server([OK]), requests=30, think_s=(1.0, 5.0)).records) for _ in range(2)
    )

    assert first == second
    assert len(set(first)) == 29
    assert 1.0 <= min(first) < 2.0
    assert 4.0 < max(first) <= 5.0


def test_so_many_requests_end_a_level_whoever_sends_them() -> None:
    played = play(Server([Reply(1.0)]), users=4, requests=6)

    assert played.sent_s == [0.0] * 4 + [1.0] * 2
    assert end_of(played).end_ns == 2_000_000_000
    assert end_of(played).full_until_ns == 1_000_000_000  # a user found none left to send
    assert played.progress.duration_s is None
    assert played.progress.requests == 6


# Pauses after a failure.


def test_a_user_backs_off_further_with_each_failure_and_recovers() -> None:
    replies = [BROKEN] * 8 + [OK, OK, BROKEN, OK]

    played = play(Server(replies), requests=12)

    backoff_s = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert gaps_s(played.records) == pytest.approx([*backoff_s, 0.0, 0.0, 0.1])


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("said", "rest_s"), [("7", 7.0), ("0.01", 0.1), ("3600", 60.0)])
def test_retry_after_is_honoured_within_reason(status: int, said: str, rest_s: float) -> None:
    refusal = Reply(0.1, status=status, headers={"retry-after": said})

    played = play(Server([refusal, OK]), requests=2)

    assert gaps_s(played.records) == pytest.approx([rest_s])


def test_a_user_who_cannot_connect_backs_off_too() -> None:
    played = play(Server([OK], connect_s=0.5, refused=2), requests=3)

    assert [record.error for record in played.records] == ["refused", "refused", ""]
    # Sent is when it began to connect; the third one, when it had.
    assert played.sent_s == pytest.approx([0.0, 0.6, 1.3 + 0.5])


# One connection a user.


def test_a_connection_is_kept_for_the_next_request() -> None:
    server = Server([OK])

    play(server, users=3, requests=30)

    assert len(server.exchanges) == 3
    assert not any(exchange.usable for exchange in server.exchanges)


def test_a_request_is_sent_again_on_a_new_connection_if_a_kept_one_was_closed() -> None:
    stale = Reply(0.1, error="reset")
    server = Server([OK, stale, OK])

    played = play(server, requests=2)

    assert [record.outcome for record in played.records] == ["completed", "completed"]
    assert server.requests == 3
    assert len(server.exchanges) == 2


def test_a_request_is_not_sent_again_if_the_connection_was_new() -> None:
    server = Server([Reply(0.1, error="no-response"), OK])

    played = play(server, requests=2)

    assert [record.error for record in played.records] == ["no-response", ""]
    assert server.requests == 2


# The end.


def test_requests_in_flight_may_finish_within_the_grace() -> None:
    played = play(Server([Reply(4.0)]), users=2, duration_s=10.0, grace_s=3.0)

    assert {record.outcome for record in played.records} == {"completed"}
    assert played.sent_s == [0.0] * 2 + [4.0] * 2 + [8.0] * 2
    assert end_of(played).full_until_ns == 10_000_000_000
    assert end_of(played).end_ns == 12_000_000_000


def test_requests_in_flight_are_cut_after_the_grace() -> None:
    played = play(Server([Reply(9.0)]), users=2, duration_s=10.0, grace_s=3.0)

    assert [record.outcome for record in played.records] == ["completed"] * 2 + ["cut"] * 2
    assert [record.end_ns for record in played.records[2:]] == [4_000_000_000] * 2
    assert end_of(played).end_ns == 13_000_000_000
    assert not end_of(played).interrupted


def test_who_still_waits_for_a_connection_is_cut_too() -> None:
    played = play(Server([OK], connect_s=60.0), users=2, duration_s=10.0, grace_s=3.0)

    assert [(record.outcome, record.end_ns) for record in played.records] == [
        ("cut", 13_000_000_000)
    ] * 2


def test_nobody_who_thinks_or_backs_off_holds_up_the_end() -> None:
    hour = {"retry-after": "3600"}
    thinking = play(Server([OK]), users=2, duration_s=5.0, think_s=600.0)
    refused = play(Server([Reply(0.1, status=429, headers=hour)]), users=2, duration_s=5.0)
    ramping = play(Server([OK]), users=2, duration_s=5.0, ramp_s=4.0, think_s=600.0)

    assert [end_of(played).end_ns for played in (thinking, refused, ramping)] == [5 * 10**9] * 3


def test_a_request_has_its_timeout_and_ends_its_connection() -> None:
    server = Server([Reply(100.0)])

    played = play(server, users=2, requests=4, timeout_s=20.0)

    assert [record.error for record in played.records] == ["timeout"] * 4
    assert [record.end_ns for record in played.records] == [20_000_000_000] * 4
    assert len(server.exchanges) == 4


def test_an_interruption_cuts_at_once() -> None:
    async def interrupt(level: Level) -> None:
        await asyncio.sleep(3.5)
        level.interrupt()

    played = play(Server([Reply(2.0)]), users=2, duration_s=600.0, meanwhile=interrupt)

    assert [record.outcome for record in played.records] == ["completed"] * 2 + ["cut"] * 2
    assert end_of(played).interrupted
    assert end_of(played).end_ns == end_of(played).full_until_ns == 3_500_000_000


# Limits on errors.


def test_so_many_errors_end_a_level() -> None:
    played = play(Server([BROKEN]), users=4, duration_s=3000.0, max_errors=6)

    # Those that had failed in the same moment are records, too.
    assert 6 <= sum(record.outcome == "failed" for record in played.records) <= 9
    assert end_of(played).stopped == "6 requests failed, as many as --max-errors allows"
    assert end_of(played).end_ns < 10**9


def test_a_share_of_errors_ends_a_level_once_there_are_enough_to_judge() -> None:
    def mixed(period: int) -> Server:
        return Server(lambda number: OK if number % period else BROKEN)

    ended = play(mixed(4), users=5, requests=90, max_error_rate=0.2)
    went_on = play(mixed(10), users=5, requests=90, max_error_rate=0.2)

    assert 50 <= sum(record.outcome != "cut" for record in ended.records) < 70
    assert "more than --max-error-rate 0.2 allows" in end_of(ended).stopped
    assert len(went_on.records) == 90


def test_a_share_of_errors_is_judged_as_soon_as_there_are_enough_requests() -> None:
    played = play(Server([BROKEN] * 30 + [OK]), requests=200, max_error_rate=0.5)

    assert len(played.records) == 10
    assert end_of(played).stopped.startswith("100 % of the last 10 requests failed")


def test_a_share_of_errors_is_judged_for_few_users_and_requests() -> None:
    half = Server(lambda number: OK if number % 2 else BROKEN)

    surely = play(half, users=5, requests=30, max_error_rate=0.1)
    at_its_end = play(half, users=5, requests=30, max_error_rate=0.4)
    within = play(half, users=5, requests=30, max_error_rate=0.5)

    assert 10 <= sum(record.outcome != "cut" for record in surely.records) < 20
    assert "more than --max-error-rate 0.1 allows" in end_of(surely).stopped
    assert len(at_its_end.records) == 30
    assert end_of(at_its_end).stopped.startswith("50 % of the last 30 requests failed")
    assert end_of(within).stopped == ""


def test_a_level_that_ends_by_time_is_judged_whole_however_few_requests_it_had() -> None:
    slow = Server(lambda number: Reply(20.0) if number % 3 else BROKEN)

    played = play(slow, users=2, duration_s=60.0, grace_s=60.0, max_error_rate=0.2)

    assert len(played.records) < 10
    assert "more than --max-error-rate 0.2 allows" in end_of(played).stopped


# An open loop.


def test_arrivals_are_sent_when_they_are_due_whatever_the_server_takes() -> None:
    due_s = [0.0, 0.5, 0.5, 7.25, 60.0]

    played = play(Server([Reply(30.0)]), due_s=due_s, duration_s=61.0, grace_s=60.0)

    assert played.sent_s == due_s
    assert [record.due_ns for record in played.records] == [round(s * 1e9) for s in due_s]
    assert len({record.user for record in played.records[:4]}) == 4  # a slot each


def test_an_open_loop_takes_the_slot_that_was_freed_last() -> None:
    server = Server([Reply(0.5)])

    played = play(server, due_s=[0.0, 0.0, 1.0, 2.0, 3.0], duration_s=4.0)

    assert len(server.exchanges) == 2
    assert [record.user for record in played.records[2:]] == [1, 1, 1]


def test_what_waits_for_a_slot_keeps_its_due_time() -> None:
    played = play(Server([Reply(1.0)]), due_s=[0.0, 0.1, 0.2, 0.3], max_concurrency=1, requests=4)

    assert played.sent_s == [0.0, 1.0, 2.0, 3.0]
    assert [record.due_ns for record in played.records] == [0, 10**8, 2 * 10**8, 3 * 10**8]
    assert end_of(played).unsent == 0


def test_what_never_got_a_slot_is_counted() -> None:
    due_s = [number / 10 for number in range(20)]

    played = play(
        Server([Reply(0.5)]), due_s=due_s, max_concurrency=1, duration_s=2.0, interval_s=0.75
    )

    assert played.sent_s == [0.0, 0.5, 1.0, 1.5]
    assert end_of(played).unsent == 16
    assert [due_ns / 10**8 for due_ns in end_of(played).unsent_due_ns] == list(range(4, 20))
    waiting = [entry.waiting for entry in played.entries if isinstance(entry, Tick)]
    assert waiting[0] == 6  # at 0.75 s eight were due, two of them sent


def test_a_duration_goes_on_after_the_last_arrival() -> None:
    played = play(Server([OK]), due_s=[1.0], duration_s=30.0)

    assert end_of(played).end_ns == end_of(played).full_until_ns == 30_000_000_000


# Ticks.


def test_ticks_come_every_interval_and_at_the_end() -> None:
    played = play(
        Server([Reply(1.0)]), users=3, duration_s=2.2, interval_s=0.5, ramp_s=1.2, grace_s=0.0
    )
    ticks = [entry for entry in played.entries if isinstance(entry, Tick)]

    assert [tick.t_ns for tick in ticks] == pytest.approx([5e8, 10e8, 15e8, 20e8, 22e8])
    assert [tick.users for tick in ticks] == [2, 3, 3, 3, 0]
    assert set(ticks[2].loop_lags_us) == {0}  # nothing is late on this loop


def test_minutes_take_seconds() -> None:
    began_s = time.monotonic()

    played = play(Server([Reply(60.0)]), users=2, duration_s=300.0, grace_s=0.0)

    assert end_of(played).end_ns == 300_000_000_000
    assert time.monotonic() - began_s < 30


# Garbage.


class Ring:
    def __init__(self) -> None:
        self.own = self


def test_what_a_level_has_left_is_collected_before_the_next_and_not_in_it() -> None:
    with rare_collections():
        before = weakref.ref(Ring())

    with rare_collections():
        assert before() is None
        within = weakref.ref(Ring())
        assert gc.get_threshold()[0] >= 100_000
        assert within() is not None
