"""Who goes on with whose conversation: by what was said, by a name, by the user."""

from llmdyno.record.conversations import Conversations


def test_who_begins_with_all_that_was_said_goes_on() -> None:
    known = Conversations(b"k")

    assert known.of_messages(["s", "hi"], ["hello"]) == (0, 0)
    assert known.of_messages(["s", "other"], ["hello"]) == (1, 0)
    assert known.of_messages(["s", "hi", "hello", "more"], ["well"]) == (0, 1)
    assert known.of_messages(["s", "hi", "hello", "more", "well", "and"], ["so"]) == (0, 2)
    assert known.of_messages(["s", "hi", "another answer", "more"], ["x"]) == (0, 3)
    assert known.of_messages(["s", "hi"], ["hello"]) == (2, 0)  # the same again is a new one


def test_the_answer_tells_two_apart_that_began_alike() -> None:
    known = Conversations(b"k")
    known.of_messages(["hi"], ["one"])
    known.of_messages(["hi"], ["two"])

    assert known.of_messages(["hi", "one", "go on"], ["x"]) == (0, 1)
    assert known.of_messages(["hi", "two", "go on"], ["x"]) == (1, 1)


def test_a_name_goes_before_what_was_said_and_a_user_after_it() -> None:
    known = Conversations(b"k")
    known.of_messages(["hi"], ["a"])

    assert known.of_messages(["hi", "a", "b"], ["c"], named="n") == (1, 0)
    assert known.of_messages(["unlike"], ["c"], named="n") == (1, 1)
    assert known.of_messages(["hi", "a", "d"], ["e"], user="u") == (0, 1)
    assert known.of_messages(["first of u"], ["e"], user="u") == (2, 0)
    assert known.of_messages(["second of u"], ["e"], user="u") == (2, 1)
    assert known.of_messages(["n as a user"], ["e"], user="n") == (3, 0)


def test_a_prompt_that_goes_on_with_another_is_its_next_turn() -> None:
    known = Conversations(b"k")
    system = "a long system prompt that all have, longer than the beginning that is looked up. "

    assert known.of_prompt(f"{system}one", " 1") == (0, 0)
    assert known.of_prompt(f"{system}two", " 2") == (1, 0)
    assert known.of_prompt(f"{system}one 1 more", " 3") == (0, 1)
    assert known.of_prompt(f"{system}two and more", " 3") == (1, 1)
    assert known.of_prompt(f"{system}three", "") == (2, 0)


def test_only_the_latest_are_remembered() -> None:
    known = Conversations(b"k")
    known.of_prompt("p" * 70, "")
    for number in range(200):
        known.of_prompt("p" * 64 + f"{number:03}", "a")

    assert known.of_prompt("p" * 64 + "199" + "a" + "more", "")[0] == 200
    assert known.of_prompt("p" * 71, "") == (201, 0)  # its beginning is forgotten
