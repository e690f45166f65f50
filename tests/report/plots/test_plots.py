"""Every plot is found, used, and says how to read it."""

from pathlib import Path

from llmdyno import report
from llmdyno.report import plots
from report.page_text import charts
from report_samples import GUIDE, study


def test_every_plot_is_used_and_says_how_to_read_it() -> None:
    files = {path.stem for path in Path(plots.__file__).parent.glob("[!_]*.py")}
    assert set(charts(report.study_page(study(), GUIDE))) == files
    for section in ("headline", "latency", "time", "trials", "confirmation", "ablation"):
        for plot in plots.load(section).values():
            assert plot.title
            assert plot.says.endswith(".")
