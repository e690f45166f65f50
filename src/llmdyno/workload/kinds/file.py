"""The prompts of a file, drawn at random."""

from collections.abc import Iterator

from llmdyno.workload import (
    Draws,
    Session,
    Workload,
    WorkloadSpec,
    drawn_from,
    require_dataset,
    sessions_of,
)


class File:
    """Reads all of the data set; of a conversation in it, only the first question is asked."""

    name = "file"
    takes = frozenset({"dataset", "dataset_osl", "unique"})
    implied_by = "dataset"
    repeats = True

    def check(self, spec: WorkloadSpec) -> None:
        """Refuse a data set that is missing or cannot be read.

        Raises:
            UsageError: no data set is given, or it cannot be read; the message names the line.
        """
        _first_turns(spec)

    def sessions(self, spec: WorkloadSpec, draws: Draws) -> Iterator[Session]:
        """Return an endless sequence of single prompts."""
        return drawn_from(_first_turns(spec), draws)


def _first_turns(spec: WorkloadSpec) -> list[Session]:
    name = require_dataset(spec)
    sessions = sessions_of(name, spec.system_prompt, own_lengths=spec.dataset_osl)
    return [turns[:1] for turns in sessions]


WORKLOAD: Workload = File()
