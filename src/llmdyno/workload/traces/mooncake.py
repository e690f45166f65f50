"""Mooncake's traces: JSON lines of timestamp (ms), input_length, output_length and hash_ids.

github.com/kvcache-ai/Mooncake, FAST25-release/traces. Each hash id stands for a block of 512 tokens
and all that came before it, so prompts with equal leading ids begin alike.
"""

from collections.abc import Collection

from llmdyno.workload.dataset import Row
from llmdyno.workload.traces import Trace, TracedRequest


class Mooncake:
    """The format of Mooncake: times in milliseconds, prompts as the hashes of their blocks."""

    name = "mooncake"

    def recognises(self, columns: Collection[str]) -> bool:
        """Tell by the names of the columns whether a file is of this format."""
        return {"timestamp", "input_length", "output_length"} <= set(columns)

    def request(self, row: Row) -> TracedRequest:
        """Return a row's request."""
        return TracedRequest(
            due_s=float(row["timestamp"]) / 1e3,
            input_tokens=int(row["input_length"]),
            output_tokens=int(row["output_length"]),
            blocks=tuple(map(str, row.get("hash_ids") or ())),
        )


TRACE: Trace = Mooncake()
