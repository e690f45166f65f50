"""Our own traces: JSON lines or CSV of due_s, prompt or input_tokens, and perhaps output_tokens."""

from collections.abc import Collection

from llmdyno.workload.dataset import Row
from llmdyno.workload.traces import Trace, TracedRequest


class Plain:
    """The plain format: times in seconds, and each prompt's text or its length."""

    name = "plain"

    def recognises(self, columns: Collection[str]) -> bool:
        """Tell by the names of the columns whether a file is of this format."""
        return "due_s" in columns and bool({"prompt", "input_tokens"} & set(columns))

    def request(self, row: Row) -> TracedRequest:
        """Return a row's request."""
        return TracedRequest(
            due_s=float(row["due_s"]),
            prompt=str(row.get("prompt") or ""),
            input_tokens=int(row.get("input_tokens") or 0),
            output_tokens=int(row["output_tokens"]) if row.get("output_tokens") else None,
        )


TRACE: Trace = Plain()
