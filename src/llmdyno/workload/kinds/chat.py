"""Short varied prompts of our own, each alone."""

from collections.abc import Iterator

from llmdyno.workload import Draws, Session, Workload, WorkloadSpec, drawn_from
from llmdyno.workload.builtin import chat_prompts


class Chat:
    """Draws at random from the chat prompts of the package."""

    name = "chat"
    takes = frozenset({"unique"})
    repeats = True

    def check(self, spec: WorkloadSpec) -> None:
        """Accept every spec: there is no file, and nothing else is needed."""

    def sessions(self, spec: WorkloadSpec, draws: Draws) -> Iterator[Session]:
        """Return an endless sequence of single prompts."""
        return drawn_from(chat_prompts(spec.system_prompt), draws)


WORKLOAD: Workload = Chat()
