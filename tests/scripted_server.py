"""The scripted server, under the name that our tests have for it; it ships with the contracts."""

from llmdyno.testing.scripted_server import (
    DONE,
    END,
    HEAD,
    STOP,
    Client,
    Script,
    chunk,
    framed,
    plain,
    scripted,
)

__all__ = [
    "DONE",
    "END",
    "HEAD",
    "STOP",
    "Client",
    "Script",
    "chunk",
    "framed",
    "plain",
    "scripted",
]
