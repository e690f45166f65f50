"""A model of any kind → OpenVINO IR: copied or refused; test_build.py makes true ones."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
import pytest

from llmdyno.embedded import convert as converting
from llmdyno.embedded.convert import convert
from llmdyno.errors import UsageError


def write_ir(folder: Path, dtype: type[np.generic]) -> Path:
    """Write a graph with one weight of that type, and the files that lie beside a model's."""
    folder.mkdir()
    operations = openvino.opset13
    weight = operations.constant(np.ones((128, 128), dtype=dtype))
    entry = operations.parameter([1, 128], np.float32)
    product = operations.matmul(
        entry, operations.convert(weight, "f32"), transpose_a=False, transpose_b=False
    )
    graph = openvino.Model([product], [entry], "m")
    openvino.save_model(graph, folder / "openvino_model.xml", compress_to_fp16=False)
    for name in ("openvino_tokenizer.xml", "openvino_detokenizer.xml", "config.json", "notes.txt"):
        (folder / name).write_text("{}")
    return folder


def test_an_ir_is_copied_without_what_is_no_part_of_it(tmp_path: Path) -> None:
    source, target = write_ir(tmp_path / "ir", np.float16), tmp_path / "out"
    target.mkdir()

    convert(str(source), target)

    copied = {path.name for path in target.iterdir()}
    assert copied == {path.name for path in source.iterdir()} - {"notes.txt"}


def test_weights_of_few_bits_are_refused_with_their_type(tmp_path: Path) -> None:
    source, target = write_ir(tmp_path / "ir", np.int8), tmp_path / "out"
    target.mkdir()

    with pytest.raises(UsageError, match=r"are compressed already \(i8\); leave it out"):
        convert(str(source), target)


def test_a_model_that_is_none_is_one_sentence_and_exit_status_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", converting.__name__),
            *("--model", "no-such-model", "--folder", str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.startswith("llmdyno.embedded: model: ")
    assert "no-such-model" in done.stderr
    assert len(done.stderr.splitlines()) == 1
