"""What a request says of sampling, as OpenVINO GenAI's GenerationConfig has it.

worker.py begins each generation with it.
"""

from typing import Any

from llmdyno.embedded.messages import Sampling

_GREEDY_BELOW = 1e-5  # the library takes a temperature that is next to nothing for none
_TOP_P_MIN = 1e-5  # likewise


def apply(sampling: Sampling, config: Any) -> None:
    """Set the fields of the library's config, whose max_new_tokens and ignore_eos are set."""
    config.do_sample = sampling.temperature >= _GREEDY_BELOW
    if config.do_sample:
        config.temperature = sampling.temperature
        config.top_p = max(sampling.top_p, _TOP_P_MIN)
        config.min_p = sampling.min_p
        config.rng_seed = sampling.seed
        if sampling.top_k is not None:
            config.top_k = sampling.top_k
    config.repetition_penalty = sampling.repetition_penalty
    config.presence_penalty = sampling.presence_penalty
    config.frequency_penalty = sampling.frequency_penalty
    config.min_new_tokens = min(sampling.min_tokens, config.max_new_tokens)
    if sampling.stop_ids and config.ignore_eos:
        # The library would ignore these with the end token: they take its place instead.
        config.ignore_eos = False
        config.eos_token_id = -1
        config.stop_token_ids = set(sampling.stop_ids)
    elif sampling.stop_ids:
        config.stop_token_ids = {*config.stop_token_ids, *sampling.stop_ids}
