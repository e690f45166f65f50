"""What a person types to go on with a study."""

from pathlib import Path

import pytest

from llmdyno.tune.commands import resume, whole_of


def test_a_part_of_a_study_goes_on_with_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = tmp_path / "my study" / "stacks" / "vllm+native"
    part.mkdir(parents=True)

    assert resume(part, "--elsewhere") == f"dyno tune --resume '{tmp_path}/my study' --elsewhere"
    assert whole_of(part.parent.parent) == part.parent.parent
    monkeypatch.chdir(part)
    assert whole_of(Path()) == part.parent.parent
