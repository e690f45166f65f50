"""The chat prompts behind a system prompt of about 500 tokens, or behind the user's own."""

from collections.abc import Iterator

from llmdyno.workload import Draws, Session, Workload, WorkloadSpec, drawn_from
from llmdyno.workload.builtin import chat_prompts, long_system_prompt


class ChatSystem:
    """Draws at random from the chat prompts, all behind one system prompt."""

    name = "chat-system"
    takes = frozenset({"unique"})
    repeats = True
    shares_prefix = True

    def check(self, spec: WorkloadSpec) -> None:
        """Accept every spec: there is no file, and nothing else is needed."""

    def sessions(self, spec: WorkloadSpec, draws: Draws) -> Iterator[Session]:
        """Return an endless sequence of single prompts."""
        return drawn_from(chat_prompts(spec.system_prompt or long_system_prompt()), draws)


WORKLOAD: Workload = ChatSystem()
