"""The traces of `dyno record`: JSON lines with a schema, prompts as the hashes of their blocks.

Requests that failed are left out; one that its client cut asks for as many tokens as had come. With
`--keep-text` the very messages are asked again where they are texts of user and assistant in turn.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from llmdyno.records.prefixes import block_lengths
from llmdyno.workload.dataset import Row
from llmdyno.workload.traces import Trace, TracedRequest


class Recorded:
    """The format of `dyno record`: times in seconds, lengths, and which prompts begin alike."""

    name = "recorded"

    def recognises(self, columns: Collection[str]) -> bool:
        """Tell by the names of the columns whether a file is of this format."""
        return {"arrival_s", "hash_ids", "part_characters", "block_characters"} <= set(columns)

    def request(self, row: Row) -> TracedRequest | None:
        """Return a row's request, or None if it failed."""
        if row["outcome"] == "failed":
            return None
        lengths = block_lengths(row["part_characters"], int(row["block_characters"]))
        blocks = tuple(map(str, row["hash_ids"]))
        if len(blocks) != len(lengths):
            raise ValueError(
                f"hash_ids has {len(blocks)} blocks, part_characters makes {len(lengths)}"
            )
        asked = _asked(row.get("body"))
        return TracedRequest(
            due_s=float(row["arrival_s"]),
            input_tokens=max(1, int(row["input_tokens"])),
            output_tokens=max(1, int(row["output_tokens"])),
            blocks=blocks,
            block_weights=tuple(lengths),
            session=str(row["session"]),
            **asked,
        )


def _asked(body: Any) -> dict[str, Any]:
    """Return the texts of a request that was kept with them, if a workload can ask them again."""
    if not isinstance(body, dict):
        return {}
    if isinstance(body.get("prompt"), str):
        return {"prompt": body["prompt"]}
    said = _messages(body)
    system = said.pop(0)[1] if said and said[0][0] == "system" else ""
    roles = [role for role, _ in said]
    if not said or roles != (["user", "assistant"] * len(said))[: len(said)] or not len(said) % 2:
        return {}
    texts = [text for _, text in said]
    pairs: Sequence[tuple[str, str]] = list(zip(texts[:-1:2], texts[1::2], strict=True))
    return {"prompt": texts[-1], "system_prompt": system, "history": tuple(pairs)}


def _messages(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return who says which text, the system first; nothing if the server had the rest of it."""
    if body.get("previous_response_id") or body.get("conversation"):
        return []
    asked = body.get("messages", body.get("input"))
    if isinstance(asked, str):
        asked = [{"role": "user", "content": asked}]
    system = body.get("system") or body.get("instructions")
    first = [{"role": "system", "content": system}] if system else []
    return [_said(message) for message in [*first, *asked]] if isinstance(asked, list) else []


def _said(message: Any) -> tuple[str, str]:
    """Return who says which text; an empty role if it is more than a text."""
    match message:
        case {"tool_calls": called} | {"function_call": called} if called:
            return "", ""
        case {"role": str() as role, "content": str() as text} | {
            "role": str() as role,
            "content": [{"text": str() as text}],
        }:
            return role, text
    return "", ""


TRACE: Trace = Recorded()
