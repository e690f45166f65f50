"""The sentence about a stream that is held back, and when it is said."""

import pytest

from llmdyno.results.stream_checks import about_stream
from report_samples import level


def said(answers: int, whole: int, pieces: int) -> str:
    one = level(10, rate=420, ttft_ms=510)
    one["stream"] = {
        "answers": answers,
        "whole": whole,
        "pieces": pieces,
        "tokens_per_read": 20.0 if whole + pieces else None,
    }
    return " ".join(text for _, text in about_stream(one))


def test_what_comes_whole_says_so_and_which_setting_mends_it() -> None:
    text = said(420, 412, 8)

    assert text.startswith("412 of 420 answers of 8 tokens or more came whole, in one read")
    assert "TTFT, ITL and TPOT mean nothing here" in text
    for setting in (
        *("proxy_buffering off;", "X-Accel-Buffering: no", "gzip", "option http-no-delay"),
        *("flushpackets=on", "flush_interval -1", "response_buffering=false", "buffer-response"),
    ):
        assert setting in text


@pytest.mark.parametrize(("whole", "pieces"), [(100, 0), (0, 420), (5, 0), (3, 2)])
def test_some_or_pieces_are_doubtful(whole: int, pieces: int) -> None:
    text = said(420, whole, pieces)

    assert text.startswith(f"{whole + pieces} of 420 answers of 8 tokens or more came in one read")
    assert "(20.0 tokens a read in the median)" in text


@pytest.mark.parametrize(("answers", "whole"), [(420, 4), (20, 1), (0, 0), (1, 0)])
def test_one_of_many_may_be_a_stall(answers: int, whole: int) -> None:
    assert not said(answers, whole, 0)


def test_the_only_answer_counts() -> None:
    assert said(1, 1, 0).startswith("1 of 1 answer")


def test_a_level_that_does_not_say_how_each_came_is_judged_by_its_means() -> None:
    one = level(10, rate=420, ttft_ms=510)
    assert not about_stream(one)
    one["client"]["tokens_per_read"] = 47.0

    ((code, text),) = about_stream(one)

    assert code == "held-back-stream"
    assert text.startswith("answers of 48.0 tokens come with 47.0 tokens a read")
