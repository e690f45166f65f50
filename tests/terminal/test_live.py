"""The live lines: redrawn in place on a terminal, a line an interval elsewhere."""

import io

import pytest

from llmdyno.load.progress import Progress
from llmdyno.records.entries import Record
from llmdyno.terminal.live import Live
from llmdyno.wire.exchange import Meter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def completed(number: int, ttft_ms: int) -> Record:
    gaps_ns = (ttft_ms * 1_000_000,)
    return Record(
        level=0,
        request=number,
        user=0,
        prompt=0,
        due_ns=0,
        sent_ns=0,
        end_ns=gaps_ns[0],
        outcome="completed",
        gaps_ns=gaps_ns,
        output_tokens=1,
    )


def progress() -> Progress:
    state = Progress(load="4 users", users=4, in_flight=3, elapsed_s=5.0, duration_s=20.0)
    for number, ttft_ms in enumerate((100, 300, 200)):
        state.add(completed(number, ttft_ms))
    return state


def test_a_file_gets_a_line_an_interval() -> None:
    stream, state = io.StringIO(), progress()
    live = Live([4, 8], interval_s=2.0, stream=stream)

    for elapsed_s in (1.0, 2.5, 3.0, 5.0):
        state.elapsed_s = elapsed_s
        live.show(state, Meter())

    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("level 1/2: 4 users")
    assert "2/20 s" in lines[0]
    assert "users 4  in flight 3  done 3  failed 0" in lines[0]
    assert lines[0].endswith("TTFT p50 200 ms")
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_is_redrawn_in_place() -> None:
    stream, state = Terminal(), progress()
    live = Live([4], interval_s=2.0, label="trial 3", stream=stream)

    live.show(state, Meter())
    live.show(state, Meter())

    assert stream.getvalue().count("trial 3  level 1/1") == 2
    assert stream.getvalue().count("\x1b[2A\x1b[J") == 1  # up again over the two lines


@pytest.mark.parametrize("transient", [True, False])
def test_a_level_that_is_over_stays_or_goes(transient: bool) -> None:
    stream, state = Terminal(), progress()
    live = Live([4], interval_s=2.0, stream=stream, transient=transient)
    live.show(state, Meter())
    drawn = len(stream.getvalue())
    state.phase = "done"

    live.show(state, Meter())

    assert ("level 1/1" in stream.getvalue()[drawn:]) is not transient


def test_requests_and_errors_are_counted_in_words() -> None:
    stream = io.StringIO()
    state = Progress(load="2 users", completed=30, failed=2, errors={"timeout": 2}, requests=64)
    state.phase = "done"

    Live([], interval_s=2.0, stream=stream).show(state, Meter())

    assert "32/64 requests" in stream.getvalue()
    assert "failed 2 (timeout x2)" in stream.getvalue()
    assert stream.getvalue().endswith("TTFT -\n")
