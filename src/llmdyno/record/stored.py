"""What servers keep of responses: a request may bring only what is new, and name what it follows.

Texts are in memory alone, and only those of the latest responses.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import msgspec

from llmdyno.record.answers import Answer
from llmdyno.record.prompts import item_texts

CHARACTERS_MAX = 256 * 2**20  # those of a turn before are counted again, though they are shared


class Earlier(msgspec.Struct, frozen=True):
    """What a request goes on with."""

    messages: tuple[str, ...] = ()  # of all turns before, the answers too, without instructions
    session: int | None = None  # None: it goes on with nothing that is known


class Stored:
    """Remembers each response by its id, and each conversation that the server keeps by its own.

    Args:
        characters_max: of all texts; the oldest are forgotten.
    """

    def __init__(self, characters_max: int = CHARACTERS_MAX) -> None:
        self._characters_max = characters_max
        self._characters = 0
        self._known: OrderedDict[str, tuple[Earlier, int]] = OrderedDict()  # with its characters

    def before(self, body: Mapping[str, Any]) -> Earlier:
        """Return what the request of a body goes on with."""
        name = _text(body.get("previous_response_id")) or _conversation(body)
        return self._known[name][0] if name in self._known else Earlier()

    def keep(self, body: Mapping[str, Any], earlier: Earlier, session: int, answer: Answer) -> None:
        """Remember a response, unless the server was told not to store it.

        Args:
            body: of its request.
            earlier: what that went on with.
            session: the conversation that it belongs to.
            answer: what came back.
        """
        names = [name for name in (answer.name, _conversation(body)) if name]
        if not names or body.get("store") is False or answer.error:
            return
        messages = (*earlier.messages, *item_texts(body.get("input")), *answer.messages)
        now = Earlier(messages, session)
        characters = sum(map(len, messages))
        for name in names:
            self._characters += characters - self._known.pop(name, (now, 0))[1]
            self._known[name] = (now, characters)
        while self._characters > self._characters_max:
            _, (_, gone) = self._known.popitem(last=False)
            self._characters -= gone


def _conversation(body: Mapping[str, Any]) -> str:
    """Return the id of a conversation that the server keeps; empty: the request names none."""
    named = body.get("conversation")
    return _text(named.get("id") if isinstance(named, dict) else named)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
