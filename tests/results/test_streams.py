"""How answers reached the client: which shapes of a stream that is held back are seen as one."""

from collections.abc import Sequence

import pytest

from llmdyno.records.columns import Columns
from llmdyno.records.entries import Record
from llmdyno.results.capacity import MARGIN_MAX, measured_point
from llmdyno.results.delivered import Asked
from llmdyno.results.slo import parse_slos
from llmdyno.results.streams import comes_whole, of_rounds, stream_part, without_token_times
from llmdyno.results.summary import level_document
from llmdyno.units import Lengths
from results.run_facts import MS, columns_of, level_facts, record

Reads = Sequence[tuple[float, int]]  # after how many ms, with how many tokens


def answer(number: int, reads: Reads, *, sent_ms: float = 0.0) -> Record:
    tokens = tuple(count for _, count in reads)
    gaps_ns = tuple(round(gap_ms * MS) for gap_ms, _ in reads)
    return record(number, sent_ms, gaps_ns=gaps_ns, tokens=tokens, output_tokens=sum(tokens))


def answers(reads: Reads, *, count: int = 10) -> Columns:
    return columns_of(*(answer(n, reads, sent_ms=100.0 * n) for n in range(count)))


def buffered(total: int, size: int, itl_ms: float) -> Reads:
    """Return the reads of an answer through a buffer that holds so many tokens."""
    whole, rest = divmod(total, size)
    return [(size * itl_ms, size)] * whole + ([(rest * itl_ms, rest)] if rest else [])


TOKEN_BY_TOKEN: Reads = [(200.0, 1), *[(10.0, 1)] * 63]


@pytest.mark.parametrize(
    "reads",
    [
        [(800.0, 64)],
        # What one write of a proxy may become on the way: packets, a read of the head with a few.
        [(800.0, 3), (0.2, 40), (0.4, 21)],
        [(800.0, 30), (0.3, 30), (2.0, 4)],
        [(80.0, 16)],
    ],
)
def test_an_answer_in_one_piece_is_whole(reads: Reads) -> None:
    found = stream_part(answers(reads), 0.2, None)

    assert (found["answers"], found["whole"], found["pieces"]) == (10, 10, 0)
    assert comes_whole(found, 10)


@pytest.mark.parametrize(
    "reads",
    [
        [(500.0, 32), (300.0, 32)],
        [(400.0, 20), (200.0, 22), (200.0, 22)],
        [(200.0, 1), (640.0, 63)],  # the first goes through, the rest is held back
        *(buffered(400, size, 12.0) for size in (8, 18, 35, 75)),  # of 4, 8 and 16 KiB
        [(400.0, 10), (0.2, 8), (200.0, 12), (0.1, 6)],  # pieces that the network split
    ],
)
def test_large_pieces_are_seen(reads: Reads) -> None:
    found = stream_part(answers(reads), 0.2, None)

    assert (found["answers"], found["whole"], found["pieces"]) == (10, 0, 10)
    assert found["tokens_per_read"] >= 8
    assert not comes_whole(found, 10)


@pytest.mark.parametrize(
    ("reads", "late_ms"),
    [
        (TOKEN_BY_TOKEN, 0.2),
        ([(200.0, 1), *[(1.0, 1)] * 100], 0.2),  # 1,000 tokens a second
        ([(200.0, 1), *[(4.0, 10)] * 20], 0.2),  # a fast server between two looks of the client
        ([(200.0, 1), *[(50.0, 5)] * 20], 0.2),  # speculative decoding
        ([(200.0, 5)], 0.2),  # a short answer
        ([(9.0, 64)], 0.2),  # whole, and in less time than anyone can look at
        ([(200.0, 64)], 60.0),  # the client did not look in time
        ([(200.0, 1), *[(160.0, 16)] * 4], 60.0),
        # One stall on the way.
        ([*TOKEN_BY_TOKEN, (300.0, 30), *TOKEN_BY_TOKEN[1:]], 0.2),
    ],
)
def test_others_are_not_accused(reads: Reads, late_ms: float) -> None:
    found = stream_part(answers(reads), late_ms, None)

    assert (found["whole"], found["pieces"], found["tokens_per_read"]) == (0, 0, None)


def test_requests_are_judged_one_by_one_and_only_those_that_completed() -> None:
    cut = record(98, 0, gaps_ns=(800 * MS,), tokens=(64,), output_tokens=64, outcome="cut")
    nothing = record(99, 0, gaps_ns=(), outcome="failed", end_ns=MS)
    columns = columns_of(
        *(answer(n, [(800.0, 64)] if n % 4 == 0 else TOKEN_BY_TOKEN) for n in range(20)),
        nothing,
        cut,
    )

    found = stream_part(columns, 0.2, None)

    assert found == {"answers": 20, "whole": 5, "pieces": 0, "tokens_per_read": 64}
    assert stream_part(columns_of(nothing), 0.2, None)["answers"] == 0


def test_one_chunk_without_a_count_is_an_answer_where_a_length_was_asked() -> None:
    columns = columns_of(*(record(n, 0, gaps_ns=(800 * MS,), source="chunks") for n in range(5)))

    assert stream_part(columns, 0.2, 64.0)["whole"] == 5
    assert (
        stream_part(columns, 0.2, None)["answers"] == stream_part(columns, 0.2, 4.0)["whole"] == 0
    )


def test_rounds_are_added_up() -> None:
    one = {"answers": 4, "whole": 1, "pieces": 2, "tokens_per_read": 20.0}
    other = {"answers": 6, "whole": 0, "pieces": 0, "tokens_per_read": None}

    assert of_rounds([one, other]) == {
        "answers": 10,
        "whole": 1,
        "pieces": 2,
        "tokens_per_read": 20,
    }


def test_a_level_of_whole_answers_has_no_ttft_and_its_slo_is_not_met() -> None:
    slos = parse_slos("ttft:p99<5s")
    whole = [answer(n, [(800.0, 64)], sent_ms=100.0 * n) for n in range(30)]
    facts = level_facts(*whole, seconds=4.0)

    level = level_document(facts, 1.0, slos, asked=Asked(osl=Lengths("fixed", 64)))

    for name in ("ttft_ms", "itl_ms", "tpot_ms"):
        assert level[name]["p50"] is level["whole"][name]["p99"] is None
    assert level["ttft_ms"]["n"] > 0
    assert level["e2e_ms"]["p50"] == 800
    assert level["token_rate"]["mean"] > 0
    assert level["goodput"] is None
    assert {row["ttft_ms_p50"] for row in level["samples"]} == {None}
    assert measured_point(facts, slos).margin == MARGIN_MAX
    (e2e,) = parse_slos("e2e:p99<5s")
    assert measured_point(facts, [e2e]).margin < 0


def test_goodput_stays_where_no_limit_needs_the_stream() -> None:
    measured = {"ttft_ms": {"p50": 1.0, "n": 3}, "e2e_ms": {"p50": 2.0}, "goodput": {"mean": 1.0}}

    kept = without_token_times(measured, parse_slos("e2e<2s"))

    assert (kept["goodput"], kept["e2e_ms"]) == ({"mean": 1.0}, {"p50": 2.0})
    assert (kept["ttft_ms"]["p50"], kept["ttft_ms"]["n"]) == (None, 3)
    assert measured["ttft_ms"]["p50"] == 1.0
