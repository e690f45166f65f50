"""What runs on this machine: said while it runs, and not a moment longer."""

from pathlib import Path

import msgspec
import pytest

from llmdyno.processes import presence
from llmdyno.processes.presence import Served, served_at, serving

SERVED = Served(
    port=8123, engine="vllm", front="native", model="m", config={"max_num_seqs": 64, "eager": True}
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "llmdyno" / "servers-at-work"


def test_a_server_is_found_by_its_port_while_it_runs(place: Path) -> None:
    with serving(SERVED), serving(msgspec.structs.replace(SERVED, port=8124, model="n")):
        found = served_at(8123)
        assert found is not None
        assert msgspec.structs.replace(found, boot="") == SERVED
        assert served_at(8124) == msgspec.structs.replace(found, port=8124, model="n")
        assert served_at(8125) is None
    assert served_at(8123) is None
    assert list(place.glob("*")) == []


def test_what_a_killed_process_left_is_removed(place: Path) -> None:
    place.mkdir(parents=True)
    (place / "1-dead.json").write_bytes(msgspec.json.encode(SERVED))
    assert served_at(8123) is None
    assert list(place.glob("*")) == []


def test_a_server_of_another_machine_with_the_same_home_is_not_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(SERVED):
        monkeypatch.setattr(presence, "boot", lambda: "another")
        assert served_at(8123) is None


def test_where_nothing_can_be_written_the_server_runs_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    with serving(SERVED):
        assert served_at(8123) is None
