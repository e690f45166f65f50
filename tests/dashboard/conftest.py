"""A board that keeps what it is given, in the place of a page."""

from typing import Any

import pytest

from lab import made, results

__all__ = ["board", "made", "results"]


class Kept:
    """Takes what a board takes, and sends it nowhere."""

    def __init__(self) -> None:
        self.parts: dict[str, Any] = {}
        self.lists: dict[str, list[Any]] = {}

    def put(self, name: str, data: Any) -> None:
        self.parts[name] = data

    def add(self, name: str, entry: Any) -> None:
        self.lists.setdefault(name, []).append(entry)


@pytest.fixture
def board() -> Any:
    return Kept()
