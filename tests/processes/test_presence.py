"""What runs on this machine: said while it runs, and not a moment longer."""

import errno
import fcntl
from pathlib import Path

import msgspec
import pytest

from llmdyno import store
from llmdyno.processes import presence
from llmdyno.processes.presence import Served, served_at, serving

SERVED = Served(
    port=8123, engine="vllm", front="native", model="m", config={"max_num_seqs": 64, "eager": True}
)


def at(port: int) -> Served | None:
    return served_at("127.0.0.1", port, ())


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "llmdyno" / "servers-at-work"


def test_a_server_is_found_by_its_port_while_it_runs(place: Path) -> None:
    with serving(SERVED), serving(msgspec.structs.replace(SERVED, port=8124, model="n")):
        found = at(8123)
        assert found is not None
        assert msgspec.structs.replace(found, boot="", network="") == SERVED
        assert at(8124) == msgspec.structs.replace(found, port=8124, model="n")
        assert at(8125) is None
    assert at(8123) is None
    assert list(place.glob("*")) == []


def test_what_a_killed_process_left_is_removed(place: Path) -> None:
    place.mkdir(parents=True)
    (place / "1-dead.json").write_bytes(msgspec.json.encode(SERVED))
    assert at(8123) is None
    assert list(place.glob("*")) == []


def test_a_server_of_another_machine_with_the_same_home_is_not_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(SERVED):
        monkeypatch.setattr(presence, "boot", lambda: "another")
        assert at(8123) is None


def test_a_container_with_the_same_home_has_servers_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(SERVED):
        monkeypatch.setattr(presence, "network", lambda: "net:[1]")
        assert at(8123) is None


def test_where_the_network_is_not_known_the_boot_tells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(presence, "_NETWORK", tmp_path / "none")
    assert presence.network() == ""
    with serving(SERVED):
        assert at(8123) is not None


@pytest.mark.parametrize(
    ("listens", "asked", "same"),
    [
        ("127.0.0.2", "127.0.0.1", False),
        ("127.0.0.2", "127.0.0.2", True),
        ("127.0.0.1", "localhost", True),
        ("localhost", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.2", "0.0.0.0", False),
        ("0.0.0.0", "127.0.0.3", True),
        ("::", "127.0.0.1", True),
        ("", "127.0.0.2", True),  # a file of an older version does not say it
    ],
)
def test_a_server_is_found_where_it_listens(listens: str, asked: str, same: bool) -> None:
    with serving(msgspec.structs.replace(SERVED, host=listens)):
        assert (served_at(asked, 8123, ()) is not None) is same


def test_a_server_is_found_by_its_models_names() -> None:
    with serving(msgspec.structs.replace(SERVED, names=("short",))):
        assert served_at("127.0.0.1", 8123, ["m"])
        assert served_at("127.0.0.1", 8123, ["lora", "short"])
        assert served_at("127.0.0.1", 8123, ["another"]) is None


def test_a_file_of_an_older_version_is_read() -> None:
    old = {"port": 8123, "engine": "vllm", "front": "native", "model": "m", "config": {}}
    place = store.runtime_folder("servers-at-work")
    with presence.present(place, msgspec.json.encode(old | {"boot": presence.boot()})):
        found = served_at("127.0.0.1", 8123, ["m"])
    assert found is not None
    assert (found.engine_args, found.host) == ((), "")


def test_what_a_process_killed_while_it_wrote_left_is_removed(place: Path) -> None:
    with serving(SERVED):
        (place / "1-dead.new").write_bytes(b"{")
        with (place / "2-alive.new").open("wb") as being_written:
            fcntl.flock(being_written, fcntl.LOCK_EX)
            assert at(8123) is not None
            assert [path.name for path in place.glob("*.new")] == ["2-alive.new"]


@pytest.mark.parametrize("step", ["flock", "rename"])
def test_a_step_that_fails_leaves_nothing(
    step: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(*{"flock": (fcntl, "flock"), "rename": (Path, "rename")}[step], fail)
    with serving(SERVED):
        assert list(place.iterdir()) == []


def test_a_file_that_is_swept_away_before_it_is_locked_is_written_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, names = Path.rename, []

    def swept_once(path: Path, target: Path) -> Path:
        names.append(path)
        if len(names) == 1:
            path.unlink()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", swept_once)
    with serving(SERVED):
        assert at(8123) is not None
    assert list(place.iterdir()) == []


def test_the_folder_is_the_users_alone(place: Path) -> None:
    place.mkdir(parents=True, mode=0o755)  # as an older version made it
    with serving(SERVED):
        assert place.stat().st_mode & 0o777 == 0o700


def test_where_nothing_can_be_written_the_server_runs_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    with serving(SERVED):
        assert at(8123) is None
