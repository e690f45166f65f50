"""Other people's clients against our servers: what works, what does not, and what it said.

    python benchmarks/clients/run.py                       # every client, every front
    python benchmarks/clients/run.py --front native --client langchain

Each front serves the embedded engine's model `tiny`; each client is installed, in the version that
stands here, into an environment of its own under ~/.cache/llmdyno/environments, which is kept. A
client works if it ends well and says what was asked of it: ask.py and the checks here say how.
Printed is a table for docs/fronts.md, and what failed in the client's own words.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from llmdyno import plugins
from llmdyno.processes import environments, ports
from llmdyno.processes import server as supervise
from llmdyno.serve.stack import Stack

FRONTS = ("native", "triton", "bentoml")
OPENAI = "openai-chat"
MODEL = "tiny"
REQUESTS = 10
TOKENS = 8
LIMIT_S = 180.0
_TOKENIZER = "llmdyno/words"
_REVISION = "0" * 40
_HOME = "huggingface"  # the Hugging Face home of a client, in its folder
_HERE = Path(__file__).parent
_WORDS = 300  # characters of what a client said last


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """A client: `commands` gets its bin folder, the server's URL and an empty folder."""

    name: str
    requirements: tuple[str, ...]
    # What is tried → the commands that must all end well.
    commands: Callable[[Path, str, Path], dict[str, Sequence[Sequence[str]]]]
    # Looks at what a command has written into the folder; raises AssertionError.
    check: Callable[[str, Path], None] | None = None


def _library(name: str, *whats: str) -> Callable[[Path, str, Path], Any]:
    def commands(programs: Path, url: str, _: Path) -> dict[str, list[list[str]]]:
        python, script = str(programs / "python"), str(_HERE / "ask.py")
        return {what: [[python, script, f"{name}/{what}", url, MODEL]] for what in whats}

    return commands


def _llm(programs: Path, url: str, folder: Path) -> dict[str, Sequence[Sequence[str]]]:
    models = [
        {"model_id": f"ours-{kind}", "model_name": MODEL, "api_base": f"{url}/v1", "api_key": "x"}
        | ({"completion": True} if kind == "completions" else {})
        for kind in ("chat", "completions")
    ]
    (folder / "extra-openai-models.yaml").write_text(json.dumps(models))
    llm = str(programs / "llm")
    return {
        kind: [
            [llm, "-m", f"ours-{kind}", "Hello.", "-o", "max_tokens", str(TOKENS), *how]
            for how in ((), ("--no-stream",))
        ]
        for kind in ("chat", "completions")
    }


def _aiperf(programs: Path, url: str, folder: Path) -> dict[str, Sequence[Sequence[str]]]:
    return {
        kind: [
            [
                *(str(programs / "aiperf"), "profile", "--url", url, "--endpoint-type", kind),
                *("--streaming", "--model", MODEL, "--tokenizer", _TOKENIZER, "--ui", "none"),
                *("--concurrency", "2", "--request-count", str(REQUESTS), "--isl", "16"),
                *("--osl", str(TOKENS), "--extra-inputs", "ignore_eos:true"),
                *("--use-server-token-count", "--export-level", "summary"),
                *("--output-artifact-dir", str(folder / kind)),
            ]
        ]
        for kind in ("chat", "completions")
    }


def _check_aiperf(what: str, folder: Path) -> None:
    document = json.loads((folder / what / "profile_export_aiperf.json").read_text())
    assert document["request_count"]["avg"] == REQUESTS, document["request_count"]
    assert document["output_sequence_length"]["avg"] == TOKENS, document["output_sequence_length"]


def _guidellm(programs: Path, url: str, folder: Path) -> dict[str, Sequence[Sequence[str]]]:
    paths = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
    return {
        kind: [
            [
                *(str(programs / "guidellm"), "run", "--disable-progress"),
                "--backend",
                f"kind=openai_http,target={url},model={MODEL},request_format={path}",
                *("--profile", "kind=concurrent,streams=2"),
                *("--constraint", f"kind=max_requests,count={REQUESTS}"),
                *("--tokenizer", f"kind=hf_auto,model={_place(folder / _HOME)}"),
                *("--data", f"kind=synthetic_text,prompt_tokens=16,output_tokens={TOKENS}"),
                *("--output", f"kind=json,path={folder / kind}.json"),
            ]
        ]
        for kind, path in paths.items()
    }


def _check_guidellm(what: str, folder: Path) -> None:
    (benchmark,) = json.loads((folder / f"{what}.json").read_text())["benchmarks"]
    metrics = benchmark["metrics"]
    totals = metrics["request_totals"]
    assert (totals["successful"], totals["errored"]) == (REQUESTS, 0), totals
    tokens = metrics["output_token_count"]["successful"]["total_sum"]
    assert tokens == REQUESTS * TOKENS, f"{tokens} tokens"


def write_tokenizer(home: Path) -> None:
    """Write the tokenizer of the two load generators into a Hugging Face home, as if downloaded.

    It has one word, so that nothing is downloaded: every word is that one.
    """
    place = _place(home)
    place.mkdir(parents=True)
    references = place.parent.parent / "refs"
    references.mkdir()
    (references / "main").write_text(_REVISION)
    tokenizer = {
        "version": "1.0",
        **dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder")),
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": {"word": 0}, "unk_token": "word"},
    }
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (place / "tokenizer.json").write_text(json.dumps(tokenizer))
    (place / "tokenizer_config.json").write_text(json.dumps(config))


def _place(home: Path) -> Path:
    return home / "hub" / f"models--{_TOKENIZER.replace('/', '--')}" / "snapshots" / _REVISION


CLIENTS = (
    Client(
        name="openai",
        requirements=("openai==3.57.0",),
        commands=_library("openai", "chat", "completions", "models"),
    ),
    Client(
        name="langchain",
        requirements=("langchain-openai==1.7.4",),
        commands=_library("langchain", "chat", "completions"),
    ),
    Client(
        name="litellm",
        requirements=("litellm==1.110.2",),
        commands=_library("litellm", "chat", "completions"),
    ),
    Client(name="llm", requirements=("llm==0.36",), commands=_llm),
    Client(
        name="aiperf",
        requirements=("aiperf==0.13.0",),
        commands=_aiperf,
        check=_check_aiperf,
    ),
    Client(
        name="guidellm",
        requirements=("guidellm==0.8.1",),
        commands=_guidellm,
        check=_check_guidellm,
    ),
)


def tried(client: Client, url: str, folder: Path) -> dict[str, str]:
    """Return what was tried of a client, each with "" or what went wrong."""
    programs = environments.ensure(f"client-{client.name}", client.requirements, _say)
    folder.mkdir(parents=True)
    write_tokenizer(folder / _HOME)
    environment = os.environ | {
        "LLM_USER_PATH": str(folder),
        "HF_HOME": str(folder / _HOME),
        "HF_HUB_OFFLINE": "1",
    }
    results: dict[str, str] = {}
    for what, commands in client.commands(programs, url, folder).items():
        results[what] = ""
        for command in commands:
            results[what] = results[what] or _run(command, environment, folder)
        try:
            if client.check is not None and not results[what]:
                client.check(what, folder)
        except (AssertionError, OSError, KeyError, ValueError) as error:
            results[what] = f"{type(error).__name__}: {error}"
        _say(f"  {client.name}/{what}: {results[what] or 'works'}")
    return results


def _run(command: Sequence[str], environment: dict[str, str], folder: Path) -> str:
    """Return "" if a command ends well and says something, else its last words."""
    try:
        ended = subprocess.run(
            command,
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"nothing within {LIMIT_S:g} s"
    if ended.returncode == 0:
        return ""
    return (ended.stderr or ended.stdout).strip()[-_WORDS:] or f"status {ended.returncode}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Run the command line; status 1 if something does not work."""
    parser = argparse.ArgumentParser(description="Other people's clients against our servers.")
    parser.add_argument("--front", action="append", choices=FRONTS)
    parser.add_argument("--client", action="append", choices=[one.name for one in CLIENTS])
    asked = parser.parse_args()
    clients = [one for one in CLIENTS if not asked.client or one.name in asked.client]
    fronts = asked.front or FRONTS
    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for front in fronts:
            place = Path(scratch) / front
            stack = Stack(
                engine=plugins.load("engines", "openvino"),
                front=plugins.load("fronts", front),
                model=MODEL,
            )
            launch = stack.launch(
                {},
                artifact=None,
                folder=place / "server",
                host="127.0.0.1",
                port=ports.free_port(),
                notify=_say,
            )
            url = launch.url if launch.endpoint == OPENAI else launch.also[OPENAI]
            with supervise.start(launch, log=place / "log"):
                _say(f"{front}: {url}")
                for client in clients:
                    for what, wrong in tried(client, url, place / client.name).items():
                        row = found.setdefault(f"{client.requirements[0]}, {what}", {})
                        row[front] = wrong
    _show(found, fronts)
    return int(any(wrong for row in found.values() for wrong in row.values()))


def _show(found: dict[str, dict[str, str]], fronts: Sequence[str]) -> None:
    print(f"| client | {' | '.join(f'`{front}`' for front in fronts)} |")
    print("|---|" + "---|" * len(fronts))
    for name, row in found.items():
        cells = ["fails" if row[front] else "works" for front in fronts]
        print(f"| {name} | {' | '.join(cells)} |")
    for name, row in found.items():
        for front, wrong in row.items():
            if wrong:
                print(f"\n{name}, {front}: {wrong}")


if __name__ == "__main__":
    sys.exit(main())
