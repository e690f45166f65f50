"""An OpenVINO IR folder is served like a GGUF: the same weights give the same tokens."""

import json
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

from llmdyno.embedded.model import resolve
from llmdyno.engines.openvino import ENGINE
from llmdyno.processes import ports, server

EXPORT = (
    "import sys, openvino_genai as g; g.LLMPipeline(sys.argv[1], 'CPU', enable_save_ov_model=True)"
)


def first_words(model: str, log: Path) -> str:
    launch = ENGINE.launch(model, {}, artifact=None, host="127.0.0.1", port=ports.free_port())
    body = {"model": model, "prompt": "Once upon a time", "max_tokens": 8}
    with server.start(launch, log=log):
        request = urllib.request.Request(
            f"{launch.url}/v1/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as response:
            text: str = json.load(response)["choices"][0]["text"]
    return text


def test_an_ir_folder_gives_the_tokens_of_its_gguf(tmp_path: Path) -> None:
    folder = tmp_path / "ir"
    folder.mkdir()
    gguf = folder / "model.gguf"
    shutil.copy(resolve("tiny").path, gguf)
    subprocess.run([sys.executable, "-c", EXPORT, str(gguf)], check=True, capture_output=True)
    gguf.unlink()
    assert (folder / "openvino_model.xml").exists()

    words = first_words(str(folder), tmp_path / "ir.log")

    assert len(words.split()) > 1
    assert words == first_words("tiny", tmp_path / "gguf.log")
