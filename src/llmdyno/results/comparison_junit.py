"""JUnit XML of a comparison: what a CI server shows of what has become better or worse.

With --fail-on a test case is a limit at a level, and fails where the command does; a limit that
could not be judged is an error, as in junit.py. Without it a case is a number that decides, and
none fails: nobody has said how much worse is too much.
"""

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from llmdyno import store
from llmdyno.results import comparison_words as words
from llmdyno.results.comparison_words import Row
from llmdyno.results.junit import clean, document_of, suite_of


def write_junit(document: Mapping[str, Any], path: Path) -> None:
    """Write a comparison's document as JUnit XML.

    Raises:
        StorageError: the file cannot be written.
    """
    store.write_atomically(path, junit_xml(document))


def junit_xml(document: Mapping[str, Any]) -> bytes:
    """Return a comparison's document as JUnit XML: a suite for each side that is compared."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return document_of(
        [
            suite_of(
                f"{found['after']['name']} against {document['before']['name']}",
                _cases(document, found),
                timestamp=now,
                kinds=("failure", "error", "skipped"),
                said=found["said"],
            )
            for found in document["comparisons"]
        ]
    )


def _cases(document: Mapping[str, Any], found: Mapping[str, Any]) -> list[ET.Element]:
    after = found["after"]["name"]
    if document["gate"] is None:
        rows = msgspec.convert(found["rows"], list[Row])
        return [_of_row(row, after) for row in rows if row.decides]
    judged = [one for one in document["gate"]["limits"] if one["after"] == after]
    cases = [_of_limit(one) for one in judged]
    seen = {one["expr"] for one in judged}
    # A limit of which no level has a value is a test that could not be made.
    for expr in document["gate"]["fail_on"]:
        if expr not in seen:
            case = _case(f"{expr} at any level", after)
            _add(case, "error", f"not comparable: {found['why'] or 'no level has a value of it'}")
            cases.append(case)
    return cases


def _of_row(row: Row, after: str) -> ET.Element:
    case = _case(f"{row.title} at {row.at}", after)
    said = f"{words.change(row)}: {words.verdict(row)}"
    if row.verdict == "not comparable":
        ET.SubElement(case, "skipped", {"message": clean(words.verdict(row))})
    else:
        ET.SubElement(case, "system-out").text = clean(said)
    return case


def _of_limit(one: Mapping[str, Any]) -> ET.Element:
    case = _case(f"{one['expr']} at {one['at']}", one["after"])
    if one["fails"]:
        _add(case, "failure", one["said"])
    elif one["state"] == "not comparable":
        _add(case, "error", one["said"])
    return case


def _case(name: str, after: str) -> ET.Element:
    names = {"name": clean(name), "classname": clean(f"llmdyno.{after}"), "time": "0.000"}
    return ET.Element("testcase", names)


def _add(case: ET.Element, kind: str, said: str) -> None:
    details = ET.SubElement(case, kind, {"type": "fail-on", "message": clean(said)})
    details.text = clean(f"{case.get('name')}: {said}.")
