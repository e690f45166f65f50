"""Bundles: each file held against the schema of its kind, and what can run here is run."""

import json
import os
import shlex
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from conftest import DYNO, last_json
from llmdyno import __version__, deploy, plugins
from llmdyno.deploy.plan import HOST
from llmdyno.engines import Launch
from llmdyno.errors import UsageError
from llmdyno.fronts import bentoml
from llmdyno.fronts._triton import install
from llmdyno.fronts._triton.backends import openvino
from llmdyno.knobs import Config, Knob, Value
from llmdyno.processes import environments, ports
from llmdyno.processes import server as supervise
from llmdyno.serve.stack import Stack

SECRET = "hf_do_not_tell"
KUBERNETES = "1.34"
HUB = "meta-llama/Llama-3-8B"
CONFIGS: dict[str, tuple[str, Config]] = {
    "vllm": (HUB, {"max_num_seqs": 256, "tensor_parallel_size": 2}),
    "sglang": (HUB, {"mem_fraction_static": 0.9}),
    "lmdeploy": (HUB, {"tp": 4}),
    "tgi": (HUB, {"max_concurrent_requests": 512, "prefix_caching": True}),
    "tensorrt-llm": (HUB, {"max_batch_size": 512, "enable_chunked_prefill": True}),
    "openvino": ("tiny", {"max_num_batched_tokens": 512}),
}
GPUS = {"vllm": 2, "lmdeploy": 4, "openvino": 0}


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)


def stack(engine: str, front: str = "native", model: str = "") -> Stack:
    return Stack(
        engine=plugins.load("engines", engine),
        front=plugins.load("fronts", front),
        model=model or CONFIGS[engine][0],
    )


def written(folder: Path, engine: str, front: str = "native", **asked: Any) -> tuple[str, ...]:
    served, config = stack(engine, front), CONFIGS[engine][1]
    served.check(config)
    return deploy.write(folder, served, config, notify=lambda _: None, **asked)


def compose_file(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((folder / "compose.yaml").read_text())
    schema = files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    jsonschema.validate(document, json.loads(schema.read_text()))
    return document


def manifests(folder: Path) -> dict[str, dict[str, Any]]:
    documents = list(yaml.safe_load_all((folder / "kubernetes.yaml").read_text()))
    for document in documents:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    return {document["kind"]: document for document in documents}


def container(folder: Path) -> dict[str, Any]:
    found: list[dict[str, Any]] = manifests(folder)["Deployment"]["spec"]["template"]["spec"][
        "containers"
    ]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("engine", CONFIGS)
def test_every_engines_files_fit_the_published_schemas(engine: str, tmp_path: Path) -> None:
    names = written(tmp_path, engine)

    service = compose_file(tmp_path)["services"]["llm"]
    pod = container(tmp_path)
    assert {"serve.sh", "compose.yaml", "kubernetes.yaml", "README.md"} <= set(names)
    assert [*service.get("entrypoint", []), *service["command"]] == [
        *pod.get("command", []),
        *pod["args"],
    ]
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    gpus = GPUS.get(engine, 1)
    limits = pod.get("resources", {}).get("limits", {})
    assert limits == ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    assert ("deploy" in service) == bool(gpus)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert pod[probe]["httpGet"]["path"] == (
            plugins.load("engines", engine)
            .launch(
                CONFIGS[engine][0], CONFIGS[engine][1], artifact=None, host="127.0.0.1", port=8000
            )
            .health_path
        )


@pytest.mark.parametrize("engine", CONFIGS)
def test_nothing_in_it_is_of_this_machine_and_no_secret(engine: str, tmp_path: Path) -> None:
    written(tmp_path / "bundle", engine)

    texts = [path.read_text() for path in (tmp_path / "bundle").rglob("*") if path.is_file()]
    assert texts
    for text in texts:
        for not_there in (SECRET, HOST, sys.prefix, str(Path.home()), str(tmp_path)):
            assert not_there not in text


def test_its_readme_says_where_a_package_of_ours_comes_from(tmp_path: Path) -> None:
    for engine in ("openvino", "vllm"):
        written(tmp_path / engine, engine)
    ours, other = ((tmp_path / name / "README.md").read_text() for name in ("openvino", "vllm"))

    assert f"pip install --find-links=wheels 'llmdyno[cpu]=={__version__}'" in ours
    assert f"llmdyno {__version__} need not be in a package index" in ours
    assert "`make packages`" in ours
    assert "pip install vllm" in other
    assert "make packages" not in other


@pytest.mark.parametrize("engine", CONFIGS)
def test_the_script_is_one(engine: str, tmp_path: Path) -> None:
    written(tmp_path, engine)

    assert subprocess.run(["sh", "-n", tmp_path / "serve.sh"], check=False).returncode == 0
    assert os.access(tmp_path / "serve.sh", os.X_OK)


def test_a_hub_models_token_is_named_and_never_written(tmp_path: Path) -> None:
    written(tmp_path, "vllm")

    assert "HF_TOKEN" in compose_file(tmp_path)["services"]["llm"]["environment"]
    named = [entry for entry in container(tmp_path)["env"] if entry["name"] == "HF_TOKEN"]
    assert named == [
        {
            "name": "HF_TOKEN",
            "valueFrom": {
                "secretKeyRef": {"name": "llama-3-8b-vllm", "key": "HF_TOKEN", "optional": True}
            },
        }
    ]


def test_settings_in_a_file_come_along(tmp_path: Path) -> None:
    names = written(tmp_path, "tensorrt-llm")

    (name,) = [name for name in names if name.startswith("files/")]
    assert f"--extra_llm_api_options {name}" in (tmp_path / "serve.sh").read_text()
    kinds = manifests(tmp_path)
    assert json.loads(kinds["ConfigMap"]["data"][Path(name).name]) == {
        "enable_chunked_prefill": True
    }
    (mount,) = [m for m in container(tmp_path)["volumeMounts"] if m["name"] == "files"]
    assert f"{mount['mountPath']}/{Path(name).name}" == f"/bundle/{name}"


class Scripted:
    """An engine whose command says what shells, compose and Kubernetes would take amiss."""

    name = "scripted"
    knobs: tuple[Knob, ...] = ()
    install = "it is a test"
    image = "example.org/scripted:1"

    def version(self) -> None:
        return None

    def check(self, model: str, config: Config) -> None:
        pass

    def build(self, model: str, config: Config, folder: Path) -> tuple[()]:
        del model, config, folder
        return ()

    def launch(
        self, model: str, config: Config, *, artifact: Path | None, host: str, port: int
    ) -> Launch:
        del config, artifact
        return Launch(
            argv=("printf", "%s|", "a b", "$HOME $(PATH) `x`", "it's", "", f"{model}:{host}"),
            url=f"http://{host}:{port}",
            endpoint="openai-chat",
            model=model,
            environment={"PLAIN": "x'$y", "API_KEY": SECRET},
        )


def test_awkward_words_arrive_as_they_are(tmp_path: Path) -> None:
    model = tmp_path / "my model"
    model.mkdir()
    served = Stack(engine=Scripted(), front=plugins.load("fronts", "native"), model=str(model))
    folder = tmp_path / "bundle"
    deploy.write(folder, served, {}, notify=lambda _: None)

    done = subprocess.run(
        [folder / "serve.sh"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "API_KEY": "k", "HOST": "::1"},
    )
    words = ["a b", "$HOME $(PATH) `x`", "it's", "", "models/my model:::1"]
    assert done.stdout == "".join(f"{word}|" for word in words)
    assert (folder / "models/my model").resolve() == model
    service = compose_file(folder)["services"]["llm"]
    assert service["command"][2] == "$$HOME $$(PATH) `x`"
    assert "PLAIN=x'$$y" in service["environment"]
    assert "API_KEY" in service["environment"]
    assert container(folder)["args"][2] == "$HOME $$(PATH) `x`"
    assert SECRET not in "".join(path.read_text() for path in folder.glob("*.*"))


def test_a_secret_that_is_not_set_stops_the_script(tmp_path: Path) -> None:
    served = Stack(engine=Scripted(), front=plugins.load("fronts", "native"), model="m")
    deploy.write(tmp_path, served, {}, notify=lambda _: None)

    environment = {name: value for name, value in os.environ.items() if name != "API_KEY"}
    done = subprocess.run(
        [tmp_path / "serve.sh"], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode != 0
    assert "API_KEY: set it; it is a secret" in done.stderr


def test_what_must_be_built_comes_with_a_script_that_builds_it(tmp_path: Path) -> None:
    config: dict[str, Value] = {"weight_format": "int8", "max_num_seqs": 8}
    config |= {"dynamic_split_fuse": False, "max_num_batched_tokens": 1024}
    served = stack("openvino")
    served.check(config)
    names = deploy.write(tmp_path, served, config, notify=lambda _: None)

    assert "build.sh" in names
    assert subprocess.run(["bash", "-n", tmp_path / "build.sh"], check=False).returncode == 0
    assert "--artifact artifact" in (tmp_path / "serve.sh").read_text()
    assert (
        "FOLDER"
        in subprocess.run(
            ["bash", tmp_path / "build.sh"], capture_output=True, text=True, check=False
        ).stderr.upper()
    )
    assert "/bundle/artifact" in [m["mountPath"] for m in container(tmp_path)["volumeMounts"]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "script"], "say what is deployed: --study STUDY"),
        (["-m", "tiny", "--target", "helm"], "--target helm: no such target."),
        (["-m", "tiny", "--target", "triton"], "--target triton: needs --front triton."),
        (["-m", "tiny", "--target", "bento"], "--target bento: needs --front bentoml."),
        (["--study", "s", "--engine", "vllm"], "leave out --engine"),
        (["--set", "max_num_seqs=0"], "max_num_seqs=0: must be"),
    ],
)
def test_what_cannot_be_is_refused(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*DYNO, "deploy", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert words in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_engine_without_an_image_gets_a_script_only(tmp_path: Path) -> None:
    model = tmp_path / "m"
    model.mkdir()
    (model / "mlc-chat-config.json").write_text("{}")
    served = Stack(
        engine=plugins.load("engines", "mlc-llm"),
        front=plugins.load("fronts", "native"),
        model=str(model),
    )
    said: list[str] = []
    names = deploy.write(tmp_path / "bundle", served, {}, notify=said.append)

    assert set(names) == {"serve.sh", "README.md"}
    assert said == ["! mlc-llm has no container image: name one with --image."]
    with pytest.raises(UsageError, match="--target compose: mlc-llm has no container image"):
        deploy.write(tmp_path / "b", served, {}, target="compose", notify=lambda _: None)
    deploy.write(tmp_path / "c", served, {}, image="me/mlc:1", notify=lambda _: None)
    assert compose_file(tmp_path / "c")["services"]["llm"]["image"] == "me/mlc:1"


def test_the_script_serves(tmp_path: Path) -> None:
    port = ports.free_port()
    done = subprocess.run(
        [*DYNO, "deploy", "--set", "max_num_batched_tokens=512", "--port", str(port), "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    folder = tmp_path / last_json(done.stdout)["bundle"]
    launch = Launch(
        argv=(str(folder / "serve.sh"),),
        url=f"http://127.0.0.1:{port}",
        endpoint="openai-chat",
        model="tiny",
        probe=("/v1/completions", {"model": "tiny", "prompt": "a", "max_tokens": 1}),
        environment={"PYTHON": sys.executable},
    )

    with supervise.start(launch, log=tmp_path / "log") as server:
        assert server.answers(10.0)


def test_a_triton_bundle_serves_on_the_tritonserver_of_the_path(tmp_path: Path) -> None:
    """Moved to another folder first: a bundle must not know where it was written."""
    port = ports.free_port()  # and the two above it
    written(tmp_path / "first", "openvino", "triton", port=port)
    folder = (tmp_path / "first").rename(tmp_path / "moved")
    found = install.wheel(openvino.BACKEND, tmp_path, lambda _: None)
    program = tmp_path / "bin" / "tritonserver"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join(found.command)} "$@"\n')
    program.chmod(0o755)
    environment = {**found.environment}
    environment["PATH"] = f"{program.parent}:{environment['PATH']}"
    probe = {"text_input": "a", "max_tokens": 1, "stream": False}
    launch = Launch(
        argv=(str(folder / "serve.sh"),),
        url=f"http://127.0.0.1:{port}",
        endpoint="triton-generate",
        model="ensemble",
        health_path="/v2/health/ready",
        probe=("/v2/models/ensemble/generate", probe),
        environment=environment,
    )

    with supervise.start(launch, log=tmp_path / "log") as server:
        assert server.answers(10.0)
    assert compose_file(folder)["services"]["llm"]["ports"] == [
        f"127.0.0.1:{number}:{number}" for number in (port, port + 1)
    ]
    assert [port["name"] for port in container(folder)["ports"]] == ["http", "triton-grpc"]


def test_tensorrt_llms_triton_bundle_takes_nvidias_model_and_the_container_of_the_release(
    tmp_path: Path,
) -> None:
    served = stack("tensorrt-llm", "triton")
    config: Config = {"version": "1.1.0", "free_gpu_memory_fraction": 0.8, "max_batch_size": 512}
    served.check(config)
    deploy.write(tmp_path, served, config, notify=lambda _: None)

    models = tmp_path / "triton" / "models"
    settings = json.loads((models / "tensorrt_llm/1/model.yaml").read_text())
    assert settings["max_batch_size"] == 512
    assert settings["kv_cache_config"] == {"free_gpu_memory_fraction": 0.8}
    assert not {"version", "free_gpu_memory_fraction"} & set(settings)
    assert "cp -u /app/all_models/llmapi" in (tmp_path / "serve.sh").read_text()
    image = "nvcr.io/nvidia/tritonserver:25.12-trtllm-python-py3"
    assert f"FROM {image}\n" in (tmp_path / "Dockerfile").read_text()
    assert container(tmp_path)["args"][:4] == ["python3", "-I", "-S", "triton/launcher.py"]


def test_a_bento_bundle_is_built_and_its_script_serves(tmp_path: Path) -> None:
    port = ports.free_port()  # and the one above it
    written(tmp_path / "bundle", "openvino", "bentoml", port=port)
    programs = environments.ensure("bentoml", bentoml.ENVIRONMENT, lambda _: None)
    home = {**bentoml.SETTINGS, "BENTOML_HOME": str(tmp_path / "home"), "UV_OFFLINE": "1"}
    # The engine inside runs with our Python, BentoML with its own.
    path = f"{Path(sys.executable).parent}:{programs}:{os.environ['PATH']}"
    environment = {**home, "PATH": path}
    built = subprocess.run(
        [programs / "bentoml", "build", "--output", "tag"],
        cwd=tmp_path / "bundle",
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    launch = Launch(
        argv=(str(tmp_path / "bundle" / "serve.sh"),),
        url=f"http://127.0.0.1:{port}",
        endpoint="openai-chat",
        model="tiny",
        health_path="/readyz",
        probe=("/v1/completions", {"model": "tiny", "prompt": "a", "max_tokens": 1}),
        environment=environment,
    )

    with supervise.start(launch, log=tmp_path / "log") as server:
        assert server.answers(10.0)
