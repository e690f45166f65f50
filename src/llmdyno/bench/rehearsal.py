"""One request as the run will send it, before the run: what a server refuses is told in a sentence.

Without it a field that the server does not take, a wrong model or a prompt that is too long would
fail every request. Its prompt is none of the run's. It reads an answer that ends soon whole: some
servers hear late that a client hung up, go on with its answer inside the run, and count it there.
On a longer one it hangs up, and settling.py waits for the server. A server that is busy or broken
just now is left to the run, whose records say so.
"""

import math
import random
import re
from collections.abc import Mapping, Sequence
from time import perf_counter_ns

import msgspec

from llmdyno import endpoints
from llmdyno.bench.answers import Answer, explain, words_of, wrong_model
from llmdyno.bench.prober import TIMEOUT_S, Prober
from llmdyno.endpoints import Endpoint
from llmdyno.errors import TargetError
from llmdyno.faults import REDIRECTS
from llmdyno.load.plan import Plan, Point
from llmdyno.spec import Bench
from llmdyno.wire.exchange import Response
from llmdyno.wire.inbox import Piece
from llmdyno.wire.target import Target
from llmdyno.workload.sessions import Item
from llmdyno.workload.share import Share
from llmdyno.workload.words import synthetic_text

READS_ON_S = 3.0  # after the first token; then it hangs up,
READS_TO_S = 10.0  # unless the answer, at the rate so far, ends before this
_CHARACTERS_PER_WORD = 6  # of text that has no blanks between its words
# By which endpoints ask for an exact length, as a server's words may name them.
_EXACT_LENGTH = re.compile(r"ignore_eos(?:_token)?|min_tokens|min_length|min_new_tokens")
# Statuses that the same request may not get the next time.
_PASSING = frozenset({408, 409, 425, 429})
_REFUSED_OVER_GRPC = frozenset(
    f"grpc-{name}"
    for name in (
        *("invalid-argument", "not-found", "unimplemented"),
        *("unauthenticated", "permission-denied"),
    )
)


async def rehearse(
    spec: Bench, prober: Prober, endpoint: Endpoint, scale: Mapping[str, float]
) -> Bench:
    """Send one request as the run will, to each model.

    Args:
        spec: with endpoint, model and tensors filled in.
        prober: connected to the server, or not yet.
        endpoint: the protocol.
        scale: of synthetic prompts: Point's tokens_per_word and tokens_fixed.

    Returns:
        The spec, with the fields that this server calls otherwise.

    Raises:
        UsageError: the workload's file of prompts cannot be read.
        TargetError: the server refuses the request; says what it said, and what would be right.
    """
    for one in spec.models:
        alone = msgspec.structs.replace(spec, model=one.name)
        renamed = (await _rehearsed(alone, prober, endpoint, scale)).renamed
        spec = msgspec.structs.replace(spec, renamed=renamed)
    return spec


async def _rehearsed(
    spec: Bench, prober: Prober, endpoint: Endpoint, scale: Mapping[str, float]
) -> Bench:
    while True:
        plan, item = _planned(spec, prober.target, endpoint, scale)
        response = await _response(prober, plan, item)
        if not _refused(response, endpoint):
            return spec
        words = _words(response, endpoint)
        renamed = endpoints.adapted(endpoint, words, spec.renamed)
        if renamed == spec.renamed or (item.exact_length and _EXACT_LENGTH.search(words)):
            why = await _why(spec, prober, plan, item, response)
            raise TargetError(prober.target.redact(why))
        spec = msgspec.structs.replace(spec, renamed=dict(renamed))


def _planned(
    spec: Bench, target: Target, endpoint: Endpoint, scale: Mapping[str, float]
) -> tuple[Plan, Item]:
    """Return the plan of the first level, and a request like its first, in other words."""
    point = msgspec.structs.replace(
        Point(spec=spec, level=0, repeat=0, load=spec.load.points[0]), **scale
    )
    item = point.prompts(Share()).draw()
    plan = Plan(
        level=0,
        users=1,
        load=spec.load,
        target=target,
        endpoint=endpoint,
        model=spec.model,
        renamed=spec.renamed,
        tensors=spec.tensors,
    )
    rng = random.Random("rehearsal")
    texts = {
        name: synthetic_text(_word_count(text), rng)
        for name, text in (("prompt", item.prompt), ("system_prompt", item.system_prompt))
    }
    return plan, msgspec.structs.replace(item, **texts)


def _word_count(text: str) -> int:
    return max(len(text.split()), len(text) // _CHARACTERS_PER_WORD)


async def _response(prober: Prober, plan: Plan, item: Item) -> Response:
    """Return the response to a request: whole, if that does not take too long."""
    endpoint = plan.endpoint

    def is_long(pieces: Sequence[Piece]) -> bool:
        stamps_ns = endpoint.read(pieces).stamps_ns if pieces else []
        if not stamps_ns:
            return False
        lasts_s = (perf_counter_ns() - stamps_ns[0]) / 1e9
        if lasts_s <= READS_ON_S:
            return False
        longest = math.inf if item.max_tokens is None else item.max_tokens / len(stamps_ns)
        return lasts_s * max(1.0, longest) > READS_TO_S

    return await prober.answer(
        "POST",
        endpoint.path(plan.model),
        endpoint.body(plan.ask(item, plan.model)),
        is_long,
        timeout_s=min(TIMEOUT_S, plan.load.timeout_s),
    )


def _refused(response: Response, endpoint: Endpoint) -> bool:
    """Whether a server is sure to refuse every request like the one that it answered."""
    if response.error and response.error != "cut":
        return response.error in _REFUSED_OVER_GRPC
    status = response.status
    if status != 200:
        return status in REDIRECTS or (400 <= status < 500 and status not in _PASSING)
    reply = endpoint.read(response.pieces)
    if reply.error == "stream-error":  # it may be about this moment, or about a field of ours
        return bool(
            _EXACT_LENGTH.search(reply.detail) or endpoints.adapted(endpoint, reply.detail, {})
        )
    media_type = response.headers.get("content-type", "")
    # Where the body is the text, any page has tokens.
    has_tokens = bool(reply.stamps_ns) and not endpoint.ends_with_body
    return not has_tokens and media_type.startswith(("text/html", "application/json"))


def _words(response: Response, endpoint: Endpoint) -> str:
    """Return a server's own words of a refusal."""
    if response.error and response.error != "cut":
        return response.detail
    if response.status == 200:
        return endpoint.read(response.pieces).detail
    if response.body().lstrip().startswith(b"<"):
        return words_of(response)
    return endpoint.error_of(response.body())


async def _why(spec: Bench, prober: Prober, plan: Plan, item: Item, response: Response) -> str:
    """Return in a sentence why the run cannot be: what was refused, and what would be right."""
    target, endpoint = plan.target, plan.endpoint
    path = endpoint.path(plan.model)
    words = " ".join(_words(response, endpoint).split()).rstrip(".")  # LiteLLM says it in lines
    refusal = response.status in {400, 422} or bool(response.error) or response.status == 200
    if refusal and item.exact_length and await _is_length_refused(prober, plan, item, words):
        return _other_length(spec, item, words)
    if said := explain(target, [Answer("POST", path, response)]):
        return f"{target.authority}: {said}."
    if spec.model and (response.status == 404 or "model" in words.lower()):
        known = await _known_models(prober, endpoint)
        if known and spec.model not in known:
            return f"{wrong_model(spec.model, known)} ({words})."
    status = response.error or f"status {response.status}"
    where = f"{target.authority}{target.resource(path)}"
    if response.status == 200 and not words:
        return (
            f"{where}: answers with one whole body ({response.headers.get('content-type')}), not"
            f" with a stream of {endpoint.name}: look whether --endpoint is right and the server"
            " streams."
        )
    if response.status in {404, 405}:
        return (
            f"{where}: {words or 'there is no such path'} ({status}): look whether --url,"
            f" --endpoint {endpoint.name} and --model are right."
        )
    return f"{where}: the server refuses a request of this run ({status}): {words}."


async def _is_length_refused(prober: Prober, plan: Plan, item: Item, words: str) -> bool:
    """Whether the server refuses the exact length: its words say so, or it takes any other."""
    if _EXACT_LENGTH.search(words):
        return True
    other = msgspec.structs.replace(item, exact_length=False)
    response = await _response(prober, plan, other)
    return response.status == 200 and not _refused(response, plan.endpoint)


def _other_length(spec: Bench, item: Item, words: str) -> str:
    workload = spec.workload
    if workload.osl is not None:
        flag = f"--osl {workload.osl}"
    else:
        flag = "--dataset-osl" if workload.dataset_osl else f"--workload {workload.name}"
    said = f": {words}" if words else ""
    return (
        f"{flag}: the server takes no request for an answer of an exact length{said}; write"
        f" --max-tokens {item.max_tokens} instead, for at most so many tokens."
    )


async def _known_models(prober: Prober, endpoint: Endpoint) -> list[str]:
    try:
        return await endpoints.models(endpoint, prober)
    except TargetError:
        return []
