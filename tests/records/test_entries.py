"""Entries as lines of JSON: what is written is read back, and defaults stay off the disk."""

import msgspec
import pytest

from llmdyno.records.entries import Entry, LevelEnded, Record, Tick, WorkerHost

ENTRIES: tuple[Entry, ...] = (
    Record(
        level=1,
        request=2,
        user=3,
        prompt=4,
        due_ns=5,
        sent_ns=6,
        end_ns=7,
        outcome="completed",
        gaps_ns=(8, 9),
    ),
    Tick(level=0, t_ns=1, users=2, in_flight=3, cpu_s=0.5, loop_lags_us=(1, 2)),
    LevelEnded(level=0, end_ns=10, full_until_ns=9, unsent=3),
    WorkerHost(level=0, worker=1, host="b", clock_uncertainty_ns=5),
)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: type(entry).__name__)
def test_a_line_of_json_gives_the_entry_back(entry: Entry) -> None:
    decoder: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)

    assert decoder.decode(msgspec.json.encode(entry)) == entry


def test_a_record_leaves_out_what_it_does_not_know() -> None:
    keys = set(msgspec.json.decode(msgspec.json.encode(ENTRIES[0])))

    assert {"type", "gaps_ns", "sent_ns"} <= keys
    assert keys.isdisjoint({"error", "status", "tokens", "texts", "input_text", "session"})
