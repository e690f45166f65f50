"""Counts tokens where the server reported no usage: by the server's tokenizer, or by a local one.

After a level, run.py has the completed requests without usage counted by the first of these that
works: the server's own POST /tokenize, a local `--tokenizer` file. The counted record is appended
to the journal and replaces the first one (records.read_journal). A run that is killed before that
keeps its finished requests, with each chunk counted as one token.

The whole text is tokenised, never a chunk alone: a tokenizer puts special tokens around each text,
and splits words differently at its ends.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import msgspec

from llmdyno import files
from llmdyno.bench.prober import Prober
from llmdyno.errors import TargetError, UsageError
from llmdyno.records.entries import Record
from llmdyno.wire.exchange import Response
from llmdyno.wire.reply import SPECIAL_TOKENS_MAX, by_read, spread
from llmdyno.wire.target import Target

# A server without a tokenizer may take any request for one that wants text generated.
_TIMEOUT_S = 10.0
_ALL_S_MAX = 120.0  # for all records of a level; the rest keep their chunk counts
_MARKS_MAX = 16
_KNOWN_MAX = 10_000  # prompts that repeat are counted once


class Counter(Protocol):
    """Counts the tokens of a text: a tokenizer, or a client of one."""

    source: str  # the label of the records that it counted

    async def count(self, texts: Sequence[str], *, special: bool) -> list[int]:
        """Return how many tokens each part of one text has.

        Args:
            texts: the parts; together they are one text.
            special: count the special tokens that the tokenizer puts around a text, too.

        Raises:
            TargetError: the tokens cannot be counted.
        """


class LocalTokenizer:
    """Counts with a tokenizer.json of Hugging Face's tokenizers."""

    source = "tokenizer"

    def __init__(self, path: str) -> None:
        """Load the file, or the tokenizer.json of a folder.

        Raises:
            UsageError: it cannot be read, or the package tokenizers is not installed.
        """
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise UsageError(
                f"--tokenizer {path}: needs the tokenizers package:"
                " pip install 'llmdyno[tokenizers]'."
            ) from error
        file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
        try:
            self._tokenizer = Tokenizer.from_str(files.text(file))
        except files.FileError as error:
            raise UsageError(f"--tokenizer {file}: {error}.") from error
        except Exception as error:  # the package raises no class of its own
            raise UsageError(f"--tokenizer {file}: is no tokenizer.json: {error}.") from error

    async def count(self, texts: Sequence[str], *, special: bool) -> list[int]:
        """Count each token in the part that holds its last character; it never raises."""
        encoding = self._tokenizer.encode("".join(texts), add_special_tokens=special)
        part_ends = list(accumulate(map(len, texts)))
        counts = [0] * len(texts)
        for _, end in encoding.offsets:
            counts[bisect_left(part_ends, end)] += 1
        return counts


Shape = tuple[Callable[[str, str, bool], Mapping[str, Any]], Callable[[Any], int]]

# Requests and responses of POST /tokenize: vLLM, SGLang and ours; Text Generation Inference.
_SHAPES: tuple[Shape, ...] = (
    (
        lambda model, text, special: {
            "model": model,
            "prompt": text,
            "add_special_tokens": special,
        },
        lambda answer: int(answer["count"]),
    ),
    (
        # TGI always adds special tokens; they stand for no character of the text.
        lambda _model, text, special: {"inputs": text, "add_special_tokens": special},
        lambda answer: sum(token["stop"] > token["start"] for token in answer),
    ),
)


class ServerTokenizer:
    """Counts with the server's own tokenizer, which returns only the total of a text."""

    source = "server-tokenizer"

    def __init__(self, prober: Prober, model: str, shape: Shape) -> None:
        self._prober = prober
        self._model = model
        self._body, self._count = shape

    async def count(self, texts: Sequence[str], *, special: bool) -> list[int]:
        """Divide the total among the parts in proportion to their lengths.

        Raises:
            TargetError: the server cannot count.
        """
        body = self._body(self._model, "".join(texts), special)
        response = await self._prober.ask("POST", "/tokenize", msgspec.json.encode(body))
        total = _number(response, self._count)
        # Each token has at least one byte of the text, except a few special tokens.
        if not 0 < total <= len("".join(texts).encode()) + _MARKS_MAX:
            raise TargetError(f"POST /tokenize: status {response.status}, no count of tokens.")
        return spread(total, [len(text) for text in texts])


def _number(response: Response, count: Callable[[Any], int]) -> int:
    """Return the count in a response; 0 if it has none."""
    if response.status != 200:
        return 0
    try:
        return count(msgspec.json.decode(response.body()))
    except (
        msgspec.MsgspecError,
        UnicodeDecodeError,
        KeyError,
        TypeError,
        ValueError,
        RecursionError,
    ):
        return 0


async def recount(
    records: Iterable[Record],
    target: Target,
    model: str,
    local: LocalTokenizer | None,
    sink: Callable[[Record], None],
) -> None:
    """Count the tokens of these records again, for at most two minutes.

    Args:
        records: completed requests with their texts.
        target: the server.
        model: its name in requests.
        local: the tokenizer of `--tokenizer`, used if the server has none.
        sink: takes each counted record.

    Raises:
        StorageError: a record could not be written.
    """
    prober = Prober(target, timeout_s=_TIMEOUT_S)
    # KServe's gRPC protocol has no call that tokenises.
    shapes = () if target.rpc else _SHAPES
    counters: list[Counter] = [ServerTokenizer(prober, model, shape) for shape in shapes]
    if local is not None:
        counters.append(local)
    inputs: dict[str, int] = {}
    end_s = monotonic() + _ALL_S_MAX
    try:
        for record in records:
            if monotonic() > end_s:
                return
            while counters:
                try:
                    counted = await _counted(record, counters[0], inputs)
                except TargetError:
                    counters.pop(0)
                    inputs.clear()
                    continue
                sink(counted)
                break
    finally:
        prober.close()


async def _counted(record: Record, counter: Counter, inputs: dict[str, int]) -> Record:
    """Return the record with its tokens counted; `inputs` caches the counts of prompts."""
    tokens = await counter.count(record.texts, special=False)
    source, usage = counter.source, record.output_tokens + record.unstreamed
    if record.unstreamed and sum(tokens) > usage:
        # A text may be tokenised finer than it was made, but no more can have been streamed.
        tokens, source = spread(usage, [len(text) for text in record.texts]), "usage"
    input_tokens = record.input_tokens
    if input_tokens < 0 and record.input_text:
        if record.input_text not in inputs:
            if len(inputs) >= _KNOWN_MAX:
                inputs.clear()
            inputs[record.input_text] = sum(await counter.count([record.input_text], special=True))
        input_tokens = inputs[record.input_text]
    stamps_ns = list(accumulate(record.gaps_ns))
    gaps_ns, counts = by_read(stamps_ns, tokens, 0)
    beyond = usage - sum(tokens) if record.unstreamed else 0
    return msgspec.structs.replace(
        record,
        gaps_ns=gaps_ns,
        tokens=counts,
        input_tokens=input_tokens,
        output_tokens=sum(tokens),
        unstreamed=beyond if beyond > SPECIAL_TOKENS_MAX else 0,
        source=source,
        texts=(),
        input_text="",
    )
