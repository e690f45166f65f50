"""The prompts of a file, drawn at random."""

from collections.abc import Iterator

from llmdyno.workload import (
    Draws,
    Session,
    Workload,
    WorkloadSpec,
    drawn_from,
    require_dataset,
    sessions,
)
from llmdyno.workload.sessions import DataSet


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
        _read(spec)

    def notes(self, spec: WorkloadSpec) -> list[str]:
        """Say what of the data set is not sent."""
        return _read(spec).notes(in_turns=False)

    def sessions(self, spec: WorkloadSpec, draws: Draws) -> Iterator[Session]:
        """Return an endless sequence of single prompts."""
        return drawn_from([turns[:1] for turns in _read(spec).sessions], draws)


def _read(spec: WorkloadSpec) -> DataSet:
    name = require_dataset(spec)
    return sessions.read(name, spec.system_prompt, own_lengths=spec.dataset_osl)


WORKLOAD: Workload = File()
