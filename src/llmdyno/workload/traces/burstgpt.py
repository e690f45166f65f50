"""BurstGPT's traces: CSV of Timestamp (s), Model, Request tokens, Response tokens and more.

github.com/HPMLL/BurstGPT. A request that failed then has a response of 0 tokens: it is left out.
"""

from collections.abc import Collection

from llmdyno.workload.dataset import Row
from llmdyno.workload.traces import Trace, TracedRequest


class BurstGPT:
    """The format of BurstGPT: times in seconds, lengths without texts."""

    name = "burstgpt"

    def recognises(self, columns: Collection[str]) -> bool:
        """Tell by the names of the columns whether a file is of this format."""
        return {"Timestamp", "Request tokens", "Response tokens"} <= set(columns)

    def request(self, row: Row) -> TracedRequest | None:
        """Return a row's request, or None if it failed."""
        output_tokens = int(row["Response tokens"])
        if not output_tokens:
            return None
        return TracedRequest(
            due_s=float(row["Timestamp"]),
            input_tokens=int(row["Request tokens"]),
            output_tokens=output_tokens,
        )


TRACE: Trace = BurstGPT()
