"""What a person types to go on with a study."""

from pathlib import Path

import pytest

from llmdyno.store import LEDGER
from llmdyno.tune.commands import resume, whole_of


def test_a_part_of_a_study_goes_on_with_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = tmp_path / "my study" / "stacks" / "vllm+native"
    part.mkdir(parents=True)
    (part.parent.parent / LEDGER).touch()

    assert resume(part, "--elsewhere") == f"dyno tune --resume '{tmp_path}/my study' --elsewhere"
    assert whole_of(part.parent.parent) == part.parent.parent
    monkeypatch.chdir(part)
    assert whole_of(Path()) == part.parent.parent


def test_a_study_in_a_folder_that_is_called_stacks_is_a_whole_one(tmp_path: Path) -> None:
    mine = tmp_path / "stacks" / "mine"
    mine.mkdir(parents=True)

    assert whole_of(mine) == mine
