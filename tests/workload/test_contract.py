"""Every workload proves itself with the shipped contract; a new one is found because it exists.

A workload that needs a data set or a length has it in NEEDS.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llmdyno import plugins, workload
from llmdyno.testing.workloads import WorkloadContract
from llmdyno.units import Lengths

NAMES = plugins.names("workload.kinds")
ROWS = [{"prompt": f"What is {number}?"} for number in range(9)]
TRACE = [{"due_s": 0.5 * n, "input_tokens": 20 + n, "output_tokens": 3 + n} for n in range(10)]
NEEDS: Mapping[str, dict[str, Any]] = {
    "synthetic": {"isl": Lengths("uniform", 4, 40)},
    "file": {"dataset": "rows.jsonl"},
    "trace": {"dataset": "trace.jsonl"},
}


@pytest.fixture(autouse=True)
def data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file, rows in (("rows.jsonl", ROWS), ("trace.jsonl", TRACE)):
        (tmp_path / file).write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.chdir(tmp_path)


for name in NAMES:
    class_name = f"Test_{name.replace('-', '_')}"
    globals()[class_name] = type(
        class_name,
        (WorkloadContract,),
        {"workload": workload.load(name), "fields": NEEDS.get(name, {})},
    )


def test_the_contract_has_been_put_to_all_of_them() -> None:
    tested = {
        one.workload.name
        for one in globals().values()
        if isinstance(one, type)
        and issubclass(one, WorkloadContract)
        and one is not WorkloadContract
    }

    assert tested == set(NAMES)
