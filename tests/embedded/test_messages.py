"""What the server and its worker say to each other: whole, however the stream is cut."""

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdyno.embedded.messages import (
    LOAD_GAUGES,
    Accepted,
    Cancel,
    Command,
    CommandReader,
    Frames,
    Generate,
    Ids,
    Load,
    Piece,
    Ready,
    Refused,
    Report,
    Sampling,
    Step,
    Tokenize,
    Tokens,
    decode_report,
    frame,
    show_load,
)

GENERATE = Generate(
    id=1,
    prompt=[{"role": "user", "content": "é"}],
    sampling=Sampling(temperature=0.5, top_k=3, seed=2**63 - 1, stop_ids=(7,)),
    stop=("\n",),
)
COMMANDS: list[Command] = [
    GENERATE,
    Generate(id=3, prompt=Ids([1, 2]), max_tokens=5, echo=True),
    Tokenize(id=2, prompt="a", special=True),
    Cancel(id=1),
]
REPORTS: list[Report] = [
    Ready(max_tokens=2048),
    Step(),
    Step(
        accepted=[Accepted(1, 9, "é")],
        refused=[Refused(2, "too long", "prompt", None)],
        tokens=[Tokens(3, [1, 2])],
        pieces=[Piece(1, "é", 2, "stop")],
        load=Load(1, 2, 0.5),
    ),
]


@given(st.integers(1, 50))
def test_reports_arrive_however_the_stream_is_cut(step: int) -> None:
    stream = b"".join(frame(report) for report in REPORTS)
    frames = Frames()

    bodies = [
        body for at in range(0, len(stream), step) for body in frames.feed(stream[at : at + step])
    ]

    assert [decode_report(body) for body in bodies] == REPORTS


def test_a_frame_is_its_length_and_its_body() -> None:
    data = frame(Cancel(id=7))

    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert list(Frames().feed(data[:-1])) == []


def test_the_worker_reads_what_has_come_and_waits_only_if_it_is_told_to() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = CommandReader(theirs)

        assert reader.read(wait=False) == []
        ours.sendall(b"".join(map(frame, COMMANDS)) + frame(Cancel(id=9))[:3])
        assert reader.read(wait=True) == COMMANDS
        ours.sendall(frame(Cancel(id=9))[3:])
        assert reader.read(wait=True) == [Cancel(id=9)]
        ours.close()
        with pytest.raises(EOFError):
            reader.read(wait=True)


def test_every_field_of_the_load_has_its_gauge() -> None:
    class Gauge:
        value = -1.0

        def set(self, value: float) -> None:
            self.value = value

    gauges: dict[str, Any] = {field: Gauge() for field in LOAD_GAUGES}

    show_load(Load(3, 2, 0.25), gauges)

    assert {field: gauge.value for field, gauge in gauges.items()} == {
        "running": 3, "waiting": 2, "kv_use": 0.25,
    }  # fmt: skip
    assert tuple(LOAD_GAUGES) == Load.__struct_fields__
