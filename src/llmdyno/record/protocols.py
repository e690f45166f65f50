"""Which requests are recorded, told by their paths, and which endpoint reads their answers."""

CHAT = "openai-chat"
COMPLETIONS = "openai-completions"
RESPONSES = "openai-responses"
MESSAGES = "anthropic-messages"
# What a path ends with, whatever stands before it. OpenAI's threads have messages, too, which ask
# for no text: so the version belongs to that path.
_ENDINGS = (
    ("/chat/completions", CHAT),
    ("/completions", COMPLETIONS),
    ("/responses", RESPONSES),
    ("/v1/messages", MESSAGES),
)
_WITHOUT_VERSION = {"/messages": MESSAGES}  # where the server's URL has it


def endpoint_of(path: str) -> str:
    """Return the endpoint that reads the answers to a path's POSTs; empty: they are not recorded.

    Args:
        path: of a request, without a query.
    """
    path = path.rstrip("/")
    for ending, endpoint in _ENDINGS:
        if path.endswith(ending):
            return endpoint
    return _WITHOUT_VERSION.get(path, "")
