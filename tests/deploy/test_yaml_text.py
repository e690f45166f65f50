"""YAML as people like to read it, and as any parser does."""

from typing import Any

import yaml

from llmdyno.deploy.yaml_text import dump


def test_keys_stay_in_our_order_and_texts_of_many_lines_are_blocks() -> None:
    text = dump([{"b": 1, "a": "one\ntwo\n", "c": "é"}], heading="first\nsecond")

    assert text == "# first\n# second\nb: 1\na: |\n  one\n  two\nc: é\n"


def test_what_occurs_twice_is_written_twice() -> None:
    shared = {"x": [1]}

    text = dump([{"a": shared, "b": shared}], heading="h")

    assert "&" not in text
    assert yaml.safe_load(text) == {"a": {"x": [1]}, "b": {"x": [1]}}


def test_several_documents_are_told_apart() -> None:
    documents: list[dict[str, Any]] = [{"a": 1}, {"b": "no", "c": "1e3", "d": "$x: #y"}]

    assert list(yaml.safe_load_all(dump(documents, heading="h"))) == documents
