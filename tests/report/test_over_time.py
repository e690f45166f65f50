"""The charts over time: one a level, gaps stay gaps."""

from llmdyno.report import over_time
from llmdyno.report.documents import Material, Run
from report_samples import summary, tuned_summary


def test_each_level_has_a_chart_with_the_runs_overlaid() -> None:
    runs = (Run(name="Before", summary=summary()), Run(name="After", summary=tuned_summary()))

    drawn = over_time.draw("token_rate", "Tokens/s", Material(runs=runs))

    assert drawn is not None
    document = drawn.to_dict()
    assert [chart["title"] for chart in document["vconcat"]] == [
        "10 users",
        "50 users",
        "100 users",
    ]
    assert {"Before", "After"} <= {
        row["run"] for rows in document["datasets"].values() for row in rows if "run" in row
    }


def test_a_value_that_is_not_there_stays_a_gap() -> None:
    document = summary()
    document["levels"] = document["levels"][:1]
    document["levels"][0]["samples"][1]["ttft_ms_p50"] = None
    count = len(document["levels"][0]["samples"])

    drawn = over_time.draw("ttft_ms_p50", "TTFT", Material(runs=(Run(name="R", summary=document),)))

    assert drawn is not None
    rows = [row for rows in drawn.to_dict()["datasets"].values() for row in rows if "t_s" in row]
    assert len(rows) == count
    assert [row["value"] for row in rows].count(None) == 1


def test_without_samples_there_is_no_chart() -> None:
    document = summary()
    for level in document["levels"]:
        level["samples"] = []

    material = Material(runs=(Run(name="R", summary=document),))
    assert over_time.draw("token_rate", "Tokens/s", material) is None
