"""How numbers are written."""

import re
from pathlib import Path

import pytest

import llmdyno
from llmdyno.results import wording


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "-"),
        (0, "0"),
        (0.04211, "0.0421"),
        (4.2, "4.20"),
        (9.999, "10.0"),
        (99.96, "100"),
        (1371.4, "1,370"),
        (-0.5, "-0.500"),
    ],
)
def test_numbers_have_three_significant_digits(value: float | None, written: str) -> None:
    assert wording.significant(value) == written


@pytest.mark.parametrize(
    ("value_ms", "written"), [(0.42, "0.420 ms"), (412, "412 ms"), (1290, "1.29 s"), (None, "-")]
)
def test_latencies_choose_their_unit(value_ms: float | None, written: str) -> None:
    assert wording.milliseconds(value_ms) == written


def test_an_interval_of_latencies_has_the_unit_of_its_value() -> None:
    assert wording.milliseconds_interval((128, 1140), 508) == "[128, 1,140] ms"
    assert wording.milliseconds_interval((940, 1140), 1030) == "[0.940, 1.14] s"


@pytest.mark.parametrize(
    ("value", "text"),
    [(8.0, "8"), (12.5, "12.5"), (1234.5, "1,234"), (14160.0, "14,160"), (123456.0, "123,500")],
)
def test_a_short_number_has_no_exponent(value: float, text: str) -> None:
    assert wording.short(value) == text


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        (["a (process 1)"], "Another study ran on this machine at the same time: a (process 1)"),
        (
            ["s (process 1)", "s (process 2)", "b (process 3)"],
            "3 other studies ran on this machine at the same time: s, b",
        ),
        (
            [f"{name} (process 1)" for name in "abcde"],
            "5 other studies ran on this machine at the same time: a, b, c, 2 more",
        ),
    ],
)
def test_studies_beside_are_counted_and_named_once(beside: list[str], said: str) -> None:
    assert wording.studies_beside(beside) == said


@pytest.mark.parametrize(
    ("value", "digits", "said"),
    [(0.2134, 0, "21 %"), (0.2134, 1, "21.3 %"), (1.0, 0, "100 %"), (0.0, 1, "0.0 %")],
)
def test_a_share_has_a_space_before_its_sign(value: float, digits: int, said: str) -> None:
    assert wording.share(value, digits) == said
    assert wording.share(None, digits) == wording.ABSENT


def test_no_sentence_writes_a_share_by_itself() -> None:
    source = Path(llmdyno.__file__).parent
    # A TOML file has shares as they are typed; what the search expects has a sign.
    others = {source / "predict/document.py", source / "search/own.py"}
    found = [
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        if path not in others and re.search(r":[+]?\.[0-9]%\}", path.read_text())
    ]

    assert len(list(source.rglob("*.py"))) > 100
    assert found == []
