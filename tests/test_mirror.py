"""The tests mirror the source: src/llmdyno/WING/NAME.py is tested by tests/WING/test_NAME.py.

Who changes a module finds its tests by its path. Beside them may stand tests of no single module:
contracts, faults, messages, whole runs.
"""

from pathlib import Path

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src" / "llmdyno"

# Covered by the test that starts it: a module whose every public name is one process's entry.
EXEMPT = {
    "load/worker.py": "a process; load/test_workers.py starts it and reads its journal",
}
# Plug-ins of one kind, and small parts of one thing, are tested together: module or folder → test.
TOGETHER = {
    "endpoints": "endpoints/test_contract.py",
    "dashboard/server.py": "dashboard/test_board.py",
    "record/entries.py": "record/test_scribe.py",
    "record/exchange.py": "record/test_relay.py",
    "record/prompts.py": "record/test_lines.py",
    **dict.fromkeys(
        (
            *("predict/asked.py", "predict/document.py", "predict/grid.py", "predict/judged.py"),
            *("predict/best.py", "predict/options.py", "predict/planning.py"),
            *("predict/compared.py", "predict/prices.py", "predict/keeping_up.py"),
            "report/plan_page.py",
        ),
        "cli/test_plan.py",
    ),
    **dict.fromkeys(
        (
            *("predict/coarse.py", "predict/forecast.py", "predict/server.py"),
            *("predict/simulated.py", "predict/steptime.py", "predict/work.py"),
        ),
        "predict/test_calibrate.py",
    ),
    "load/clocks.py": "load/test_ray_workers.py",
    "cli/worker.py": "tune/test_worker.py",
    "tune/arm.py": "tune/test_combined_hosts.py",
    "tune/joint_proof.py": "tune/test_combined.py",
    "tune/copied.py": "tune/test_worker.py",
    "tune/crew.py": "tune/test_hosts.py",
    "tune/membership.py": "tune/test_team.py",
    "tune/where.py": "tune/test_hosts.py",
    "tune/database.py": "tune/test_team.py",
    "tune/hosts.py": "tune/test_worker.py",
    "tune/narrator.py": "dashboard/test_study.py",
    "tune/reference.py": "tune/test_alike.py",
    "tune/summaries.py": "tune/test_steps.py",
    "predict/api.py": "predict/test_schedule.py",
    "predict/checkpoint.py": "predict/test_published.py",
    "predict/config_keys.py": "predict/test_shapes.py",
    "predict/configs.py": "predict/test_shapes.py",
    "predict/decoder.py": "predict/test_shapes.py",
    "predict/families.py": "predict/test_published.py",
    "predict/known.py": "predict/test_shapes.py",
    "predict/links.py": "predict/test_gpus.py",
    "predict/simulation.py": "predict/test_schedule.py",
    "predict/states.py": "predict/test_hybrids.py",
    "predict/towers.py": "predict/test_published.py",
    "predict/underway.py": "predict/test_schedule.py",
    "report/limits.py": "predict/test_limits.py",
    "report/plots": "report/plots/test_plots.py",
    "report/distributions.py": "report/plots/test_plots.py",
    **dict.fromkeys(
        (
            *("report/answers.py", "report/explanation.py", "report/failures.py"),
            *("report/method.py", "report/setup.py", "report/spending.py", "report/untested.py"),
        ),
        "report/test_html.py",  # the page that has their sentences
    ),
    "spec": "spec/test_spec.py",
    "testing": "test_examples.py",
    "workload/kinds": "workload/test_contract.py",
    "workload/traces": "workload/test_traces.py",
    "workload/builtin.py": "workload/test_data.py",
    "workload/prompts.py": "workload/test_same_prompts.py",
    "workload/share.py": "load/test_workers.py",
    "workload/words.py": "workload/test_same_prompts.py",
    "records/server_page.py": "results/test_crosscheck.py",
    "processes/indexes.py": "processes/test_environments.py",
    "report/side_tables.py": "report/test_run_tables.py",
    "results/gave.py": "terminal/test_lists.py",
    "results/level_checks.py": "results/test_doubts.py",
    "tune/goals.py": "tune/test_race.py",
    "tune/noise.py": "tune/test_pairs.py",
    "report/comparison_table.py": "report/test_comparison_markdown.py",
    "results/comparison_words.py": "results/test_comparison.py",
    "cli/sides.py": "cli/test_compare.py",
    "tune/outlook.py": "tune/test_remaining.py",
    "tune/paired.py": "tune/test_study.py",
    "terminal/coloured.py": "terminal/test_tables.py",
    "tune/pair_runs.py": "tune/test_strikes.py",
    "results/pair_doubts.py": "tune/test_strikes.py",
    "terminal/dry_run.py": "tune/test_dry_run.py",
    "search/memory.py": "search/test_own.py",
    "search/points.py": "search/test_model.py",
    "search/predictor.py": "search/test_model.py",
    "search/simple.py": "search/test_samplers.py",
    "search/tpe.py": "search/test_samplers.py",
    "tune/combined_study.py": "tune/test_combined.py",
    "tune/explained.py": "tune/test_ablation.py",
    "results/conclusions.py": "tune/test_word.py",
    "tune/checked.py": "tune/test_gate.py",
    "tune/blame.py": "tune/test_word.py",
    "tune/endings.py": "tune/test_word.py",
    "tune/rejected.py": "tune/test_word.py",
    "embedded/limits.py": "engines/test_openvino.py",
    "tune/entries.py": "tune/test_ledger.py",
    "tune/jobs.py": "tune/test_team.py",
    "tune/going_on.py": "tune/test_word.py",
    "tune/lane.py": "tune/test_lanes.py",
    "tune/neighbours.py": "tune/test_word.py",
    "tune/proof.py": "tune/test_tuner.py",
    "tune/runner.py": "tune/test_tuner.py",
    "tune/trials.py": "tune/test_tuner.py",
    "results/quality.py": "quality/test_gate.py",
    "results/observations.py": "results/test_metrics.py",
}


def modules() -> list[Path]:
    """Return the public modules, relative to the package."""
    found = [path.relative_to(SOURCE) for path in SOURCE.rglob("*.py")]
    return sorted(path for path in found if not any(part.startswith("_") for part in path.parts))


def file_of(module: Path) -> Path:
    """Return where the tests of a module stand."""
    return TESTS / module.with_name(f"test_{module.name}")


def is_together(module: Path) -> bool:
    """Whether a module, or its folder, is tested together with others."""
    return str(module) in TOGETHER or str(module.parent) in TOGETHER


def test_a_module_has_its_test_file() -> None:
    asked = [path for path in modules() if not is_together(path) and str(path) not in EXEMPT]

    assert [
        str(file_of(path).relative_to(TESTS)) for path in asked if not file_of(path).is_file()
    ] == []


def test_what_is_exempt_is_there_and_has_no_test_file() -> None:
    assert [module for module in EXEMPT if not (SOURCE / module).is_file()] == []
    assert [module for module in EXEMPT if file_of(Path(module)).exists()] == []


def test_what_is_tested_together_is_there() -> None:
    assert [place for place in TOGETHER if not (SOURCE / place).exists()] == []
    assert [test for test in TOGETHER.values() if not (TESTS / test).is_file()] == []


def test_a_test_file_tests_something() -> None:
    empty = [
        path.relative_to(TESTS)
        for path in TESTS.rglob("test_*.py")
        if "\ndef test_" not in path.read_text() and "class Test" not in path.read_text()
    ]

    assert empty == []
