"""What the libraries are asked to do: `python ask.py LIBRARY/WHAT URL MODEL`, in their own Python.

Each function uses its library as its own documentation does, and fails with what that raises or
with an assertion. Nothing here is llmdyno's.
"""

import sys
from typing import Any

TOKENS = 8


def _openai(url: str) -> Any:
    import openai

    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def openai_chat(url: str, model: str) -> None:
    """Ask for a chat, whole and as a stream with its usage."""
    asked: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "Hello."}],
        "max_completion_tokens": TOKENS,
    }
    with _openai(url) as client:
        whole = client.chat.completions.create(**asked)
        options = {"include_usage": True}
        events = list(client.chat.completions.create(**asked, stream=True, stream_options=options))
    text = "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    assert text == whole.choices[0].message.content
    assert events[-1].usage.completion_tokens == whole.usage.completion_tokens == TOKENS


def openai_completions(url: str, model: str) -> None:
    """Ask for completions of two prompts, whole and as a stream."""
    asked: dict[str, Any] = {"model": model, "prompt": ["One", "Two"], "max_tokens": TOKENS}
    with _openai(url) as client:
        whole = client.completions.create(**asked)
        texts = ["", ""]
        for event in client.completions.create(**asked, stream=True):
            texts[event.choices[0].index] += event.choices[0].text
    assert texts == [choice.text for choice in whole.choices]


def openai_models(url: str, model: str) -> None:
    """List the models and retrieve the one."""
    with _openai(url) as client:
        assert model in [one.id for one in client.models.list()]
        assert client.models.retrieve(model).id == model


def langchain_chat(url: str, model: str) -> None:
    """Invoke, stream and batch langchain's chat model."""
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(
        model=model, base_url=f"{url}/v1", api_key="none", max_tokens=TOKENS, temperature=0
    )
    whole = chat.invoke("Hello.")
    assert "".join(str(piece.content) for piece in chat.stream("Hello.")) == whole.content
    assert whole.usage_metadata["output_tokens"] == TOKENS
    assert len(chat.batch(["One", "Two"])) == 2


def langchain_completions(url: str, model: str) -> None:
    """Invoke, stream and generate with langchain's completion model."""
    from langchain_openai import OpenAI

    made = OpenAI(
        model=model, base_url=f"{url}/v1", api_key="none", max_tokens=TOKENS, temperature=0
    )
    whole = made.invoke("Hello")
    assert whole
    assert "".join(made.stream("Hello")) == whole
    several = made.generate(["Hello", "Two"])
    assert [len(one) for one in several.generations] == [1, 1]


def litellm_chat(url: str, model: str) -> None:
    """Complete a chat with LiteLLM as for any OpenAI-compatible server, and as for vLLM."""
    import litellm

    for kind in ("openai", "hosted_vllm"):
        asked: dict[str, Any] = {
            "model": f"{kind}/{model}",
            "api_base": f"{url}/v1",
            "api_key": "none",
            "messages": [{"role": "user", "content": "Hello."}],
            "max_tokens": TOKENS,
        }
        whole = litellm.completion(**asked)
        pieces = litellm.completion(**asked, stream=True)
        text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
        assert text == whole.choices[0].message.content
        assert whole.usage.completion_tokens == TOKENS


def litellm_completions(url: str, model: str) -> None:
    """Complete a text with LiteLLM."""
    import litellm

    asked: dict[str, Any] = {
        "model": f"text-completion-openai/{model}",
        "api_base": f"{url}/v1",
        "api_key": "none",
        "prompt": "Hello",
        "max_tokens": TOKENS,
    }
    whole = litellm.text_completion(**asked)
    pieces = litellm.text_completion(**asked, stream=True)
    assert "".join(piece.choices[0].text or "" for piece in pieces) == whole.choices[0].text


if __name__ == "__main__":
    globals()[sys.argv[1].replace("/", "_")](sys.argv[2], sys.argv[3])
