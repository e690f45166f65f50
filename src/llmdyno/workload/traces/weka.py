"""Weka's traces of coding agents, which AIPerf replays too: one JSON object a session.

github.com/callanjfox/kv-cache-tester. `requests` holds the agent's own requests (t in seconds, in
and out in tokens, hash_ids of blocks of block_size tokens) and its sub-agents, with requests of
their own. Their times count from the session's start, or from the sub-agent's: that is so where one
is earlier than its sub-agent. All sessions of a file begin together.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from llmdyno.workload.dataset import Row
from llmdyno.workload.traces import Trace, TracedRequest

_BLOCK_TOKENS = 64


class Weka:
    """The format of kv-cache-tester: sessions with sub-agents, prompts as hashes."""

    name = "weka"

    def recognises(self, columns: Collection[str]) -> bool:
        """Tell by the names of the columns whether a file is of this format."""
        return "requests" in columns and bool({"block_size", "hash_id_scope"} & set(columns))

    def requests(self, row: Row) -> Sequence[TracedRequest]:
        """Return the requests of a row's session, those of its sub-agents among them."""
        rows = list(_flat(row["requests"], relative=_is_relative(row["requests"])))
        return [self._request(row, *each) for each in rows if int(each[1]["out"])]

    def request(self, row: Row) -> TracedRequest | None:
        """Return the first request of a row's session."""
        return next(iter(self.requests(row)), None)

    def _request(self, row: Row, due_s: float, asked: Row, agent: str) -> TracedRequest:
        own = row.get("hash_id_scope", "local") != "global"
        space = f"{row.get('id')}/" if own else ""
        return TracedRequest(
            due_s=due_s,
            input_tokens=int(asked["in"]),
            output_tokens=int(asked["out"]),
            blocks=tuple(f"{space}{block}" for block in asked.get("hash_ids") or ()),
            block_tokens=int(row.get("block_size") or _BLOCK_TOKENS),
            session=f"{row.get('id')}{agent}",
        )


def _is_relative(requests: Sequence[Any]) -> bool:
    """Whether the requests of sub-agents count their time from its beginning."""
    return any(
        float(inner["t"]) < float(outer["t"])
        for outer in requests
        if outer.get("type") == "subagent"
        for inner in outer.get("requests") or ()
    )


def _flat(
    requests: Sequence[Any], *, relative: bool, begin_s: float = 0.0, agent: str = ""
) -> Iterator[tuple[float, Row, str]]:
    """Yield (due in seconds, request, sub-agent) of all requests, however deep they are."""
    for each in requests:
        due_s = begin_s + float(each["t"])
        if each.get("type") == "subagent":
            yield from _flat(
                each.get("requests") or (),
                relative=relative,
                begin_s=due_s if relative else begin_s,
                agent=f"{agent}/{each.get('agent_id', '')}",
            )
        else:
            yield due_s, each, agent


TRACE: Trace = Weka()
