"""Mooncake's traces: JSON lines of timestamp (ms), input_length, output_length and hash_ids.

github.com/kvcache-ai/Mooncake, FAST25-release/traces. Each hash id stands for a block of 512 tokens
and all that came before it, so prompts with equal leading ids begin alike. In the variant with
sessions, rows of one session_id are its turns in order: a later one may have a delay (ms) after the
turn before instead of a timestamp, and the tokens of what is new in it alone.
"""

from collections.abc import Collection

from llmdyno.workload.dataset import Row
from llmdyno.workload.traces import Trace, TracedRequest


class Mooncake:
    """The format of Mooncake: times in milliseconds, prompts as the hashes of their blocks."""

    name = "mooncake"

    def recognises(self, columns: Collection[str]) -> bool:
        """Tell by the names of the columns whether a file is of this format."""
        lengths = {"input_length", "output_length"} <= set(columns)
        return lengths and bool({"timestamp", "session_id"} & set(columns))

    def request(self, row: Row) -> TracedRequest:
        """Return a row's request."""
        session = row.get("session_id")
        delay_ms = row.get("delay") if row.get("timestamp") is None else None
        first = session is not None and delay_ms is None and row.get("timestamp") is None
        return TracedRequest(
            due_s=0.0 if first or delay_ms is not None else float(row["timestamp"]) / 1e3,
            delay_s=None if delay_ms is None else float(delay_ms) / 1e3,
            session="" if session is None else str(session),
            adds_to_session=session is not None,
            input_tokens=int(row["input_length"]),
            output_tokens=int(row["output_length"]),
            blocks=tuple(map(str, row.get("hash_ids") or ())),
        )


TRACE: Trace = Mooncake()
