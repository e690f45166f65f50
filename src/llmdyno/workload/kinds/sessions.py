"""Conversations of several turns, each with all that was said before.

They are those of a file, or made of our chat prompts behind one system prompt.
"""

from collections.abc import Iterator, Sequence

from llmdyno.workload import Draws, Session, Workload, WorkloadSpec, drawn_from, sessions
from llmdyno.workload.builtin import chat_prompts, long_system_prompt
from llmdyno.workload.sessions import DataSet


class Sessions:
    """Draws at random from the file's conversations, or strings chat prompts together."""

    name = "sessions"
    takes = frozenset({"dataset", "dataset_osl", "unique"})
    in_turns = True

    def check(self, spec: WorkloadSpec) -> None:
        """Refuse a data set that cannot be read; without one the package's chat prompts are used.

        Raises:
            UsageError: the data set cannot be read; the message names the line.
        """
        if spec.dataset:
            _read(spec.dataset, spec)

    def notes(self, spec: WorkloadSpec) -> list[str]:
        """Say what of the data set is not sent."""
        return _read(spec.dataset, spec).notes(in_turns=True) if spec.dataset else []

    def sessions(self, spec: WorkloadSpec, draws: Draws) -> Iterator[Session]:
        """Return an endless sequence of sessions."""
        if spec.dataset:
            return drawn_from(_read(spec.dataset, spec).sessions, draws)
        return _made(chat_prompts(spec.system_prompt or long_system_prompt()), spec, draws)


def _read(name: str, spec: WorkloadSpec) -> DataSet:
    return sessions.read(name, spec.system_prompt, own_lengths=spec.dataset_osl)


def _made(prompts: Sequence[Session], spec: WorkloadSpec, draws: Draws) -> Iterator[Session]:
    """Yield sessions of as many chat prompts as `--turns` says, no prompt twice in one."""
    for _ in drawn_from(prompts, draws):  # a draw of no use, which the seed's sequence has had
        wanted = spec.turns.draw(draws.rng)
        sample = draws.rng.sample(prompts, min(wanted, len(prompts)))
        yield tuple(session[0] for session in sample)


WORKLOAD: Workload = Sessions()
