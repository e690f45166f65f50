"""JSON documents that hold rows: lists, and the wrappers that people and tools put around them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

# The keys under which a document keeps its rows; the first that is there wins. Of several splits
# it is the one for training.
_WRAPPERS = (
    *("data", "rows", "train", "examples", "items", "records", "samples", "instances", "entries"),
    *("dataset", "prompts", "questions", "requests", "inputs", "test", "validation", "eval"),
)
# A document that has one of these as a plain value is a row by itself.
_OF_A_ROW = (
    "prompt",
    "question",
    "instruction",
    "text",
    "input",
    "timestamp",
    "due_s",
    "body",
    "block_size",
    "hash_id_scope",
)
_OF_A_MESSAGE = ("role", "from")


def rows_of(document: Any) -> Iterator[Row]:
    """Yield the rows of a document: its items, those of what it wraps, its columns, or itself."""
    yield from map(row_of, _items(document))


def is_wrapper(document: Any) -> bool:
    """Whether a document holds rows and is no row by itself."""
    items = _items(document)
    return len(items) != 1 or items[0] is not document


def row_of(item: Any) -> Row:
    """Return a row of an item of a list or of a line.

    A text is a prompt, a list of messages a conversation; a row of the hub's viewer stands under
    `row`.
    """
    if isinstance(item, dict):
        inner = item.get("row")
        return inner if isinstance(inner, dict) else item
    if isinstance(item, list) and item and all(map(_is_message, item)):
        return {"messages": item}
    return {"prompt": item}


def one_after_the_other(text: str) -> list[Any] | None:
    """Return the documents of a text that has several, as `jq` prints them; None if a part is none.

    A list whose documents are divided by commas alone is not one.
    """
    decoder, found, place = json.JSONDecoder(), [], 0
    text = text.rstrip()
    while place < len(text):
        while text[place].isspace():
            place += 1
        try:
            document, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            return None
        found.append(document)
    return found


def _items(document: Any) -> Sequence[Any]:
    if isinstance(document, list):
        return [] if not document else _conversation_or_items(document)
    if not isinstance(document, dict) or _is_row(document):
        return [document]
    for key in _WRAPPERS:
        if isinstance(document.get(key), list | dict):
            return _items(document[key])
    lists = [value for value in document.values() if _holds_rows(value)]
    if len(lists) == 1:
        return _items(lists[0])
    return _columns(document) or _by_name(document) or [document]


def _conversation_or_items(items: list[Any]) -> Sequence[Any]:
    """Return a list's items; one conversation alone, a list of messages, is one item."""
    return [items] if all(map(_is_message, items)) else items


def _is_row(document: Mapping[str, Any]) -> bool:
    if any(isinstance(document.get(key), str | int | float) for key in _OF_A_ROW):
        return True
    return any(_is_talk(value) for key, value in document.items() if key not in _WRAPPERS)


def _is_message(item: Any) -> bool:
    return isinstance(item, dict) and any(key in item for key in _OF_A_MESSAGE)


def _holds_rows(value: Any) -> bool:
    """Whether a value is a list of rows: of mappings that are no messages and no parts of one."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and not _is_message(item) for item in value)
        and not all("type" in item for item in value)
    )


def _columns(document: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a table that is written by its columns, as lists or by index (pandas)."""
    columns = list(document.values())
    if all(isinstance(column, dict) for column in columns) and len(columns) > 0:
        names = list(columns[0])
        if not all(name.isdigit() for name in names):
            return []
        if not all(list(column) == names for column in columns):
            return []
        columns = [list(column.values()) for column in columns]
    if not columns or not all(isinstance(column, list) for column in columns):
        return []
    if len({len(column) for column in columns}) != 1 or any(map(_is_talk, columns)):
        return []
    return [dict(zip(document, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _is_talk(column: Any) -> bool:
    """Whether a list is one row's messages, not a column."""
    return isinstance(column, list) and bool(column) and all(map(_is_message, column))


def _by_name(document: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a document that has each under its name or number."""
    found = list(document.values())
    return found if len(found) > 1 and all(isinstance(row, dict) for row in found) else []
