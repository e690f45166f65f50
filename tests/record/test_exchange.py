"""What is recorded of one request, whenever its parts are parsed."""

import pytest

from llmdyno.record.exchange import Exchange
from llmdyno.record.heads import Head


def test_an_answer_has_ended_when_its_last_part_came_not_when_it_was_parsed() -> None:
    asked = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    path = "/v1/completions"
    exchange = Exchange(Head(method="POST", path=path, headers={}, forward=asked, framing=asked))
    exchange.follow_request(asked, 1_000)
    exchange.note_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab", 2_000)
    exchange.note_answer(b"cd", 3_000)
    exchange.follow_answer()

    assert exchange.is_answered
    assert exchange.ended("", now_ns=900_000).end_ns == 3_000
    assert exchange.ended("cut", now_ns=900_000).end_ns == 900_000


@pytest.mark.parametrize(
    ("method", "path", "recorded"),
    [
        ("POST", "/v1/chat/completions", True),
        ("POST", "/v1/responses", True),
        ("POST", "/v1/messages", True),
        ("GET", "/v1/messages", False),
        ("POST", "/v1/embeddings", False),
    ],
)
def test_requests_for_text_are_recorded(method: str, path: str, recorded: bool) -> None:
    exchange = Exchange(Head(method=method, path=path, headers={}, forward=b"", framing=b""))

    assert (exchange.passed is not None) == recorded
