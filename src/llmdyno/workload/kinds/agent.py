"""Agents at work: one system prompt and the definitions of tools for all, and histories that grow.

A session's first prompt has `--isl` tokens. `--prefix-share` of them are the same in all sessions,
as the instructions and the tools of an agent are; the rest is a task of its own. Each later turn
adds as much again as the task had: what a tool has answered. Random words, so nothing else is
alike, and what a prefix cache can hit is known exactly.
"""

import random
from collections.abc import Iterator
from functools import lru_cache
from itertools import count

from llmdyno.errors import UsageError
from llmdyno.spec import CHAT_OUTPUT_TOKENS
from llmdyno.units import Lengths, percent
from llmdyno.workload import Draws, Item, Session, Workload, WorkloadSpec, synthetic_text

INPUT_TOKENS = Lengths("uniform", 1536, 2560)  # without --isl
PREFIX_SHARE = 0.75  # without --prefix-share
_TOOL_WORDS = 60  # of the definition of one tool
_TOOLS_SHARE = 0.5  # of the shared words


class Agent:
    """Makes each session as it is drawn, behind the same beginning."""

    name = "agent"
    takes = frozenset({"isl", "prefix_share"})
    usual_isl = INPUT_TOKENS
    implied_by = "prefix_share"
    calibrates = True
    in_turns = True
    alike_on_purpose = True

    def check(self, spec: WorkloadSpec) -> None:
        """Refuse a share that leaves a turn without a word of its own.

        Raises:
            UsageError: `prefix_share` is too large for the input length.
        """
        share, wanted = _share(spec), _wanted(spec)
        if (1 - share) * wanted.typical < 1:
            raise UsageError(
                f"--prefix-share {percent(share)}: leaves nothing of {wanted} input tokens for the"
                " task itself."
            )

    def sessions(self, spec: WorkloadSpec, draws: Draws) -> Iterator[Session]:
        """Return an endless sequence of sessions."""
        return _made(spec, draws)


def _made(spec: WorkloadSpec, draws: Draws) -> Iterator[Session]:
    share, wanted = _share(spec), _wanted(spec)
    shared = _shared_text(round(share * draws.words(round(wanted.typical))), spec.seed)
    system_prompt = "\n\n".join(text for text in (spec.system_prompt, shared) if text)
    number = count()
    while True:
        turns = spec.turns.draw(draws.rng)
        own = max(1, round((1 - share) * draws.words(wanted.draw(draws.rng))))
        yield tuple(
            Item(
                number=next(number),
                prompt=synthetic_text(own, draws.rng),
                system_prompt=system_prompt,
                max_tokens=CHAT_OUTPUT_TOKENS,
            )
            for _ in range(turns)
        )


def _share(spec: WorkloadSpec) -> float:
    return PREFIX_SHARE if spec.prefix_share is None else spec.prefix_share


def _wanted(spec: WorkloadSpec) -> Lengths:
    return spec.isl or INPUT_TOKENS


@lru_cache(maxsize=4)
def _shared_text(words: int, seed: int) -> str:
    """Return the instructions and the tools, the same for the same seed, in so many words."""
    rng = random.Random(f"{seed}/agent")
    tools = round(words * _TOOLS_SHARE) // _TOOL_WORDS
    parts = [synthetic_text(words - tools * _TOOL_WORDS, rng)] if words else []
    # "tool" and its name are three words of the definition's.
    parts += [
        f"tool {'_'.join(synthetic_text(2, rng).split())}: {synthetic_text(_TOOL_WORDS - 3, rng)}"
        for _ in range(tools)
    ]
    return "\n\n".join(parts)


WORKLOAD: Workload = Agent()
