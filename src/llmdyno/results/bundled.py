"""The store exported: runs and studies as one archive, or a row a level as CSV."""

import csv
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from llmdyno import store
from llmdyno.errors import StorageError, UsageError
from llmdyno.results.catalog import Entry
from llmdyno.results.documents import items, level_name, number

ARCHIVES = (".tar.gz", ".tgz")
_COLUMNS = (
    *("id", "kind", "started", "tags", "engine", "model", "config", "level"),
    *("completed", "failed", "token_rate", "request_rate"),
    *("ttft_ms_p50", "ttft_ms_p99", "tpot_ms_p50", "e2e_ms_p50", "e2e_ms_p99"),
)


def check(file: Path) -> None:
    """Refuse a file to export to that cannot be one.

    Raises:
        UsageError: its name says no format that we write, or it may not be written.
    """
    if not file.name.endswith((*ARCHIVES, ".csv")):
        raise UsageError(
            f"dyno runs export {file}: name a file that ends with .tar.gz (the folders) or .csv"
            " (a row a level)."
        )
    store.check_file("dyno runs export", file)


def write(file: Path, found: Sequence[Entry]) -> None:
    """Write runs and studies to a checked file, whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    temporary = file.with_name(f".{file.name}.part")
    try:
        if file.suffix == ".csv":
            with temporary.open("w", newline="", encoding="utf-8") as table:
                writer = csv.writer(table)
                writer.writerow(_COLUMNS)
                writer.writerows(row for entry in found for row in _rows(entry))
        else:
            with tarfile.open(temporary, "w:gz") as archive:
                for entry in found:
                    place = f"{entry.folder.parent.name}/{entry.id}"
                    archive.add(entry.folder, place if entry.stored else entry.id)
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {file}: {error.strerror}.") from error


def _rows(entry: Entry) -> Iterator[tuple[object, ...]]:
    """Yield a row a level: of a run, or of a study's baseline and of its winner."""
    arms = {"": entry.document}
    if entry.kind == "study":
        arms = {
            arm: entry.document[arm]["summary"]
            for arm in ("baseline", "best")
            if isinstance(entry.document.get(arm), dict)
        }
    for arm, summary in arms.items():
        for level in items(summary, "levels"):
            yield (
                *(entry.id, entry.kind, entry.started.isoformat(timespec="seconds")),
                *(" ".join(entry.tags), "+".join(entry.engines), entry.model),
                *(arm, level_name(level)),
                *(number(level, "requests", key) for key in ("completed", "failed")),
                *(number(level, key, "mean") for key in ("token_rate", "request_rate")),
                *(number(level, "ttft_ms", key) for key in ("p50", "p99")),
                number(level, "tpot_ms", "p50"),
                *(number(level, "e2e_ms", key) for key in ("p50", "p99")),
            )
