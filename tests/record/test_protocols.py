"""Which requests are recorded, by their paths."""

import pytest

from llmdyno import endpoints
from llmdyno.record.protocols import endpoint_of


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/v1/chat/completions", "openai-chat"),
        ("/openai/deployments/m/chat/completions/", "openai-chat"),
        ("/v1/completions", "openai-completions"),
        ("/v1/responses", "openai-responses"),
        ("/responses", "openai-responses"),
        ("/v1/messages", "anthropic-messages"),
        ("/anthropic/v1/messages", "anthropic-messages"),
        ("/messages", "anthropic-messages"),
        ("/v1/threads/thread_1/messages", ""),
        ("/v1/messages/count_tokens", ""),
        ("/v1/responses/resp_1/cancel", ""),
        ("/v1/embeddings", ""),
    ],
)
def test_the_path_tells_the_protocol(path: str, endpoint: str) -> None:
    assert endpoint_of(path) == endpoint


def test_the_paths_of_the_endpoints_are_recorded() -> None:
    for name in ("openai-chat", "openai-completions", "openai-responses", "anthropic-messages"):
        assert endpoint_of(endpoints.load(name).path("m")) == name
