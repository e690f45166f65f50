"""JUnit XML of a run: what a CI server shows of SLOs that were met or missed.

One suite a run, one test case an SLO and level. An SLO that was missed is a failure with the value
and the limit; one for which nothing was measured is an error, since a test that could not be made
has not failed. The shape is the strict one of the Ant schema, which the laxer readers (Jenkins,
GitLab, GitHub actions) take too: that is why empty elements and a host name are there.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmdyno import store
from llmdyno.results.documents import level_name
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.slo import parse_slos

_COUNTS = {"failure": "failures", "error": "errors", "skipped": "skipped"}
# Characters that XML 1.0 does not allow, escaped or not.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(summary: Mapping[str, Any], path: Path) -> None:
    """Write a summary's SLOs as JUnit XML.

    Raises:
        StorageError: the file cannot be written.
    """
    store.write_atomically(path, junit_xml(summary))


def junit_xml(summary: Mapping[str, Any]) -> bytes:
    """Return a summary's SLOs as a JUnit XML document."""
    durations_s = {level_name(level): level["duration_s"] for level in summary["levels"]}
    cases = [_case(summary, verdict, durations_s) for verdict in summary["slo"]]
    return document_of(
        [
            suite_of(
                summary["run"],
                cases,
                timestamp=_without_zone(summary["started"]),
                seconds=sum(level["duration_s"] for level in summary["levels"]),
            )
        ]
    )


def suite_of(
    name: str,
    cases: Sequence[ET.Element],
    *,
    timestamp: str,
    seconds: float = 0.0,
    kinds: Sequence[str] = ("failure", "error"),
    said: str = "",
) -> ET.Element:
    """Return a test suite of these cases.

    Args:
        name: of what was tested.
        cases: the test cases.
        timestamp: in UTC and without a zone.
        seconds: that the cases took.
        kinds: what is counted of the cases: failure, error, skipped.
        said: the suite's output.
    """
    suite = ET.Element(
        "testsuite",
        {
            "id": "0",
            "name": clean(name),
            "package": "llmdyno",
            # Results are passed on, and a summary has no host name.
            "hostname": "localhost",
            "timestamp": timestamp,
            "tests": str(len(cases)),
            **{
                _COUNTS[kind]: str(sum(case.find(kind) is not None for case in cases))
                for kind in kinds
            },
            "time": _seconds(seconds),
        },
    )
    ET.SubElement(suite, "properties")
    suite.extend(cases)
    ET.SubElement(suite, "system-out").text = clean(said) or None
    ET.SubElement(suite, "system-err")
    return suite


def document_of(suites: Sequence[ET.Element]) -> bytes:
    """Return suites as a JUnit XML document; each gets its number."""
    root = ET.Element("testsuites")
    for number, suite in enumerate(suites):
        suite.set("id", str(number))
        root.append(suite)
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _case(
    summary: Mapping[str, Any], verdict: Mapping[str, Any], durations_s: Mapping[str, float]
) -> ET.Element:
    at, value = verdict["at"], verdict["value"]
    case = ET.Element(
        "testcase",
        {
            "name": clean(f"{verdict['expr']} at {at}"),
            "classname": clean(f"llmdyno.{summary['run']}"),
            "time": _seconds(durations_s[at]),
        },
    )
    if verdict["met"]:
        return case
    (slo,) = parse_slos(verdict["expr"])
    unit = BY_NAME[slo.metric].unit
    limit = f"the limit is {slo.relation} {slo.limit:g} {unit}"
    if value is None and verdict.get("at_least") is not None:
        # Requests still waited when the window ended: too many to tell more.
        said = f"{slo.metric} {slo.stat} is at least {verdict['at_least']:g} {unit}"
        kind, message = "failure", f"{said}; {limit}"
    elif value is None:
        kind, message = "error", f"{slo.metric} {slo.stat} was not measured; {limit}"
    else:
        kind, message = "failure", f"{slo.metric} {slo.stat} is {value:g} {unit}; {limit}"
        if (share := verdict.get("failed_share")) is not None:
            message += f", but {100 * share:.3g} % of the requests failed"
    details = ET.SubElement(case, kind, {"type": "slo", "message": clean(message)})
    details.text = clean(f"{verdict['expr']} at {at}: {message}.")
    return case


def clean(text: str) -> str:
    """Replace what no XML document may hold; quoting the rest is the library's work."""
    return _NOT_XML.sub("\ufffd", text)


def _without_zone(started: str) -> str:
    """Return an ISO time in UTC and without a zone, as the schema wants it."""
    return datetime.fromisoformat(started).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _seconds(value_s: float) -> str:
    return f"{value_s:.3f}"
