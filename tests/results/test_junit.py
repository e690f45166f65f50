"""The JUnit file against the shape that readers ask for, and with strings that try to break it."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from llmdyno.errors import StorageError
from llmdyno.results.junit import junit_xml, write_junit
from report_samples import level, summary

# What the strict schema (JUnit.xsd of the Ant task) requires.
SUITE = {"id", "name", "package", "hostname", "timestamp"}
SUITE |= {"tests", "failures", "errors", "time"}
CHILDREN = ["properties", "testcase", "system-out", "system-err"]


def judged(*verdicts: tuple[str, float | None, bool], run: str = "run-1") -> dict[str, Any]:
    document = summary([level(100, rate=525, ttft_ms=4300, duration_s=120.5)], run=run)
    document["slo"] = [
        {"expr": expr, "level": 100, "at": "100 users", "value": value, "met": met}
        for expr, value, met in verdicts
    ]
    return document


def parse(document: bytes) -> ET.Element:
    root = ET.fromstring(document)  # noqa: S314  # our own
    assert root.tag == "testsuites"
    (suite,) = root
    return suite


def test_each_slo_is_a_test_case_that_says_value_and_limit() -> None:
    suite = parse(
        junit_xml(
            judged(
                ("ttft:p99<2s", 12900.0, False),
                ("token_rate>500", 525.25, True),
                ("tpot:p95<50ms", None, False),
            )
        )
    )

    late, fast, unknown = suite.findall("testcase")
    failure, error = late.find("failure"), unknown.find("error")
    assert failure is not None
    assert error is not None
    assert late.get("name") == "ttft:p99<2s at 100 users"
    assert failure.get("message") == "ttft_ms p99 is 12900 ms; the limit is < 2000 ms"
    assert list(fast) == []
    assert error.get("message") == "tpot_ms p95 was not measured; the limit is < 50 ms"
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")


def test_a_value_beyond_all_that_was_seen_is_a_failure_with_its_bound() -> None:
    document = judged(("ttft:p99<1s", None, False))
    document["slo"][0]["at_least"] = 4831.38

    (case,) = parse(junit_xml(document)).findall("testcase")

    failure = case.find("failure")
    assert failure is not None
    assert failure.get("message") == "ttft_ms p99 is at least 4831.38 ms; the limit is < 1000 ms"


def test_failed_requests_that_miss_an_slo_stand_beside_its_value() -> None:
    document = judged(("ttft:p90<1s", 53.2, False))
    document["slo"][0]["failed_share"] = 0.25

    (case,) = parse(junit_xml(document)).findall("testcase")

    failure = case.find("failure")
    assert failure is not None
    assert failure.get("message") == (
        "ttft_ms p90 is 53.2 ms; the limit is < 1000 ms, but 25 % of the requests failed"
    )


def test_the_shape_is_the_strict_one() -> None:
    suite = parse(junit_xml(judged(("ttft:p99<2s", 12900.0, False))))
    (case,) = suite.findall("testcase")

    assert set(suite.keys()) == SUITE
    assert [child.tag for child in suite] == CHILDREN
    assert set(case.keys()) == {"name", "classname", "time"}
    assert [set(child.keys()) for child in case] == [{"type", "message"}]
    assert suite.get("timestamp") == "2026-11-23T20:44:00"
    assert case.get("time") == suite.get("time") == "120.500"


def test_a_time_with_a_zone_becomes_utc() -> None:
    document = judged()
    document["started"] = "2026-11-24T01:30:00+05:30"

    assert parse(junit_xml(document)).get("timestamp") == "2026-11-23T20:00:00"


def test_a_run_without_slos_is_an_empty_suite() -> None:
    suite = parse(junit_xml(judged()))

    assert (suite.get("tests"), suite.findall("testcase")) == ("0", [])


def test_hostile_names_neither_break_the_file_nor_change_it() -> None:
    hostile = "a\"'><![CDATA[&lt; ]]>\x00\x1b[31m\ud800\ufffe</testsuite>ü🙂"

    suite = parse(junit_xml(judged(("ttft:p99<2s", None, False), run=hostile)))

    kept = "a\"'><![CDATA[&lt; ]]>\ufffd\ufffd[31m\ufffd\ufffd</testsuite>ü🙂"
    assert suite.get("name") == kept
    assert suite.findall("testcase")[0].get("classname") == f"llmdyno.{kept}"


def test_it_is_written_or_one_sentence_says_why_not(tmp_path: Path) -> None:
    document = judged(("ttft:p99<2s", 12900.0, False))

    write_junit(document, tmp_path / "junit.xml")

    assert (tmp_path / "junit.xml").read_bytes() == junit_xml(document)
    with pytest.raises(StorageError, match="cannot write"):
        write_junit(document, tmp_path / "no" / "junit.xml")
