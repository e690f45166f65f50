"""What a result file holds: one document, a list of them, one on each line, one after another.

Files are read by what is in them and not by their names: JSON in all these forms, YAML, and text
that an importer knows to parse.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml

from llmdyno.errors import UsageError
from llmdyno.importers._looks import looks
from llmdyno.importers._text import place

Foreign = Mapping[str, Any]

_SPACE = re.compile(r"[ \t\r\n\x00\x1e]*")  # x1e: JSON text sequences, RFC 7464
# A list that holds numbers alone is no result, and a log begins "[INFO]" or "[2026-01-01".
_JSON_START = re.compile(r"[\s\x00\x1e]*(?:\{|\[\s*(?:[\[{\"\]]|$|\d+\s*[,\]]))")
# A first line that may begin a mapping or a list of YAML.
_YAML_START = re.compile(r"\A(?:\s*#[^\n]*\n|\s*\n|---[^\n]*\n)*(?:- |[\w.'\"-]+[ \t]*:(?:\s|$))")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads dates as the texts that they are; nothing in the file is run."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def from_json(path: Path, text: str) -> list[Foreign]:
    """Return the objects of a text in JSON, none if it is no JSON at all.

    Raises:
        UsageError: the JSON is broken, or holds something else than objects.
    """
    if not _JSON_START.match(text):
        return []
    try:
        values = _values(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{path}: is not JSON: {place(error.doc, error.pos)}: {error.msg}{_if_cut_off(error)}."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is not JSON: {error}.") from error
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    if not values or not all(isinstance(value, dict) for value in values):
        said = looks(text, values) if values else "an empty list of JSON"
        raise UsageError(
            f"{path}: is no result that we know: it looks like {said}, and a result is an object"
            f" or several; {_odd(values)} holds no JSON object."
        )
    return values


def from_yaml(text: str) -> list[Foreign]:
    """Return the mappings of a text in YAML, none if it is no such text."""
    if not _YAML_START.match(text):
        return []
    try:
        values = list(yaml.load_all(text, _Loader))  # the loader is derived from the safe one
    except (yaml.YAMLError, ValueError, RecursionError):
        return []
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    values = [value for value in values if value is not None]
    if not all(isinstance(value, dict) for value in values):
        return []
    return [{str(key): item for key, item in value.items()} for value in values]


def _values(text: str) -> list[Any]:
    decoder = json.JSONDecoder()
    # Pages of the web turn spaces into no-break spaces; JSON does not know them.
    plain = text.replace("\xa0", " ")
    values, position = [], _end_of_space(plain, 0)
    while position < len(plain):
        value, position = decoder.raw_decode(plain, position)
        values.append(value)
        position = _end_of_space(plain, position)
    return values


def _end_of_space(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    assert space is not None, "it matches nothing at all, too"
    return space.end()


def _if_cut_off(error: json.JSONDecodeError) -> str:
    rest = error.doc[error.pos :].strip()
    return "; the file breaks off there" if "\n" not in rest and not rest.endswith("}") else ""


def _odd(values: list[Any]) -> str:
    """Name the first value that is no object."""
    at = next((number for number, one in enumerate(values, 1) if not isinstance(one, dict)), 0)
    return f"entry {at} of {len(values)}" if len(values) > 1 else "it"
