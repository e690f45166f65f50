"""Names that say whose they are."""

import pytest

from llmdyno.tune.whose import is_for, own_knobs, own_words, parted

OWNERS = ("vllm", "sglang", "my.engine", "native")


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("sglang:page_size", ("sglang", "page_size")),
        ("my.engine:size=1/2", ("my.engine", "size=1/2")),
        ("page_size", ("", "page_size")),
        ("url=http://host", ("", "url=http://host")),
        ("vlm:page_size", ("", "vlm:page_size")),
        ("vllm", ("", "vllm")),
    ],
)
def test_only_a_name_of_the_study_is_an_owner(word: str, found: tuple[str, str]) -> None:
    assert parted(word, OWNERS) == found


def test_what_is_said_of_one_comes_before_what_is_said_of_all() -> None:
    config = {"vllm:size": 2, "size": 1, "sglang:size": 3, "native:other": 4, "nobodys": 5}
    names = {"size", "other"}

    assert own_knobs(config, OWNERS, ("vllm", "native"), names) == {"size": 2, "other": 4}
    assert own_knobs(config, OWNERS, ("my.engine", "native"), names) == {"size": 1, "other": 4}


def test_a_name_is_for_those_who_have_it_and_are_meant() -> None:
    mine, names = ("vllm", "native"), {"size"}

    assert is_for("size", OWNERS, mine, names)
    assert is_for("vllm:size", OWNERS, mine, names)
    assert not is_for("sglang:size", OWNERS, mine, names)
    assert not is_for("vllm:other", OWNERS, mine, names)


def test_words_are_in_their_order() -> None:
    words = ("vllm:--a", "sglang:--b", "vllm:--c=d:e")

    assert own_words(words, OWNERS, "vllm") == ("--a", "--c=d:e")
