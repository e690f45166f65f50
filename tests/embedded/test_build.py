"""The embedded engine's builds: weights of 16, 8 and 4 bits, made for true and served."""

import hashlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import DYNO
from llmdyno.engines.openvino import ENGINE
from llmdyno.errors import ServerError
from llmdyno.knobs import Config
from llmdyno.processes import ports, server
from llmdyno.serve import build

PROMPT = "Once upon a time there was a server that"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One empty cache for this file: what one test builds, the next finds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def built(config: Config, model: str = "tiny") -> Path:
    artifact = build.ensure(ENGINE, model, config, notify=lambda _: None)
    assert artifact is not None
    return artifact.path


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def answers(config: Config, artifact: Path | None, log: Path) -> dict[str, Any]:
    """Serve `tiny` and return what it says on each endpoint."""
    port = ports.free_port()
    launch = ENGINE.launch("tiny", config, artifact=artifact, host="127.0.0.1", port=port)
    asked = {"model": "tiny", "max_tokens": 12, "temperature": 0}
    with server.start(launch, log=log):
        chat = {**asked, "messages": [{"role": "user", "content": PROMPT}]}
        said = post(f"{launch.url}/v1/chat/completions", chat)
        text = post(f"{launch.url}/v1/completions", {**asked, "prompt": PROMPT})
        tokens = post(f"{launch.url}/tokenize", {"model": "tiny", "prompt": PROMPT})
    return {
        "chat": said["choices"][0]["message"]["content"],
        "text": text["choices"][0]["text"],
        "usage": (said["usage"], text["usage"]),
        "tokens": tokens["tokens"],
        "context": tokens["max_model_len"],
    }


def test_fp16_says_what_the_gguf_says(tmp_path: Path) -> None:
    config = {"weight_format": "fp16"}

    plain = answers({}, None, tmp_path / "plain.log")

    assert answers(config, built(config), tmp_path / "fp16.log") == plain
    assert len(plain["text"].split()) > 3
    assert plain["context"] == 8192


def test_fewer_bits_are_fewer_bytes_and_are_served(tmp_path: Path) -> None:
    sizes = [
        (built({"weight_format": name}) / "openvino_model.bin").stat().st_size
        for name in ("fp16", "int8", "int4")
    ]
    config = {"weight_format": "int4"}

    said = answers(config, built(config), tmp_path / "int4.log")

    assert sizes[1] < 0.55 * sizes[0]
    assert sizes[2] < 0.75 * sizes[1]  # the embeddings, a fifth of this model, keep 8 bits
    assert said["usage"][1]["completion_tokens"] == 12
    assert len(said["chat"]) > 12


def test_the_script_makes_the_same_weights(tmp_path: Path) -> None:
    here = built({"weight_format": "int8"})
    command = (*DYNO, "build", "--model", "tiny", "--set", "weight_format=int8")
    subprocess.run([*command, "--script", str(tmp_path / "b.sh")], check=True, capture_output=True)

    subprocess.run(
        ["bash", str(tmp_path / "b.sh"), str(tmp_path / "there")],
        env={**os.environ, "PYTHON": sys.executable},
        check=True,
        capture_output=True,
    )

    assert digest(tmp_path / "there") == digest(here)


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "openvino_model.bin").read_bytes()).hexdigest()


def test_weights_that_are_compressed_already_are_refused() -> None:
    compressed = str(built({"weight_format": "int8"}))

    with pytest.raises(ServerError, match="are compressed already") as caught:
        built({"weight_format": "int4"}, compressed)

    assert caught.value.kind == "bad-config"
    assert "leave it out" in str(caught.value)


def test_an_ir_is_compressed_as_a_gguf_is() -> None:
    from_ir = built({"weight_format": "int8"}, str(built({"weight_format": "fp16"})))

    assert digest(from_ir) == digest(built({"weight_format": "int8"}))


def test_serve_builds_what_it_serves(tmp_path: Path) -> None:
    port = ports.free_port()
    command = (*DYNO, "serve", "--model", "tiny", "--set", "weight_format=int8")
    expected = answers({}, built({"weight_format": "int8"}), tmp_path / "int8.log")
    with subprocess.Popen(
        [*command, "--port", str(port)], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("ready after"):
                break
        body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
        said = post(f"http://127.0.0.1:{port}/v1/completions", body)
        process.terminate()
        process.communicate(timeout=30)

    assert process.returncode == 0
    assert said["choices"][0]["text"] == expected["text"]
