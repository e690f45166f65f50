"""The command lines of containers. They are read, and parsed by docker's client; none is run.

What is asked of docker when a server ends is seen by a program of that name that notes it down.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from llmdyno.engines import Launch, Step, openvino, tensorrt_llm, vllm
from llmdyno.errors import UsageError
from llmdyno.fronts import native
from llmdyno.processes import containers, ports
from llmdyno.processes.containers import Container, launch_in, step_in
from llmdyno.serve import build
from llmdyno.serve.stack import Stack
from waiting import until

SECRET = "hf_do_not_tell"
LAUNCH = Launch(
    argv=("/opt/here/bin/trtllm-serve", "./model", "--host", "127.0.0.1", "--port", "8000"),
    url="http://127.0.0.1:8000",
    endpoint="openai-chat",
    model="model",
    environment={"SOME_TOKEN": SECRET},
    files={"/cache/settings.yaml": "{}"},
)
NVIDIA = "nvcr.io/nvidia/tensorrt-llm/release:1.2.1"
DOCKER = Container(runtime="docker", image=NVIDIA)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_TOKEN", SECRET)


def pairs(argv: tuple[str, ...], flag: str) -> list[str]:
    return [argv[at + 1] for at, word in enumerate(argv) if word == flag]


def test_docker_runs_the_same_command_on_loopback(tmp_path: Path) -> None:
    wrapped = launch_in(DOCKER, LAUNCH, reads=[Path("model")])

    assert wrapped.argv[:2] == ("docker", "run")
    assert wrapped.argv[-7:] == (NVIDIA, "trtllm-serve", *LAUNCH.argv[1:])
    assert pairs(wrapped.argv, "--network") == ["host"]
    assert "--publish" not in wrapped.argv
    assert pairs(wrapped.argv, "--gpus") == ["all"]
    assert pairs(wrapped.argv, "--user") == [f"{os.getuid()}:{os.getgid()}"]
    assert pairs(wrapped.argv, "--shm-size") == ["16g"]
    assert pairs(wrapped.argv, "--workdir") == [str(tmp_path)]
    assert pairs(wrapped.argv, "--volume") == [
        f"{tmp_path}/model:{tmp_path}/model:ro",
        "/cache/settings.yaml:/cache/settings.yaml:ro",
        f"{tmp_path}/hub:{tmp_path}/hub:rw",
    ]
    assert wrapped.url == LAUNCH.url
    assert wrapped.files == LAUNCH.files
    assert wrapped.start_timeout_s > LAUNCH.start_timeout_s


@pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker client here")
@pytest.mark.parametrize("image", [NVIDIA, vllm.ENGINE.image])
def test_dockers_client_takes_the_flags(image: str, tmp_path: Path) -> None:
    wrapped = launch_in(Container(runtime="docker", image=image), LAUNCH, reads=[Path("model")])
    # Flags are parsed before a daemon is sought; there is none where it is told to look.
    nowhere = {"PATH": os.environ["PATH"], "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}

    def client_says(*argv: str) -> str:
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, env=nowhere, timeout=60
        )
        return done.stderr

    assert "connect to the Docker daemon" in client_says(*wrapped.argv)
    assert "unknown flag" in client_says(*wrapped.argv[:2], "--no-such-flag", *wrapped.argv[2:])


@pytest.mark.parametrize("runtime", containers.RUNTIMES)
def test_secrets_travel_by_name_only(runtime: containers.Runtime) -> None:
    container = Container(runtime=runtime, image=NVIDIA)
    wrapped = launch_in(container, LAUNCH, reads=[])

    assert not any(SECRET in word for word in wrapped.argv)
    if runtime == "apptainer":
        assert wrapped.environment["APPTAINERENV_SOME_TOKEN"] == SECRET
        assert wrapped.environment["APPTAINERENV_HF_TOKEN"] == SECRET
    else:
        assert {"SOME_TOKEN", "HF_TOKEN", "HF_HOME"} <= set(pairs(wrapped.argv, "--env"))
        assert wrapped.environment["SOME_TOKEN"] == SECRET


def test_podman_and_apptainer_have_flags_of_their_own(tmp_path: Path) -> None:
    podman = launch_in(Container(runtime="podman", image=NVIDIA), LAUNCH, reads=[])
    apptainer = launch_in(Container(runtime="apptainer", image=NVIDIA), LAUNCH, reads=[])

    assert podman.argv[:2] == ("podman", "run")
    assert pairs(podman.argv, "--device") == ["nvidia.com/gpu=all"]
    assert pairs(podman.argv, "--userns") == ["keep-id"]
    assert apptainer.argv[:4] == ("apptainer", "exec", "--nv", "--cleanenv")
    assert f"{tmp_path}/hub:{tmp_path}/hub:rw" in pairs(apptainer.argv, "--bind")
    assert apptainer.argv[-7:] == (f"docker://{NVIDIA}", "trtllm-serve", *LAUNCH.argv[1:])


def test_an_image_with_a_program_of_its_own_runs_ours() -> None:
    container = Container(runtime="docker", image=vllm.ENGINE.image)
    launch = vllm.ENGINE.launch("org/model", {}, artifact=None, host="127.0.0.1", port=8000)
    wrapped = launch_in(container, launch, reads=[])

    at = wrapped.argv.index("--entrypoint")
    # Where vLLM is not installed, its launch starts with our Python; there it has another name.
    program = "python3" if launch.argv[0] == sys.executable else "vllm"
    assert wrapped.argv[at : at + 3] == ("--entrypoint", program, vllm.ENGINE.image)
    assert wrapped.argv[at + 3 :] == launch.argv[1:]


def test_a_build_step_writes_where_it_is_told(tmp_path: Path) -> None:
    step = Step(what="build the engine", argv=("trtllm-build", "--output_dir", "artifact/engine"))
    wrapped = step_in(DOCKER, step, reads=[Path("model")], writes=[Path("artifact")])

    assert wrapped.what == step.what
    assert wrapped.argv[-4:] == (NVIDIA, *step.argv)
    assert pairs(wrapped.argv, "--volume") == [
        f"{tmp_path}/model:{tmp_path}/model:ro",
        f"{tmp_path}/artifact:{tmp_path}/artifact:rw",
        f"{tmp_path}/hub:{tmp_path}/hub:rw",
    ]


def test_a_build_in_a_container_is_a_script_for_where_docker_is(
    tmp_path: Path, dyno: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    model = tmp_path / "llama"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')
    command = ("build", "--engine", "tensorrt-llm", "--model", str(model))
    done = dyno(*command, "--set", "backend=tensorrt", "--container", "docker", "--script", "b.sh")
    script = (tmp_path / "b.sh").read_text()

    assert done.returncode == 0, done.stderr
    assert subprocess.run(["bash", "-n", "b.sh"], check=False).returncode == 0
    assert script.count("\ndocker run ") == 2
    assert script.count(f'--volume {model}:{model}:ro --volume "$folder":"$folder":rw') == 2
    assert f'{NVIDIA} trtllm-build --checkpoint_dir "$folder"/checkpoint' in script
    assert SECRET not in script


def test_what_a_container_builds_is_another_artifact(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    built = (tensorrt_llm.ENGINE, str(tmp_path), {"backend": "tensorrt"})
    native, contained = build.recipe(*built, None), build.recipe(*built, DOCKER)

    assert native is not None
    assert contained is not None
    assert contained.image == NVIDIA
    assert native.id != contained.id


def install(folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).touch(mode=0o755)


def test_auto_takes_the_first_runtime_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(UsageError, match="install docker, podman or apptainer"):
        containers.choose("auto", NVIDIA)
    install(programs, "apptainer")
    assert containers.choose("auto", NVIDIA).runtime == "apptainer"
    install(programs, "podman")
    assert containers.choose("auto", NVIDIA).runtime == "podman"
    with pytest.raises(UsageError, match="--container docker: it is not installed here"):
        containers.choose("docker", NVIDIA)
    with pytest.raises(UsageError, match=r"--container doker: no such runtime\. Did you mean"):
        containers.choose("doker", NVIDIA)


def test_an_engine_that_is_not_installed_is_placed_in_its_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "programs", "docker")
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    stack = Stack(engine=tensorrt_llm.ENGINE, front=native.FRONT, model="org/model")
    if tensorrt_llm.ENGINE.version() is not None:
        pytest.skip("TensorRT-LLM is installed here")

    with pytest.raises(UsageError, match="it is not installed here"):
        stack.placed("none")
    said: list[str] = []
    launch = stack.placed("auto").launch(
        {"max_batch_size": 64},
        artifact=None,
        folder=tmp_path / "server",
        host="127.0.0.1",
        port=8000,
        notify=said.append,
    )
    assert launch.argv[0] == "docker"
    assert launch.argv[-2:] == ("--max_batch_size", "64")
    assert said == [f"in {NVIDIA}, by docker"]
    own = Stack(engine=openvino.ENGINE, front=native.FRONT, model="tiny")
    assert own.placed("auto") is own
    with pytest.raises(UsageError, match="openvino has no container image"):
        own.placed("docker")


NOTES = """\
#!/bin/sh
echo "$*" >> "$NOTES"
case "$1" in
run) echo $$ > "$NOTES.pid"; exec sleep 600 ;;
esac
"""
# Starts what the file says, and stops it when it has ended or is to end.
SERVES = """
import pathlib, sys, msgspec
from llmdyno.processes import server as supervise
from llmdyno.engines import Launch
launch = msgspec.json.decode(pathlib.Path(sys.argv[1]).read_bytes(), type=Launch)
with open(sys.argv[1] + ".log", "wb") as log:
    with supervise.Server(launch, log.fileno(), lambda: b"") as server:
        print(server.leash_pid, flush=True)
        while server.failure() is None and not pathlib.Path(sys.argv[1] + ".stop").exists():
            server.wait(0.1)
"""


@pytest.mark.parametrize("runtime", ["docker", "podman"])
@pytest.mark.parametrize("ends", ["stopped", "dyno", "leash", "client"])
def test_a_container_is_removed_by_its_name_however_it_ends(
    runtime: containers.Runtime, ends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    program = tmp_path / "programs" / runtime
    program.parent.mkdir()
    program.write_text(NOTES)
    program.chmod(0o755)
    monkeypatch.setenv("NOTES", str(notes))
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    nobody = msgspec.structs.replace(LAUNCH, url=f"http://127.0.0.1:{ports.free_port()}")
    launch = launch_in(Container(runtime=runtime, image=NVIDIA), nobody, reads=[])
    launch = msgspec.structs.replace(launch, files={})
    (tmp_path / "launch").write_bytes(msgspec.json.encode(launch))

    command = [sys.executable, "-c", SERVES, str(tmp_path / "launch")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as dyno:
        assert dyno.stdout is not None
        leash = int(dyno.stdout.readline())
        until((tmp_path / "notes.pid").exists, "the client")
        if ends == "stopped":
            (tmp_path / "launch.stop").touch()
        else:
            client = int((tmp_path / "notes.pid").read_text())
            os.kill({"dyno": dyno.pid, "leash": leash, "client": client}[ends], signal.SIGKILL)
        until(lambda: len(notes.read_text().splitlines()) > 1, "the removal")

    ran, removed = (line.split() for line in notes.read_text().splitlines())
    assert ran[:2] == ["run", "--name"]
    assert ran[2].startswith("llmdyno-")
    at_once = ["--time", "0"] if runtime == "podman" else []
    assert removed == ["rm", "--force", *at_once, ran[2]]


def test_what_needs_no_daemon_has_no_name_and_scripts_have_none() -> None:
    apptainer = launch_in(Container(runtime="apptainer", image=NVIDIA), LAUNCH, reads=[])

    assert apptainer.runtime == ""
    assert launch_in(DOCKER, LAUNCH, reads=[]).runtime == "docker"
    assert "--name" not in launch_in(DOCKER, LAUNCH, reads=[]).argv
