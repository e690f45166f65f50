"""POST /v1/completions, streamed: the prompt goes in as it is, without a chat template.

The system prompt, if any, is put before the prompt with a blank line between.
"""

from typing import Any

from llmdyno.endpoints import Ask, Endpoint
from llmdyno.endpoints._json_events import joined_prompt
from llmdyno.endpoints._openai import TOKEN_IDS, TOP, OpenAI


def _prompt(ask: Ask) -> dict[str, Any]:
    return {"prompt": joined_prompt(ask)}


ENDPOINT: Endpoint = OpenAI(
    name="openai-completions",
    path="/v1/completions",
    prompt_fields=_prompt,
    detect_order=30,  # for a model without a chat template
    logprobs=({"logprobs": TOP, **TOKEN_IDS}, {"logprobs": TOP}, {"logprobs": 1}),
)
