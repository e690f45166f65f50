"""Responses that the server keeps: by id, by conversation, and only the latest."""

from typing import Any

from llmdyno.record.answers import Answer
from llmdyno.record.stored import Earlier, Stored


def answer(name: str, text: str = "rain") -> Answer:
    return Answer(name=name, text=text)


def keep(stored: Stored, body: dict[str, Any], name: str, session: int = 4) -> None:
    stored.keep(body, stored.before(body), session, answer(name))


def test_a_chain_of_responses_has_all_that_was_said() -> None:
    stored = Stored()
    keep(stored, {"input": "one"}, "a")
    keep(stored, {"input": "two", "previous_response_id": "a"}, "b")

    found = stored.before({"input": "three", "previous_response_id": "b"})

    said = ("user\none", "assistant\nrain", "user\ntwo", "assistant\nrain")
    assert found == Earlier(said, 4)


def test_a_conversation_grows_by_each_turn() -> None:
    stored = Stored()
    for text in ("one", "two"):
        keep(stored, {"input": text, "conversation": {"id": "c"}}, "a")

    assert len(stored.before({"conversation": "c"}).messages) == 4


def test_what_is_not_stored_or_unknown_is_not_gone_on_with() -> None:
    stored = Stored()
    keep(stored, {"input": "one", "store": False}, "a")

    assert stored.before({"previous_response_id": "a"}) == Earlier()
    assert stored.before({"previous_response_id": 5, "conversation": [1]}) == Earlier()


def test_the_oldest_are_forgotten() -> None:
    stored = Stored(characters_max=60)
    for name in "abc":
        keep(stored, {"input": "x" * 10}, name)

    known = [name for name in "abc" if stored.before({"previous_response_id": name}).messages]
    assert known == ["b", "c"]  # 29 characters each
