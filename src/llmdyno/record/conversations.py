"""Which requests belong to one conversation: what a client names, or who goes on with what.

A request whose messages begin with all those of an earlier one goes on with its conversation. The
answer tells apart two conversations that began with the same words. Only hashes are kept.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

_KNOWN_MAX = 100_000  # messages after which a conversation may go on
_ALIKE_MAX = 256  # prompts that begin alike; the latest ones are compared
_BEGINNING_CHARACTERS = 64


class Conversations:
    """Numbers the conversations in the order in which they began.

    Args:
        key: of the hashes under which names and texts are remembered.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._count = 0
        self._turns: dict[int, int] = {}
        self._ends: OrderedDict[bytes, int] = OrderedDict()  # the hash of all messages so far
        # The beginning of a prompt → the prompts that begin so: their length and hash.
        self._prompts: OrderedDict[bytes, OrderedDict[tuple[int, bytes], int]] = OrderedDict()

    def of_messages(
        self,
        messages: Sequence[str],
        answer: Sequence[str],
        *,
        known: int | None = None,
        named: str = "",
        user: str = "",
    ) -> tuple[int, int]:
        """Return the conversation of a chat request, and which turn of it this is, from 0.

        Args:
            messages: each as a text that says who speaks, too.
            answer: as such texts, as it will stand among the messages of the next turn.
            known: the conversation, if the request names an answer that it goes on with.
            named: the conversation's name, if the client gives one.
            user: the user's name, if the client gives one.
        """
        ends = self._chain([*messages, *answer])
        before = [end for end in ends[: max(0, len(messages) - 1)] if end in self._ends]
        if known is None and before:
            known = self._ends[before[-1]]
        session = self._continued(self._of_name("session", named) if named else known, user)
        for end in ends[max(0, len(messages) - 1) :]:
            _remember(self._ends, end, session, _KNOWN_MAX)
        return session, self._turn(session)

    def of_prompt(
        self, prompt: str, answer: str, *, named: str = "", user: str = ""
    ) -> tuple[int, int]:
        """Return the conversation of a completion request, and which turn of it this is.

        Args:
            prompt: of the request.
            answer: the text that the model added.
            named: the conversation's name, if the client gives one.
            user: the user's name, if the client gives one.
        """
        alike = self._prompts.setdefault(
            self._digest(prompt[:_BEGINNING_CHARACTERS]), OrderedDict()
        )
        session = self._continued(
            self._of_name("session", named) if named else self._begun(prompt, alike), user
        )
        for text in (prompt, prompt + answer):
            _remember(alike, (len(text), self._digest(text)), session, _ALIKE_MAX)
        if len(self._prompts) > _KNOWN_MAX:
            self._prompts.popitem(last=False)
        return session, self._turn(session)

    def _begun(self, prompt: str, alike: OrderedDict[tuple[int, bytes], int]) -> int | None:
        """Return the conversation of the longest known prompt with which this one begins."""
        found = None
        hasher = self._hasher()
        done = 0
        for length, digest in sorted(alike):
            if length >= len(prompt):
                break
            hasher.update(_encoded(prompt[done:length]))
            done = length
            if hasher.copy().digest() == digest:
                found = alike[length, digest]
        return found

    def _continued(self, found: int | None, user: str) -> int:
        """Return the conversation that was found, that of the user, or a new one."""
        if found is not None:
            return found
        named = self._of_name("user", user) if user else None
        return named if named is not None else self._new()

    def _of_name(self, kind: str, name: str) -> int:
        key = self._digest(f"{kind}\0{name}")
        session = self._ends.get(key)
        if session is None:
            session = self._new()
        _remember(self._ends, key, session, _KNOWN_MAX)
        return session

    def _new(self) -> int:
        self._count += 1
        return self._count - 1

    def _turn(self, session: int) -> int:
        turn = self._turns.pop(session, -1) + 1
        self._turns[session] = turn  # last, so that the oldest are forgotten first
        if len(self._turns) > _KNOWN_MAX:
            self._turns.pop(next(iter(self._turns)))
        return turn

    def _chain(self, messages: Sequence[str]) -> list[bytes]:
        """Return for each message the hash of all up to it."""
        ends: list[bytes] = []
        before = b""
        for message in messages:
            before = self._hasher(before + _encoded(message)).digest()
            ends.append(before)
        return ends

    def _digest(self, text: str) -> bytes:
        return self._hasher(_encoded(text)).digest()

    def _hasher(self, data: bytes = b"") -> "hashlib.blake2b":
        return hashlib.blake2b(data, digest_size=12, key=self._key)


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _remember(known: OrderedDict[Any, int], key: Any, session: int, most: int) -> None:
    """Remember a key as the latest; forget the oldest one if there are too many."""
    known[key] = session
    known.move_to_end(key)
    if len(known) > most:
        known.popitem(last=False)
