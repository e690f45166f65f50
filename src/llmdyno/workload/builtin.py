"""The prompts that come with the package: some 250 short varied ones, and a system prompt."""

from pathlib import Path

import msgspec

from llmdyno.spec import CHAT_OUTPUT_TOKENS
from llmdyno.workload.sessions import Item, Session


def chat_prompts(system_prompt: str) -> list[Session]:
    """Return all chat prompts, each a session of one turn behind this system prompt."""
    rows = map(msgspec.json.decode, _text("chat.jsonl").splitlines())
    return [
        (
            Item(
                number=number,
                prompt=row["prompt"],
                system_prompt=system_prompt,
                max_tokens=CHAT_OUTPUT_TOKENS,
            ),
        )
        for number, row in enumerate(rows)
    ]


def long_system_prompt() -> str:
    """Return a system prompt of about 500 tokens."""
    return _text("system_prompt.txt").strip()


def _text(name: str) -> str:
    return Path(__file__).with_name("data").joinpath(name).read_text(encoding="utf-8")
