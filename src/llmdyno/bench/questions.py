"""Questions to the server before anything is measured: its protocol, its model, its tokenizer.

run.py asks once per run; the answers complete the spec, so the journal says what was measured.
"""

import msgspec

from llmdyno import endpoints, workload
from llmdyno.bench.answers import wrong_model
from llmdyno.bench.detect import detect
from llmdyno.bench.prober import Prober
from llmdyno.bench.rehearsal import rehearse
from llmdyno.bench.settling import SHORT_WORDS, Settler, question
from llmdyno.endpoints import Endpoint
from llmdyno.errors import TargetError
from llmdyno.spec import Bench
from llmdyno.wire.target import Target

_PROBE_WORDS = (SHORT_WORDS, 250)


async def ask(
    spec: Bench, target: Target, *, rehearsed: bool = False, settler: Settler | None = None
) -> tuple[Bench, Endpoint, dict[str, float]]:
    """Ask the server for all that the spec leaves open, and wait for its answers.

    Args:
        spec: what is run.
        target: the server.
        rehearsed: also send one request as the run will: see rehearsal.py.
        settler: learns how soon an idle server answers, and whether we hung up on an answer.

    Returns:
        The spec with endpoint, model and tensors filled in; the endpoint; and the scale of
        synthetic prompts, tokens_per_word and tokens_fixed of Point, or nothing where the server
        does not count tokens.

    Raises:
        UsageError: there is no endpoint of that name.
        TargetError: nobody answers, no protocol is known, or the rehearsal is refused.
    """
    prober = Prober(target)
    settler = settler or Settler(target)
    try:
        spec, endpoint = await _resolve(spec, prober)
        settler.is_due = settler.is_due or prober.has_hung_up
        scale = await _calibrate_synthetic(spec, prober, endpoint, settler)
        if rehearsed:
            spec = await rehearse(spec, prober, endpoint, scale)
        settler.is_due = settler.is_due or prober.has_hung_up
        return spec, endpoint, scale
    finally:
        prober.close()


async def _resolve(spec: Bench, prober: Prober) -> tuple[Bench, Endpoint]:
    """Fill in the endpoint, the model and its inputs, where the user left them open."""
    first = spec.models[0].name
    name, model = await detect(prober, spec.endpoint, first)
    endpoint = endpoints.load(name)
    try:
        inputs = await endpoints.tensors(endpoint, prober, model)
    except TargetError as error:
        known = await endpoints.models(endpoint, prober)
        if model in known or not known:
            raise
        raise TargetError(f"{wrong_model(model, known)}.") from error
    if len(spec.models) > 1:
        model = spec.model
    return msgspec.structs.replace(spec, endpoint=name, model=model, tensors=inputs), endpoint


async def _calibrate_synthetic(
    spec: Bench, prober: Prober, endpoint: Endpoint, settler: Settler
) -> dict[str, float]:
    """Measure with two prompts how many tokens the server counts for synthetic words.

    Two prompts of different length give the line tokens = fixed + per_word x words. Without usage
    from the server the result is empty, and a word counts as one token.
    """
    if not workload.calibrates(workload.load(spec.workload.name)):
        return {}
    counts = []
    for words in _PROBE_WORDS:
        asked = question(spec, words)
        response = await prober.ask("POST", endpoint.path(asked.model), endpoint.body(asked))
        settler.note(response)  # both: a fresh server may answer the longer one sooner
        counts.append(endpoint.read(response.pieces).input_tokens)
    if min(counts) <= 0 or counts[0] == counts[1]:
        return {}
    per_word = (counts[1] - counts[0]) / (_PROBE_WORDS[1] - _PROBE_WORDS[0])
    return {"tokens_per_word": per_word, "tokens_fixed": counts[0] - per_word * _PROBE_WORDS[0]}
