"""Azure's LLM inference traces, 2023 and 2024: CSV of TIMESTAMP, ContextTokens, GeneratedTokens.

github.com/Azure/AzurePublicDataset; the times are dates with seven digits after the second.
"""

from collections.abc import Collection
from datetime import UTC, datetime

from llmdyno.workload.dataset import Row
from llmdyno.workload.traces import Trace, TracedRequest


class Azure:
    """The format of the Azure LLM inference traces: times as dates, lengths without texts."""

    name = "azure"

    def recognises(self, columns: Collection[str]) -> bool:
        """Tell by the names of the columns whether a file is of this format."""
        return {"TIMESTAMP", "ContextTokens", "GeneratedTokens"} <= set(columns)

    def request(self, row: Row) -> TracedRequest:
        """Return a row's request."""
        moment = datetime.fromisoformat(row["TIMESTAMP"])
        if moment.tzinfo is None:  # 2023 has none; only differences count
            moment = moment.replace(tzinfo=UTC)
        return TracedRequest(
            due_s=moment.timestamp(),
            input_tokens=int(row["ContextTokens"]),
            output_tokens=int(row["GeneratedTokens"]),
        )


TRACE: Trace = Azure()
