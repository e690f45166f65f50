"""A workload of another package: `--workload outside.riddles` asks three riddles in turn.

It has only what the interface requires.
"""

from collections.abc import Iterator
from itertools import count

from llmdyno.errors import UsageError
from llmdyno.workload import Draws, Item, Session, Workload, WorkloadSpec

RIDDLES = ("What has keys and opens no door?", "What runs and has no legs?", "What gets wet?")


class Riddles:
    name = "outside.riddles"

    def check(self, spec: WorkloadSpec) -> None:
        if spec.system_prompt:
            raise UsageError("--system-prompt: gives a riddle away; leave it out.")

    def sessions(self, _spec: WorkloadSpec, draws: Draws) -> Iterator[Session]:
        first = draws.rng.randrange(len(RIDDLES))
        for number in count(first):
            yield (Item(number=number, prompt=RIDDLES[number % len(RIDDLES)], max_tokens=9),)


WORKLOAD: Workload = Riddles()
