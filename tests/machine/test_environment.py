import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from llmdyno.machine import environment


def facts(**changes: Any) -> dict[str, Any]:
    """Return the facts of a quiet machine with sixteen cores and a GPU."""
    return {
        "llmdyno": "0.1.0",
        "cpu": {"model": "EPYC", "cores_usable": 16, "quota_cores": None, "governor": None},
        "load_average": [0.5, 0.5, 0.5],
        "gpus": [{"name": "H200", "driver": "580.1", "power_limit_w": 700.0, "mig": False}],
        "packages": {"vllm": "0.33.0"},
        **changes,
    }


def test_the_description_is_json_and_true() -> None:
    described = environment.describe()

    assert json.loads(json.dumps(described)) == described
    assert described["cpu"]["cores_usable"] == len(os.sched_getaffinity(0))
    assert described["cpu"]["model"]
    assert described["kernel"] == platform.release()
    assert described["reading"] in {"compiled", "plain"}
    assert described["memory_bytes"] > 2**28
    assert len(described["load_average"]) == 3
    assert described["packages"]["openvino-genai"]


def test_what_only_this_machine_has_is_in_its_description() -> None:
    described = environment.describe()

    assert environment.machine_ids(described) == environment.this_machine_ids()
    if Path("/proc/sys/kernel/random/boot_id").exists():
        assert described["boot"] in environment.this_machine_ids()
        assert Path("/proc/sys/kernel/random/boot_id").read_text().strip() != described["boot"]


def test_a_machine_is_known_by_its_gpus_and_its_boot() -> None:
    gpus = [{"name": "H200", "id": "a"}, {"name": "H200", "id": None}]

    assert environment.machine_ids({"gpus": gpus, "boot": "b"}) == {"a", "b"}
    assert environment.machine_ids({"gpus": [], "boot": None}) == frozenset()
    assert environment.machine_ids({}) == frozenset()  # an older result


def test_versions_are_those_that_the_metadata_has() -> None:
    described = environment.describe()["packages"]

    assert described == {name: metadata.version(name) for name in described}
    assert {"openvino-genai", "openvino", "tritonclient", "uvloop"} <= set(described)


def test_a_package_that_an_older_list_could_not_hold_is_no_difference() -> None:
    older = facts(packages={"vllm": "0.33.0"})
    newer = facts(packages={"vllm": "0.34.0", "vllm-plugin": "1"}, packages_listed_by="name")

    assert environment.differences(older, newer) == ["vllm: 0.33.0 before, 0.34.0 after"]
    assert "vllm-plugin: none before, 1 after" in environment.differences(
        {**older, "packages_listed_by": "name"}, newer
    )


def test_no_secret_and_no_name_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_sentinel")

    described = json.dumps(environment.describe())

    assert "hf_sentinel" not in described
    assert f'"{platform.node()}"' not in described
    assert str(Path.home()) not in described


def test_the_same_machine_does_not_differ_from_itself() -> None:
    assert environment.differences(environment.describe(), environment.describe()) == []


def test_two_gpus_of_one_kind_are_two() -> None:
    gpu = {"name": "H200", "driver": "580", "power_limit_w": 700.0, "mig": False}
    one, other = ({"gpus": [{**gpu, "id": name}]} for name in ("a1", "b2"))

    assert environment.differences(one, other) == ["GPU ids: a1 before, b2 after"]
    assert environment.differences(one, one) == environment.differences({"gpus": [gpu]}, one) == []


def test_a_quiet_machine_gets_no_warning() -> None:
    assert environment.warnings(facts()) == []


def test_facts_of_an_older_version_are_read() -> None:
    assert environment.warnings({}) == []
    assert environment.differences({}, {}) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"load_average": [8.1, 0.0, 0.0]}, "load average 8.1 on 16 cores"),
        ({"cpu": {"cores_usable": 2}}, "Only 2 CPU cores"),
        ({"cpu": {"cores_usable": 16, "quota_cores": 1.5}}, "Only 1.5 CPU cores"),
        ({"cpu": {"cores_usable": 16, "governor": "powersave"}}, "'powersave'"),
    ],
)
def test_what_spoils_a_measurement_is_warned_of(changes: dict[str, Any], said: str) -> None:
    found = environment.warnings(facts(**changes))

    assert len(found) == 1
    assert said in found[0]


def test_unlike_runs_are_told_apart() -> None:
    after = facts(
        cpu={"model": "Xeon", "cores_usable": 16, "quota_cores": 4.0, "governor": None},
        gpus=[],
        packages={"vllm": "0.34.0", "bentoml": "1.4.39"},
        load_average=[9.0, 9.0, 9.0],
    )

    assert environment.differences(facts(), after) == [
        "CPU: EPYC before, Xeon after",
        "CPU quota in cores: none before, 4 after",
        "GPUs: H200 (driver 580.1, 700 W) before, none after",
        "bentoml: none before, 1.4.39 after",
        "vllm: 0.33.0 before, 0.34.0 after",
    ]
