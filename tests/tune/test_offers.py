"""What workers deliver is written into the study's runs alone; test_hosts.py has the rest."""

from pathlib import Path

import pytest

from llmdyno.errors import StorageError
from llmdyno.tune.offers import write_run


def test_a_file_that_would_lie_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s" / "runs").mkdir(parents=True)
    (tmp_path / "s" / "runs" / "away").symlink_to(tmp_path)
    with pytest.raises(StorageError, match="is no file of a run"):
        write_run(tmp_path / "s", "runs/x", {"../y": b"z"})
    for run in ("../x", "runs/../../x", "/x", ".", "runs", "", "runs/away", "runs/away/x"):
        with pytest.raises(StorageError, match="is no run of a study"):
            write_run(tmp_path / "s", run, {"y": b"z"})
    assert [path.name for path in tmp_path.rglob("*")] == ["s", "runs", "away"]
    (tmp_path / "disk").mkdir()
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "runs").symlink_to(tmp_path / "disk")  # all of them on another disk
    write_run(tmp_path / "t", "runs/x", {"warmup/y": b"z"})
    assert (tmp_path / "disk" / "x" / "warmup" / "y").read_bytes() == b"z"
