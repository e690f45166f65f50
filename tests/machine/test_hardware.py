"""What this machine is made of, as the kernel and nvidia-smi tell it."""

import os
from pathlib import Path

import pytest

from llmdyno.machine import hardware


def test_a_gpu_is_read_as_nvidia_smi_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first is the answer of a real H200; the second lacks a field, as some drivers do.
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        "echo 'NVIDIA H200, 143771, 580.159.04, 9.0, 1980, 700.00, Disabled, GPU-1'\n"
        "echo 'NVIDIA H200, 143771, 580.159.04, 9.0, 1980, [N/A], Enabled, GPU-2'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    whole, part = hardware.gpus()

    assert whole == hardware.Gpu(
        name="NVIDIA H200", memory_mib=143771.0, driver="580.159.04", compute_capability="9.0",
        clock_mhz_max=1980.0, power_limit_w=700.0, mig=False, id="9207b013e156",
    )  # fmt: skip
    assert (part.power_limit_w, part.mig) == (None, True)
    assert part.id not in {None, whole.id}


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


def test_this_processor_has_a_name_and_cores() -> None:
    found = hardware.cpu()

    assert found.model
    assert 1 <= found.cores_usable <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("lines", "count", "taken"),
    [
        (("0, 70000, 90, Disabled", "1, 10, 0, Disabled", "2, 20, 0, Disabled"), 2, (1, 2)),
        (("0, 0, 50, Disabled", "1, 0, 0, Disabled"), 1, (1,)),
        (("0, 0, 0, Disabled",), 2, ()),
        (("0, 0, 0, Disabled", "1, 0, 0, Enabled"), 1, ()),
        (("0, [N/A], [N/A], [N/A]",), 1, (0,)),
    ],
)
def test_the_gpus_that_others_use_least_are_taken(
    lines: tuple[str, ...],
    count: int,
    taken: tuple[int, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert hardware.least_used_gpus(count) == taken
