"""Hidden tokens of which nothing is said, told from chunks of several tokens each."""

import itertools
import random
import re

import pytest

from llmdyno.wire.reply import Reply, count_tokens, unstreamed
from llmdyno.wire.visible import holds_single_tokens

# As a tokenizer of 100,000 words divides it.
ENGLISH = (
    "The| committee| had| re|sched|uled| its| meeting| because| the| aud|itor|'s| report| was|"
    " late|.| Nobody|,| as| far| as| I| know|,| compl|ained|;| the| minutes| of| 2|019| were|"
    " appro|ved|,| and| the| chair|woman| thanked| everyone| who| had| travel|led|.|\n\n|After|"
    " lunch| they| talked| about| the| new| reg|ulations| for| half| an| hour|."
).split("|")
GERMAN = (
    "Die| Ges|ch|wind|ig|ke|its|beg|renz|ung| auf| deut|schen| Aut|ob|ahnen| ist| seit| Jahr|"
    "zehn|ten| Geg|en|stand| pol|it|ischer| Ause|inand|ers|etz|ungen|.| Wissens|chaft|liche|"
    " Unters|uch|ungen| ze|igen| jed|och| dass| nied|rig|ere| Ges|ch|wind|ig|ke|iten| den|"
    " Kraft|stoff|ver|br|auch| ver|ring|ern|."
).split("|")
CODE = (
    "def| read|_events|(|pieces|,| decode|):|\n|   | for| piece| in| pieces|:|\n|       | if|"
    " not| piece|.|data|:|\n|           | continue|\n|       | yield| decode|(|piece|.|data|)"
).split("|")
CHINESE = list("\u4eba\u5de5\u667a\u80fd\u6b63\u5728\u6539\u53d8\u751f\u6d3b" * 4)


def words_of(tokens: list[str]) -> list[str]:
    """Return a text as a server streams it that waits for the end of each word."""
    return re.findall(r"\S*\s+|\S+$", "".join(tokens))


@pytest.mark.parametrize(
    ("tokens", "total"),
    [
        *((ENGLISH, int(len(ENGLISH) * share)) for share in (1.25, 1.5, 2, 2.4)),
        *((CODE, int(len(CODE) * share)) for share in (1.3, 1.5, 2)),
        (["word "] * 60, 61 + 59),
        ([f"tok{n} " for n in range(60)], 180),  # a word of five or six may be two tokens
    ],
)
def test_tokens_that_were_not_streamed_are_told_from_the_texts(
    tokens: list[str], total: int
) -> None:
    reply = Reply(stamps_ns=list(range(1, len(tokens) + 1)), texts=tokens, output_tokens=total)

    assert count_tokens(reply) == ([1] * len(tokens), "chunks")
    assert unstreamed(reply, len(tokens)) == total - len(tokens)


@pytest.mark.parametrize("tokens", [ENGLISH, GERMAN, CODE, CHINESE])
@pytest.mark.parametrize("sizes", [(2,), (3,), (4,), (1, 2), (1, 1, 2, 3)])
def test_several_tokens_a_chunk_are_believed(tokens: list[str], sizes: tuple[int, ...]) -> None:
    draw = random.Random(0)
    for _ in range(20):
        chunks, place = [], 0
        while place < len(tokens):
            count = draw.choice(sizes)
            chunks.append("".join(tokens[place : place + count]))
            place += count

        assert not holds_single_tokens(chunks, len(tokens))


@pytest.mark.parametrize("tokens", [ENGLISH, GERMAN, CODE])
@pytest.mark.parametrize("size", [8, 12, 16, 24, 32])
def test_many_tokens_a_chunk_are_believed(tokens: list[str], size: int) -> None:
    """LMDeploy under load sends 16 and more at once: its text looked like hidden reasoning."""
    text = (tokens * 8)[:256]
    for begin in range(size):
        cuts = [0, *range(begin, 256, size), 256]
        chunks = ["".join(text[one:other]) for one, other in itertools.pairwise(cuts)]
        assert not holds_single_tokens([chunk for chunk in chunks if chunk], 256)


@pytest.mark.parametrize("tokens", [ENGLISH, GERMAN, CODE])
@pytest.mark.parametrize("size", [40, 62, 100, 150])
@pytest.mark.parametrize("after", [0, 30])
def test_one_chunk_of_what_had_gathered_is_believed(
    tokens: list[str], size: int, after: int
) -> None:
    """An API server of vLLM that fell behind sent 193 tokens one by one, and 57 at once."""
    text = (tokens * 8)[:256]
    begin = 256 - after - size
    chunks = [*text[:begin], "".join(text[begin : begin + size]), *text[begin + size :]]
    assert not holds_single_tokens(chunks, 256)


@pytest.mark.parametrize("tokens", [ENGLISH, GERMAN, CODE])
def test_whole_words_are_believed(tokens: list[str]) -> None:
    assert not holds_single_tokens(words_of(tokens), len(tokens))


@pytest.mark.parametrize(
    ("texts", "total"),
    [
        ([" word"] * 7, 40),  # too few chunks
        (ENGLISH, len(ENGLISH) + 7),  # too few tokens beyond them
        (CHINESE, 2 * len(CHINESE)),  # a character may be two tokens
        (["QmFzZTY0IGlz"] * 20, 60),  # no words
    ],
)
def test_what_the_texts_do_not_tell_is_believed(texts: list[str], total: int) -> None:
    assert not holds_single_tokens(texts, total)
