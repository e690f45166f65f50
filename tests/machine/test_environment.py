import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from llmdyno.machine import environment, hardware


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


def test_a_gpu_is_read_as_nvidia_smi_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first is the answer of a real H200; the second lacks a field, as some drivers do.
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        "echo 'NVIDIA H200, 143771, 580.159.04, 9.0, 1980, 700.00, Disabled'\n"
        "echo 'NVIDIA H200, 143771, 580.159.04, 9.0, 1980, [N/A], Enabled'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    whole, part = hardware.gpus()

    assert whole == hardware.Gpu(
        name="NVIDIA H200", memory_mib=143771.0, driver="580.159.04", compute_capability="9.0",
        clock_mhz_max=1980.0, power_limit_w=700.0, mig=False,
    )  # fmt: skip
    assert (part.power_limit_w, part.mig) == (None, True)


@pytest.mark.parametrize("script", ["exit 9", "echo 'NVIDIA-SMI has failed'; exit 1"])
def test_a_failing_nvidia_smi_is_no_gpu(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert hardware.gpus() == ()


@pytest.mark.parametrize(
    ("text", "cores"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("", None)]
)
def test_a_containers_quota(text: str, cores: float | None) -> None:
    assert hardware._quota_cores(text) == cores


@pytest.mark.parametrize(
    ("setting", "visible"),
    [(None, 2), ("1", 1), ("0, 1", 2), ("", 0), ("1,-1,0", 1), ("MIG-5e6f7a8b", None)],
)
def test_gpus_are_counted_as_cuda_shows_them(
    setting: str | None, visible: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = hardware.Gpu(
        name="H200",
        memory_mib=143771.0,
        driver="580",
        compute_capability="9.0",
        clock_mhz_max=1980.0,
        power_limit_w=700.0,
        mig=False,
    )
    monkeypatch.setattr(hardware, "gpus", lambda: (gpu, gpu))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if setting is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)

    assert hardware.gpus_visible() == visible
