"""POST /v1/chat/completions, streamed: what vLLM, SGLang, trtllm-serve and most others speak.

The prompt is a user message; the system prompt, if any, goes before it.
"""

from typing import Any

from llmdyno.endpoints import Ask, Endpoint
from llmdyno.endpoints._json_events import messages_of
from llmdyno.endpoints._openai import TOKEN_IDS, TOP, OpenAI


def _messages(ask: Ask) -> dict[str, Any]:
    system = [{"role": "system", "content": ask.system_prompt}] if ask.system_prompt else []
    return {"messages": [*system, *messages_of(ask)]}


ENDPOINT: Endpoint = OpenAI(
    name="openai-chat",
    path="/v1/chat/completions",
    prompt_fields=_messages,
    detect_order=20,  # before those that most servers have besides and that count no tokens
    logprobs=(
        {"logprobs": True, "top_logprobs": TOP, **TOKEN_IDS},
        {"logprobs": True, "top_logprobs": TOP},
        {"logprobs": True},
    ),
)
