"""Objectives: what is refused, what a rate's interval is, and studies for rates of requests."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from conftest import last_json
from llmdyno.errors import ServerError, UsageError
from llmdyno.records.columns import Columns, Window
from llmdyno.records.entries import COMPLETED, CUT
from llmdyno.report import study_page
from llmdyno.results import stats
from llmdyno.results.measures import measures, series
from llmdyno.results.metrics import BY_NAME, Metric
from llmdyno.results.slo import Objective, parse_objective, parse_slos
from llmdyno.results.verdicts import verdict
from llmdyno.spec import Load, Workload
from llmdyno.terminal.study import verdict_lines
from llmdyno.tune import objectives
from llmdyno.tune.paired import Series, ratio
from llmdyno.tune.spec import Study
from llmdyno.units import lengths
from studies import STUDY, run
from study_lab import StudyLab, fast

REFUSED = {
    "goodput without an SLO": ("goodput", "", "", "add one, e.g. --slo 'ttft:p99<2s'"),
    "goodput by a rate": ("goodput", "token_rate>10", "", "add one, e.g. --slo 'ttft:p99<2s'"),
    "goodput by a gap": ("goodput", "itl:p99<1s", "", "counts the requests that meet an SLO"),
    "first token from due": ("ttft_due:p99", "", "", "closed-loop users have no due times"),
    "last token from due": ("e2e_due", "", "", "--objective e2e_due:p50: closed-loop users"),
    "an SLO from due": ("token_rate", "ttft_due<2s", "", "--slo ttft_due<2s: closed-loop users"),
    "an SLO on goodput alone": (
        *("token_rate", "goodput>1", ""),
        "--slo goodput>1: counts the requests that meet an SLO",
    ),
    "time per token of one": ("tpot:p95", "", "1", "--osl 1 gives outputs of one token"),
    "cost without a price": (
        *("cost_per_million_output", "", ""),
        "--objective cost_per_million_output:mean: needs a price, e.g. --price 3.50/h",
    ),
    "an SLO on cost without one": (
        *("token_rate", "cost_per_million_total<1", ""),
        "--slo cost_per_million_total<1: needs a price",
    ),
    "gaps of one token": ("itl", "", "1-1", "--osl 1-1 gives outputs of one token"),
    "gaps of just one token": ("itl", "", "normal:1,0", "gives outputs of one token"),
}


def study_of(objective: str, slos: str = "", osl: str = "") -> Study:
    return Study(
        objective=parse_objective(objective),
        slos=parse_slos(slos),
        workload=Workload(osl=lengths(osl, "--osl") if osl else None),
    )


@pytest.mark.parametrize("name", REFUSED)
def test_an_objective_that_can_have_no_value_is_refused(name: str) -> None:
    objective, slos, osl, words = REFUSED[name]

    with pytest.raises(UsageError) as refused:
        objectives.check(study_of(objective, slos, osl))

    assert words in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("objective", "slos", "osl"),
    [
        *(("token_rate", "", "1"), ("request_rate", "", "1"), ("ttft:p99", "", "1")),
        *(("e2e", "", "1"), ("tpot", "", "1-2"), ("itl:mean", "", ""), ("tpot", "", "normal:1,1")),
        *(("goodput", "ttft<2s", ""), ("goodput", "token_rate>1,e2e<2s", "")),
    ],
)
def test_what_can_have_a_value_is_not_refused(objective: str, slos: str, osl: str) -> None:
    objectives.check(study_of(objective, slos, osl))


def test_with_a_price_cost_is_an_objective_and_an_slo() -> None:
    asked = study_of("cost_per_million_output", "cost_per_million_total<0.4")

    objectives.check(msgspec.structs.replace(asked, price_per_h=3.5))


def test_in_an_open_loop_times_from_due_are_objectives() -> None:
    load = Load(arrival="poisson", rates=(2.0,))

    objectives.check(Study(objective=parse_objective("ttft_due:p99"), load=load))


def test_a_metric_that_nothing_confirms_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Metric(
        name="watts", short="watts", title="Power", unit="W", better="lower", definition="-"
    )
    monkeypatch.setitem(BY_NAME, "watts", row)

    with pytest.raises(UsageError, match="--objective watts:mean: cannot be confirmed"):
        objectives.check(Study(objective=Objective(metric="watts", stat="mean")))


def test_no_value_is_one_sentence_with_what_to_do() -> None:
    study = study_of("e2e:p95")

    objectives.require_value(study, 0.0, of="the baseline", flag="--duration")
    with pytest.raises(ServerError, match=r"the baseline has no value of --objective e2e:p95"):
        objectives.require_value(study, None, of="the baseline", flag="--duration")


def columns_of(e2e_ms: list[float], ends_ms: list[float], outcome: int = COMPLETED) -> Columns:
    """Return requests of one token each that end at these times."""
    count = len(ends_ms)
    last_ns = (np.array(e2e_ms) * 1e6).astype(np.int64)
    sent_ns = (np.array(ends_ms) * 1e6).astype(np.int64) - last_ns
    ones = np.ones(count, dtype=np.int64)
    nothing = np.zeros(0, dtype=np.int64)
    return Columns(
        due_ns=sent_ns,
        sent_ns=sent_ns,
        ttft_ns=last_ns,
        last_ns=last_ns,
        end_ns=last_ns,
        outcome=ones * outcome,
        timed_out=0 * ones,
        input_tokens=ones,
        output_tokens=ones,
        asked_tokens=-ones,
        first_tokens=ones,
        reads=ones,
        read_request=nothing,
        read_ns=nothing,
        read_tokens=nothing,
        read_gap_ns=nothing,
        read_later=nothing.astype(bool),
        read_timed=nothing.astype(bool),
    )


WINDOW = Window(start_ns=0, end_ns=10_000_000_000, method="-")


def test_rates_of_requests_have_intervals_from_their_stretches() -> None:
    rng = np.random.default_rng(1)
    ends_ms = np.sort(rng.uniform(0, 12_000, 600)).tolist()
    columns = columns_of(rng.uniform(1, 200, 600).tolist(), ends_ms)
    slos = parse_slos("e2e<100ms")

    measured = measures([(columns, WINDOW)], slos)

    for metric in ("request_rate", "goodput"):
        (low, high), mean = measured[metric]["ci95"], measured[metric]["mean"]
        assert low < mean < high
        observed = series(metric, columns, WINDOW, slos)
        assert observed.mean() == pytest.approx(mean, rel=1e-5)
        # Poisson: the deviation of a count is its root.
        assert high - low == pytest.approx(2 * 1.96 * (mean / WINDOW.length_s) ** 0.5, rel=0.4)
    assert 0.4 < measured["goodput"]["mean"] / measured["request_rate"]["mean"] < 0.6


def test_equal_runs_give_the_interval_between_them() -> None:
    ends_ms = np.linspace(10, 9_990, 100).tolist()
    runs = [(columns_of([5.0] * n, ends_ms[:n]), WINDOW) for n in (90, 100)]

    rate = measures(runs, parse_slos("e2e<1s"))["goodput"]

    assert rate["mean"] == 9.5
    assert rate["ci95"] == pytest.approx([9.5 - 12.706 * 0.5, 9.5 + 12.706 * 0.5], rel=1e-3)


def test_no_request_is_no_interval_and_no_slo_no_goodput() -> None:
    columns = columns_of([5.0] * 3, [10.0, 20.0, 30.0], outcome=CUT)

    measured = measures([(columns, WINDOW)], ())

    assert measured["request_rate"] == {"mean": 0.0, "ci95": None}
    assert measured["goodput"] is None
    assert not len(series("goodput", columns, WINDOW))
    assert all((metric.observe is None) != (metric.rate is None) for metric in BY_NAME.values())


def test_of_a_rate_that_was_zero_the_difference_decides() -> None:
    nothing, some = np.zeros(40), np.tile([3.0, 5.0], 20)
    more = some + 0.2

    found = ratio([Series(nothing, some), Series(nothing, more, (2, 3))], stats.mean_over_time)

    # Two runs of which only one arm is noisy leave one degree of freedom: Student's t is 12.706.
    low, high = found["difference"]["ci95"]
    assert found["mean"] is None
    assert found["difference"]["mean"] == pytest.approx(4.1)
    assert (low, high) == pytest.approx((4.1 - 12.706 * 0.1, 4.1 + 12.706 * 0.1), rel=0.4)
    assert verdict(found, maximise=True) == "better"
    assert verdict(found, maximise=False) == "worse"
    same = ratio([Series(nothing, nothing)] * 2, stats.mean_over_time)
    assert verdict(same, maximise=True) == "no difference"


def test_a_ratio_has_what_each_arm_measured() -> None:
    slow, fast = (Series(np.full(9, low), np.full(9, 3 * low)) for low in (2.0, 8.0))

    found = ratio([slow, fast], stats.mean_over_time)

    assert (found["before"], found["after"]) == (4.0, 12.0)  # geometric means
    assert found["mean"] == 3.0


def test_a_run_without_a_value_confirms_nothing() -> None:
    found = ratio([Series(np.ones(4), np.zeros(0))], stats.mean_over_time)

    assert found == {"mean": None, "ci95": None}
    assert verdict(found, maximise=True) == "not confirmed"


SHORT = (
    *(*STUDY, "-c", "6", "--duration", "2500ms", "--osl", "8"),
    *("--search", "itl_ms", "--trials", "1"),
)


def test_a_study_for_the_goodput_ends_with_a_verdict(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text("[[candidates]]\nitl_ms = 15\n")
    # The baseline takes 30 + 7 x 40 = 310 ms: it has no goodput.
    asked = ("study.toml", "--objective", "goodput", "--slo", "e2e<305ms", "--pairs", "3")

    done = run(tmp_path, *SHORT, *asked, "--out", "s", "--json")

    document = last_json(done.stdout)
    # On a busy machine a request may take twice its 135 ms, and its run misses the SLO.
    assert done.returncode == (not all(document["slo_outcome"]["tuned_meets"])), done.stderr
    confirmation = document["confirmation"]
    decisive = confirmation["ratio"]["goodput"]
    page = (tmp_path / "s" / "report.html").read_text()
    low, high = decisive["difference"]["ci95"]
    assert json.loads((tmp_path / "s" / "study.json").read_text()) == document
    assert (document["objective"], confirmation["decided_by"]) == ("goodput:mean", "goodput")
    assert confirmation["verdict"] == "better"
    assert {"token_rate", "ttft_ms_p50", "goodput"} == set(confirmation["ratio"])
    assert decisive["mean"] is None
    assert 0 < low < decisive["difference"]["mean"] < high
    assert "Better: at 6 users the goodput differs by +" in page
    assert "  goodput  " in done.stderr
    for arm in ("baseline", "best"):
        level = document[arm]["summary"]["levels"][-1]
        assert level["request_rate"]["ci95"][0] < level["request_rate"]["mean"]


def test_a_study_for_the_request_rate_ends_with_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = StudyLab(tmp_path / "s", monkeypatch)
    asked = lab.study(
        objective="request_rate", search="fast,itl_ms", candidates=[{"fast": True, "itl_ms": 15}]
    )

    document = lab.run(fast, asked)

    confirmation = document["confirmation"]
    decisive = confirmation["ratio"]["request_rate"]
    low, high = decisive["ci95"]
    truth = 1.9 * 20 / 15
    assert (document["objective"], confirmation["decided_by"]) == (
        *("request_rate:mean", "request_rate"),
    )
    assert confirmation["verdict"] == "better"
    assert {"token_rate", "ttft_ms_p50", "request_rate"} == set(confirmation["ratio"])
    assert decisive["mean"] == pytest.approx(truth, rel=0.05)
    assert 1 < low <= decisive["mean"] <= high
    said = f"at 2 users the request rate is {decisive['mean']:.1f} times as high"
    assert said in study_page(document, {})
    assert any("  request rate  " in line for line in verdict_lines(document))
    effects = {row["knob"]: row["effect"]["request_rate"] for row in document["ablation"]}
    assert effects["fast"]["ratio"] == pytest.approx(1.9, rel=0.05)
    assert effects["itl_ms"]["ratio"] == pytest.approx(20 / 15, rel=0.05)
    for effect in effects.values():
        assert effect["ci95"][0] <= effect["ratio"] <= effect["ci95"][1]


def test_a_baseline_without_a_value_ends_the_study_and_is_kept(tmp_path: Path) -> None:
    given = (*SHORT, "--objective", "e2e", "--osl", "500", "--duration", "1500ms")

    done = run(tmp_path, *given, "--out", "s")

    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith(
        "dyno: the baseline has no value of --objective e2e:p50 at 6 users:"
    )
    assert "Traceback" not in done.stderr
    kept = json.loads((tmp_path / "s" / "study.json").read_text())
    assert kept["baseline"]["summary"]["levels"][-1]["tokens"]["output"] > 0
    assert kept["trials"] == []


def test_goodput_without_an_slo_starts_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, *STUDY, "--objective", "goodput")

    assert done.returncode == 2
    assert "--objective goodput:mean: counts the requests" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
