"""The settings before and after."""

import msgspec
import pytest

from llmdyno import report
from report.page_text import words
from report_samples import GUIDE, study


def test_settings_that_differ_come_first_and_defaults_are_marked() -> None:
    text = words(report.study_page(study(), GUIDE))
    differ = text.index("Settings that differ (2)")
    same = text.index("Settings that are the same (2)")
    caching = text.index(
        "enable_prefix_caching false (default) true The token rate is 2.9 times as high (2.6 to"
        " 3.2) Keeps the KV cache"
    )
    assert differ < caching < same < text.index("cache_size default: the engine decides")
    assert "max_num_batched_tokens 256 (default) 2048" in text
    assert "Large steps make the gaps between tokens longer" in text


@pytest.mark.parametrize(
    ("unit", "value", "said"),
    [
        ("threads", 1, "1 thread "),
        ("threads", 2, "2 threads "),
        ("copies", 1, "1 copy "),
        ("ms", 1, "1 ms "),
        ("s", 1, "1 s "),
    ],
)
def test_one_of_a_unit_is_no_plural(unit: str, value: int, said: str) -> None:
    knob = msgspec.structs.replace(GUIDE["max_num_batched_tokens"], unit=unit)
    document = study()
    document["best"]["config"] = {knob.name: value}
    assert f"(default) {said}" in words(report.study_page(document, {knob.name: knob}))


def test_a_default_that_is_set_by_hand_is_no_difference() -> None:
    document = study()
    document["best"]["config"] = {"max_num_batched_tokens": 256}
    assert "Settings that differ" not in words(report.study_page(document, GUIDE))


def test_the_default_is_that_of_the_engines_version() -> None:
    knob = msgspec.structs.replace(
        GUIDE["max_num_batched_tokens"], defaults=(("2027.1", 512), ("2026.4", 256))
    )
    text = words(report.study_page(study(), {knob.name: knob}))
    assert "max_num_batched_tokens 256 (default) 2048" in text


def test_the_words_of_engine_arg_are_a_setting_that_is_the_same() -> None:
    document = study()
    assert "engine arguments" not in words(report.study_page(document, GUIDE))

    document["engine_args"] = ["--a=1", "--b=two words"]

    text = words(report.study_page(document, GUIDE))
    assert "engine arguments --a=1 '--b=two words' --a=1 '--b=two words' Words at the end" in text
    assert "Settings that are the same (3)" in text
