"""Tokens are counted by the best source there is, and every record says by which."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from llmdyno.bench.recount import LocalTokenizer, recount
from llmdyno.bench.run import run
from llmdyno.errors import UsageError
from llmdyno.records.entries import LevelStarted, Opened, Record
from llmdyno.records.journal import Journal, read_journal
from llmdyno.spec import Bench, Load
from llmdyno.wire.target import parse_url
from scripted_server import DONE, END, HEAD, STOP, Client, chunk, framed, plain, scripted

TEXTS = ("Hello wor", "ld", " and good", "bye")  # 4 chunks, 4 words, 1 of them in two chunks
STREAM = HEAD + b"".join(framed(chunk(text)) for text in TEXTS) + framed(STOP + DONE) + END
# Every word comes in two chunks.
HALVES = ("Hel", "lo ", "wor", "ld ", "and ", "go", "od", "bye")
STREAM_OF_HALVES = (
    HEAD + b"".join(framed(chunk(half)) for half in HALVES) + framed(STOP + DONE) + END
)


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A tokenizer to which a word is a token, and which puts a mark before each text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "[BOS]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A", special_tokens=[("[BOS]", 1)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def record(texts: tuple[str, ...] = TEXTS, **more: Any) -> Record:
    return Record(
        level=0,
        request=more.pop("request", 0),
        user=0,
        prompt=0,
        due_ns=0,
        sent_ns=0,
        end_ns=100,
        outcome="completed",
        gaps_ns=(10,) * len(texts),
        output_tokens=len(texts),
        texts=texts,
        input_text="four words to count",
        **more,
    )


def counted(answer: Callable[[str, Any], bytes], local: LocalTokenizer | None) -> list[Record]:
    """Count one record again against a server that answers POST /tokenize like that."""
    kept: list[Record] = []

    async def script(client: Client) -> None:
        while True:
            asked, body = await client.asked()
            await client.send(answer(asked, json.loads(body)), pause_s=0)

    async def count() -> None:
        async with scripted(script) as url:
            await recount([record()], parse_url(url), "m", local, kept.append)

    asyncio.run(count())
    return kept


def no_tokenizer(_asked: str, _body: Any) -> bytes:
    return plain("404 Not Found", b"Not Found")


def vllm(asked: str, body: Any) -> bytes:
    assert asked == "POST /tokenize"
    if "prompt" not in body:
        return plain("400 Bad Request", b"{}")
    count = 8 if not body["add_special_tokens"] else 5
    return plain("200 OK", json.dumps({"count": count, "tokens": [1] * count}).encode())


def tgi(_asked: str, body: Any) -> bytes:
    if "inputs" not in body:
        return plain("422 Unprocessable Entity", b"missing field `inputs`")
    tokens = [{"id": 1, "text": "<s>", "start": 0, "stop": 0}]
    tokens += [{"id": 2, "text": word, "start": 0, "stop": 3} for word in body["inputs"].split()]
    return plain("200 OK", json.dumps(tokens).encode())


def test_what_the_tokenizer_finds_is_not_unstreamed(words: Path) -> None:
    def counted(unstreamed: int) -> Record:
        found: list[Record] = []
        target = parse_url("http://127.0.0.1:9")
        local = LocalTokenizer(str(words))
        given = [record(source="chunks", unstreamed=unstreamed)]
        asyncio.run(recount(given, target, "m", local, found.append))
        return found[0]

    # 4 chunks and 4 words: what the usage has beyond them was hidden, or is a special token.
    assert (counted(100).output_tokens, counted(100).unstreamed) == (4, 100)
    assert counted(3).unstreamed == 0
    assert counted(0).unstreamed == 0


def test_a_text_that_is_tokenised_finer_than_it_was_made_holds_the_usage(words: Path) -> None:
    """A model of random weights wrote 256 tokens; its text, tokenised again, had 832."""
    found: list[Record] = []
    texts = ("one two three", " four five", " six")
    given = [record(texts, source="chunks", unstreamed=2)]  # a usage of 5, 6 by the tokenizer
    local = LocalTokenizer(str(words))
    asyncio.run(recount(given, parse_url("http://127.0.0.1:9"), "m", local, found.append))

    (again,) = found
    assert (again.source, again.output_tokens, again.unstreamed) == ("usage", 5, 0)
    assert sum(again.tokens) == 5


def test_vllms_tokenizer_gives_the_total_and_the_text_its_shares() -> None:
    (again,) = counted(vllm, None)

    assert (again.source, again.output_tokens, again.input_tokens) == ("server-tokenizer", 8, 5)
    assert again.tokens == (3, 1, 3, 1)
    assert (again.texts, again.input_text) == ((), "")


def test_tgis_tokenizer_counts_no_mark() -> None:
    (again,) = counted(tgi, None)

    assert (again.source, again.output_tokens, again.input_tokens) == ("server-tokenizer", 4, 4)


def test_a_local_tokenizer_gives_a_token_to_where_it_ends(words: Path) -> None:
    (again,) = counted(no_tokenizer, LocalTokenizer(str(words)))

    # "Hello" | "world" ends in the second chunk | "and" | "goodbye" in the fourth.
    assert (again.source, again.output_tokens) == ("tokenizer", 4)
    assert again.tokens == ()  # one in each
    assert again.gaps_ns == (10, 10, 10, 10)
    assert again.input_tokens == 5  # a prompt has its mark


def test_a_chunk_in_which_no_token_ends_joins_the_next_gap(words: Path) -> None:
    local = LocalTokenizer(str(words / "tokenizer.json"))
    parts = ("one", " tw", "o three four")

    assert asyncio.run(local.count(parts, special=False)) == [1, 0, 3]
    kept: list[Record] = []
    nobody = parse_url("http://127.0.0.1:9")
    asyncio.run(recount([record(parts)], nobody, "m", local, kept.append))
    assert (kept[0].gaps_ns, kept[0].tokens) == ((10, 20), (1, 3))


def test_where_nothing_can_count_the_chunks_stay() -> None:
    assert counted(no_tokenizer, None) == []
    assert counted(lambda *_: STREAM, None) == []  # takes any request for one to generate for


WRONG = {
    "nowhere": (None, "cannot be read: No such file"),
    "garbage": ("{", "is no tokenizer.json"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_tokenizer_that_cannot_be_read_is_one_sentence(name: str, tmp_path: Path) -> None:
    content, said = WRONG[name]
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)

    with pytest.raises(UsageError) as caught:
        LocalTokenizer(str(tmp_path))

    assert said in str(caught.value)
    assert "--tokenizer" in str(caught.value)


def test_a_later_record_takes_the_place_of_the_uncounted_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(Opened(run="r", started="", spec={}, environment={}))
    journal.append(LevelStarted(level=0, users=1, start_ns=0, ramp_ns=0))
    journal.append(record(request=0))
    journal.append(record(request=1))
    journal.append(record(request=0, texts=(), source="tokenizer"))
    journal.close()

    kept = [entry for entry in read_journal(journal.path) if isinstance(entry, Record)]

    assert [(one.request, one.source) for one in kept] == [(0, "tokenizer"), (1, "chunks")]


def test_a_run_without_usage_is_counted_and_labelled(tmp_path: Path, words: Path) -> None:
    chunks = bench(tmp_path / "chunks", "")
    level = bench(tmp_path / "tokenizer", str(words))

    assert (chunks["tokens"]["source"], chunks["tokens"]["output"]) == ("chunks", 6 * 8)
    assert level["tokens"]["source"] == "tokenizer"
    assert level["tokens"]["output"] == 6 * 4
    assert level["tokens"]["input"] >= 6
    assert level["requests"]["completed"] == 6


def bench(folder: Path, tokenizer: str) -> dict[str, Any]:
    """Run six requests against a server that has no usage; return the only level."""

    async def script(client: Client) -> None:
        while True:
            asked, _ = await client.asked()
            refused = plain("404 Not Found", b"")
            await client.send(STREAM_OF_HALVES if "chat" in asked else refused, pause_s=0)

    async def serve(urls: Queue[str], stop: threading.Event) -> None:
        async with scripted(script) as url:
            urls.put(url)
            await asyncio.to_thread(stop.wait)

    urls: Queue[str] = Queue()
    stop = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve(urls, stop)))
    thread.start()
    try:
        spec = Bench(
            url=urls.get(timeout=10),
            endpoint="openai-chat",
            model="m",
            tokenizer=tokenizer,
            load=Load(users=(2,), requests=6, ramp_s=0.0),
        )
        level: dict[str, Any] = run(spec, folder).summary["levels"][0]
        return level
    finally:
        stop.set()
        thread.join()
