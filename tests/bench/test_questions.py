"""What a run asks before it measures: what the server is, and how it counts."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from llmdyno import spec
from llmdyno.bench.questions import ask
from llmdyno.errors import TargetError
from llmdyno.units import lengths
from llmdyno.wire.target import parse_url
from scripted_server import DONE, END, HEAD, STOP, Client, chunk, framed, plain, scripted

SYNTHETIC = spec.Workload(name="synthetic", isl=lengths("128", "--isl"))


def asking(
    workload: spec.Workload, per_word: float, fixed: int, **given: Any
) -> tuple[spec.Bench, dict[str, float], int]:
    """Ask a server that counts so many tokens a word, and so many whatever the prompt.

    Returns:
        The spec with what was found, the scale of prompts, and how many completions were asked.
    """
    asked = 0

    async def server(client: Client) -> None:
        nonlocal asked
        while True:
            body = await client.request()
            if client.path == "/v1/models":
                models = {"object": "list", "data": [{"id": "llama"}]}
                await client.send(plain("200 OK", json.dumps(models).encode()))
                continue
            asked += 1
            words = len(json.loads(body)["messages"][-1]["content"].split())
            used = {"prompt_tokens": round(words * per_word) + fixed, "completion_tokens": 1}
            usage = b'data: {"choices":[],"usage":%s}\n\n' % json.dumps(used).encode()
            counted = usage if per_word or fixed else b""
            await client.send(HEAD + framed(chunk("a") + STOP + counted + DONE) + END)

    async def main() -> tuple[spec.Bench, dict[str, float]]:
        async with scripted(server) as url:
            bench = spec.Bench(url=url, workload=workload, **given)
            found, endpoint, scale = await ask(bench, parse_url(url))
            assert endpoint.path("m") == "/v1/chat/completions"
            return found, scale

    return *asyncio.run(main()), asked


def test_what_the_user_left_open_is_filled_in() -> None:
    found, scale, _ = asking(spec.Workload(), 1.0, 0)

    assert (found.endpoint, found.model) == ("openai-chat", "llama")
    assert scale == {}


def test_synthetic_prompts_are_scaled_to_the_servers_tokenizer() -> None:
    found, scale, asked = asking(SYNTHETIC, 2.0, 12, endpoint="openai-chat", model="mine")

    assert (found.endpoint, found.model) == ("openai-chat", "mine")
    assert scale == {"tokens_per_word": pytest.approx(2.0), "tokens_fixed": pytest.approx(12.0)}
    assert asked == 2


@pytest.mark.parametrize(("per_word", "fixed"), [(0.0, 0), (0.0, 9)])
def test_a_server_that_does_not_count_leaves_a_token_a_word(per_word: float, fixed: int) -> None:
    _, scale, _ = asking(SYNTHETIC, per_word, fixed, endpoint="openai-chat", model="m")

    assert scale == {}


def test_a_model_whose_inputs_are_unknown_is_told_with_those_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "forgetful.py").write_text(
        "from llmdyno.errors import TargetError\n"
        "class Forgetful:\n"
        "    name, rpc, ends_with_body = 'forgetful', False, False\n"
        "    def path(self, model): return '/forgetful'\n"
        "    async def tensors(self, server, model): raise TargetError('no such thing')\n"
        "    async def models(self, server): return ['llama', 'zephyr']\n"
        "ENDPOINT = Forgetful()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    async def silent(client: Client) -> None:
        await client.request()

    async def main(model: str) -> None:
        async with scripted(silent) as url:
            bench = spec.Bench(url=url, endpoint="own.forgetful", model=model)
            await ask(bench, parse_url(url))

    with pytest.raises(TargetError, match=r"--model lama: .* it has 'llama', 'zephyr'"):
        asyncio.run(main("lama"))
    with pytest.raises(TargetError, match="no such thing"):
        asyncio.run(main("llama"))
