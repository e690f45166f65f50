"""A server of exactly known timing: `python -m llmdyno.streamer`."""

ENDPOINT = "openai-chat"  # what it speaks
