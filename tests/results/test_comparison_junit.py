"""JUnit XML of a comparison."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from compared_runs import side
from llmdyno.results.comparison import document
from llmdyno.results.comparison_junit import junit_xml
from llmdyno.results.fail_on import parse_limits
from llmdyno.results.sides import Side


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Side, Side]:
    """A run, and one that is slower."""
    folder = tmp_path_factory.mktemp("runs")
    return side(folder, "a"), side(folder, "b", seed=1, slower=0.1)


def read(written: bytes) -> ET.Element:
    return ET.fromstring(written)  # noqa: S314 - our own


def cases(found: dict[str, Any]) -> dict[str | None, ET.Element]:
    root = read(junit_xml(found))
    return {case.get("name"): case for case in root.iter("testcase")}


def test_a_case_is_a_limit_at_a_level(sides: tuple[Side, Side]) -> None:
    limits = parse_limits("token_rate:-5%,ttft:p99:+50%,goodput:-5%")

    found = cases(document(sides[0], [sides[1]], limits=limits))

    failure = found["token_rate:-5% at 2 users"].find("failure")
    assert failure is not None
    assert "-5 % is allowed" in (failure.get("message") or "")
    assert len(found["ttft:p99:+50% at 2 users"]) == 0
    error = found["goodput:-5% at 2 users"].find("error")
    assert error is not None
    assert "no value in a" in (error.get("message") or "")


def test_without_limits_nothing_fails(sides: tuple[Side, Side]) -> None:
    written = junit_xml(document(sides[0], [sides[1]]))

    (suite,) = read(written)
    counts = {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "3", "failures": "0", "errors": "0", "skipped": "0"}
    assert (suite.findtext("system-out") or "").startswith("Worse: token rate -9.")


def test_each_side_is_a_suite_and_odd_names_are_harmless(sides: tuple[Side, Side]) -> None:
    odd = sides[1]._replace(name='<&"\x00>')

    suites = list(read(junit_xml(document(sides[0], [sides[1], odd]))))

    assert [suite.get("name") for suite in suites] == ["b against a", '<&"\ufffd> against a']


def test_a_level_of_one_side_is_an_error(sides: tuple[Side, Side], tmp_path: Path) -> None:
    other = side(tmp_path, "c", users=(5,), seconds=5)

    found = cases(document(sides[0], [other], limits=parse_limits("token_rate:-5%")))

    errors = [found[f"token_rate:-5% at {at}"].find("error") for at in ("2 users", "5 users")]
    assert [error is not None and error.get("message") for error in errors] == [
        f"not comparable: measured in {name} only" for name in ("a", "c")
    ]
