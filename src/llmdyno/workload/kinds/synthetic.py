"""Random common words of the lengths asked for, no two prompts alike."""

from collections.abc import Iterator
from itertools import count

from llmdyno.errors import UsageError
from llmdyno.spec import CHAT_OUTPUT_TOKENS
from llmdyno.workload import Draws, Item, Session, Workload, WorkloadSpec, synthetic_text


class Synthetic:
    """Makes each prompt as it is drawn."""

    name = "synthetic"
    takes = frozenset({"isl"})
    implied_by = "isl"
    calibrates = True
    repeats = False

    def check(self, spec: WorkloadSpec) -> None:
        """Refuse a spec without an input length.

        Raises:
            UsageError: `isl` is not given.
        """
        if spec.isl is None:
            raise UsageError(f"--workload {spec.name}: needs an input length, e.g. --isl 128.")

    def sessions(self, spec: WorkloadSpec, draws: Draws) -> Iterator[Session]:
        """Yield an endless sequence of single prompts."""
        assert spec.isl is not None, "checked"
        for number in count():
            words = draws.words(spec.isl.draw(draws.rng))
            item = Item(
                number=number,
                prompt=synthetic_text(words, draws.rng),
                system_prompt=spec.system_prompt,
                max_tokens=CHAT_OUTPUT_TOKENS,
            )
            yield (item,)


WORKLOAD: Workload = Synthetic()
