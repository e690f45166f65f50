"""The image: built with the builder that is here, then run as the Kubernetes Job runs it.

make image          (llmdyno:VERSION, in the store of podman or docker)
make image BASE=…   (from another Python image, where Docker Hub cannot be reached)

A container with a read-only root, no capabilities and a user of its own measures a server of known
timing; a second one is stopped in its first import, a third one while it measures.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUILDERS = ("podman", "docker")
SHUT = "--network host --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges"
_INTERRUPTED = 130
_STOPS_WITHIN_S = 5.0  # a run that hears no SIGTERM is killed after ten


class ImageError(Exception):
    """The image is not what it should be; the sentence says how."""


def builder() -> str:
    """Return the first of BUILDERS that answers.

    Raises:
        ImageError: there is none.
    """
    for name in BUILDERS:
        if shutil.which(name) and not subprocess.call(
            [name, "info"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ):
            return name
    raise ImageError(f"there is no builder here that answers: {' or '.join(BUILDERS)}.")


def build(tool: str, tag: str, base: str) -> None:
    """Build the image from the Containerfile.

    Args:
        tool: of BUILDERS.
        tag: the image's name.
        base: what it is built upon; empty: what the Containerfile names.

    Raises:
        ImageError: the build failed; it has said why.
    """
    upon = ["--build-arg", f"BASE={base}"] if base else []
    command = [tool, "build", *upon, "--file", "Containerfile", "--tag", tag, "."]
    if subprocess.call(command, cwd=ROOT):
        raise ImageError(f"{' '.join(command)} failed.")


def try_run(tool: str, tag: str, url: str, results: Path) -> str:
    """Let a container measure a server; return what it measured.

    Raises:
        ImageError: it failed, or did not keep what it measured.
    """
    words = f"bench --url {url} -c 4 --osl 20 --duration 3s --ramp 0s --out /results/run"
    done = _tool(tool, "run", "--rm", *_options(results), tag, *words.split())
    summary = results / "run" / "summary.json"
    if done.returncode or not summary.exists():
        raise ImageError(f"dyno bench ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    read = json.loads(summary.read_text())
    level, reading = read["levels"][0], read["environment"]["reading"]
    if level["requests"]["failed"] or reading != "compiled":
        raise ImageError(f"dyno bench measured {level['requests']}, its reading is {reading}.")
    return f"{level['requests']['completed']} requests, TTFT p50 {level['ttft_ms']['p50']:.1f} ms"


def try_stop(tool: str, tag: str, url: str, results: Path, *, after_s: float) -> str:
    """Stop a container as Kubernetes does, with SIGTERM; return what came of it.

    Args:
        tool: of BUILDERS.
        tag: the image's name.
        url: of the server that it measures.
        results: an empty folder for what it keeps.
        after_s: since its start. By 2 s it measures, and must keep the summary.

    Raises:
        ImageError: it had to be killed, its status is another, or what it measured is lost.
    """
    words = f"bench --url {url} -c 4 --osl 20 --duration 60s --out /results/run --no-calibration"
    made = _tool(tool, "create", *_options(results), tag, *words.split())
    if made.returncode:
        raise ImageError(f"{tool} create: {made.stderr.strip()}")
    name = made.stdout.strip()
    try:
        _tool(tool, "start", name)
        time.sleep(after_s)
        began = time.monotonic()
        _tool(tool, "stop", name)
        took_s = time.monotonic() - began
        status = int(_tool(tool, "inspect", name, "--format", "{{.State.ExitCode}}").stdout)
    finally:
        _tool(tool, "rm", "--force", name)
    kept = (results / "run" / "summary.json").exists()
    said = f"took {took_s:.1f} s, status {status}, summary {'kept' if kept else 'none'}"
    if status != _INTERRUPTED or took_s > _STOPS_WITHIN_S or (after_s >= 2 and not kept):
        raise ImageError(f"stopped after {after_s} s: {said}; expected status {_INTERRUPTED}.")
    return said


def _options(results: Path) -> list[str]:
    return [*SHUT.split(), "--volume", f"{results}:/results"]


def _tool(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False)


@contextmanager
def _streamer() -> Iterator[str]:
    """Start a server of known timing; yield its URL."""
    command = [sys.executable, "-m", "llmdyno.streamer", "--port", "0", "--ttft", "50ms"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{json.loads(server.stdout.readline())['port']}"
        finally:
            server.terminate()


def main() -> int:
    """Build the image and try it; return the exit status."""
    from llmdyno import __version__

    parser = argparse.ArgumentParser(description="Build the image, and try it.")
    parser.add_argument("--base", default="", help="the image to build upon [the Containerfile's]")
    given = parser.parse_args()
    tag = f"llmdyno:{__version__}"
    try:
        tool = builder()
        build(tool, tag, given.base)
        # What the image's user owns in it may stay, where we may not delete it.
        folder_of_ours = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        with _streamer() as url, folder_of_ours as scratch:
            folders = [Path(scratch, name) for name in ("run", "early", "late")]
            for folder in folders:
                folder.mkdir()
                os.chmod(folder, 0o777)  # noqa: S103, PTH101 - for the image's user
            print(f"{tag}: {try_run(tool, tag, url, folders[0])}", flush=True)
            for after_s, folder in zip((0.1, 3.0), folders[1:], strict=True):
                said = try_stop(tool, tag, url, folder, after_s=after_s)
                print(f"stopped after {after_s} s: {said}", flush=True)
    except ImageError as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
