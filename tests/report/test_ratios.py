"""The forest plot of ratios against 1."""

import json

from llmdyno.report import ratios

ROW = {"name": "token rate", "ratio": 3.1, "low": 2.8, "high": 3.4, "shown": "3.10x"}


def test_one_is_in_sight_and_nothing_is_no_chart() -> None:
    drawn = ratios.draw([ROW], width_px=300)

    assert drawn is not None
    (low, high) = json.loads(json.dumps(drawn.to_dict()))["layer"][0]["encoding"]["x"]["scale"][
        "domain"
    ]
    assert low < 1
    assert high > 3.4
    assert ratios.draw([], width_px=300) is None


def test_a_ratio_without_an_interval_is_a_point_alone() -> None:
    with_interval = ratios.draw([ROW], width_px=300)
    without = ratios.draw([{**ROW, "low": None, "high": None}], width_px=300)

    assert with_interval is not None
    assert without is not None
    assert len(with_interval.to_dict()["layer"]) == len(without.to_dict()["layer"]) + 1
