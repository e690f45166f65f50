"""Names of models, and the models that are written here."""

import subprocess
import sys
from pathlib import Path

import gguf
import pytest

from llmdyno.embedded import model
from llmdyno.errors import UsageError

SMALLEST = model.Recipe(
    hidden=64, layers=1, heads=2, kv_heads=1, feed_forward=64, vocabulary=1024, context_length=256
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "llmdyno" / "models"


def test_a_recipe_makes_the_same_file_each_time(cache: Path) -> None:
    path = model.built_in(SMALLEST)
    first = path.read_bytes()
    assert path.parent.parent == cache
    written_ns = path.stat().st_mtime_ns
    assert model.built_in(SMALLEST).stat().st_mtime_ns == written_ns  # from the cache
    path.unlink()
    path.parent.rmdir()
    assert model.built_in(SMALLEST).read_bytes() == first


def test_a_built_in_model_is_llama_with_a_tokenizer_and_a_template() -> None:
    found = model.resolve("tiny")
    fields = gguf.GGUFReader(found.path).fields
    assert found.context_length == 8192
    assert fields["general.architecture"].contents() == "llama"
    assert fields["llama.block_count"].contents() == 4
    assert len(fields["tokenizer.ggml.tokens"].contents()) == 4096
    assert "assistant" in fields["tokenizer.chat_template"].contents()


def test_two_processes_at_once_leave_one_model_and_no_drafts(cache: Path) -> None:
    code = (
        "from llmdyno.embedded.model import *;"
        "print(built_in(Recipe(hidden=64, layers=1, heads=2, kv_heads=1, feed_forward=64,"
        " vocabulary=1024)))"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    paths = {process.communicate()[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(paths) == 1
    assert [folder.name for folder in cache.iterdir()] == [Path(paths.pop()).parent.name]


def test_a_path_may_be_a_gguf_or_a_folder_with_one(tmp_path: Path) -> None:
    written = model.built_in(SMALLEST)
    for name in (written, written.parent):
        assert model.resolve(str(name)) == model.Model(
            name=str(name), path=written, context_length=256
        )
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 4096}')
    (tmp_path / "openvino_model.xml").touch()
    (tmp_path / "openvino_model.bin").touch()
    found = model.resolve(str(tmp_path))
    assert (found.path, found.context_length) == (tmp_path, 4096)


def test_what_cannot_be_a_model_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / "two" / name).touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    for name, reason in [
        ("tinny", "Did you mean 'tiny'"),
        ("no/such/model.gguf", "there is no such file or folder"),
        (str(tmp_path / "notes.txt"), "not a .gguf file"),
        (str(tmp_path / "empty"), "neither openvino_model.xml, nor a .gguf"),
        (str(tmp_path / "two"), "2 GGUF files"),
    ]:
        with pytest.raises(UsageError, match=reason):
            model.resolve(name)


def test_without_a_network_a_hugging_face_id_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="check the network, or use a local path"):
        model.resolve("nobody/nothing")
