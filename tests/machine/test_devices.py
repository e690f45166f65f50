"""Which parts of a machine are leased, to whom, and what cannot be."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from llmdyno.errors import UsageError
from llmdyno.machine import devices, hardware
from llmdyno.machine.devices import Devices, Lease


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Four cores, two on each of two physical ones as Linux numbers them, and nothing chosen."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(devices, "_place", lambda core: (0, core % 2))
    monkeypatch.setattr(hardware, "_quota_cores", lambda _: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return monkeypatch


def with_gpus(
    machine: pytest.MonkeyPatch,
    place: Path,
    count: int,
    mig: str = "Disabled",
    used: Sequence[int] = (),
) -> None:
    """Let nvidia-smi tell of so many GPUs, of which others use some."""
    program = place / "nvidia-smi"
    whole = f"NVIDIA H200, 143771, 580.1, 9.0, 1980, 700.00, {mig}, GPU-1"
    use = "".join(f"{n}, {80_000 if n in used else 4}, 0, {mig}\n" for n in range(count))
    program.write_text(
        f"#!/bin/sh\ncase \"$*\" in *memory.used*) printf '{use}';; *) cat <<END\n"
        + f"{whole}\n" * count
        + "END\n;; esac\n"
    )
    program.chmod(0o755)
    machine.setenv("PATH", f"{place}:{os.environ['PATH']}")


def test_no_part_is_leased_twice_and_what_comes_back_is_leased_again(
    machine: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_gpus(machine, tmp_path, 12)
    shared = Devices(3, 1)

    one, four, rest = shared.take(1), shared.take(4), shared.take(7)

    assert (str(one), str(four), str(rest)) == ("GPU 0", "GPU 1,2,3,4", "GPU 5,6,7,8,9,10,11")
    assert shared.take(1) is None
    assert four is not None
    shared.give_back(four)
    assert shared.take(5) is None
    # In the order of the bus: GPU 10 is not before GPU 2.
    assert [str(shared.take(1)) for _ in range(3)] == ["GPU 1", "GPU 2", "GPU 3"]


def test_a_server_sees_the_gpus_of_its_lease_alone(
    machine: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_gpus(machine, tmp_path, 2)

    by_the_bus, cores = Devices(2, 1).take(1), Devices(2, 0).take(0)

    assert by_the_bus is not None
    assert by_the_bus.environment == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "0",
    }
    assert cores is not None
    # Two servers on parts of the cores must not meet on a GPU that neither has leased.
    assert cores.environment == {"CUDA_VISIBLE_DEVICES": ""}
    machine.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa,3,3")
    chosen = Devices(2, 1).take(2)
    assert chosen is not None
    assert chosen.environment == {"CUDA_VISIBLE_DEVICES": "GPU-aa,3"}


def test_gpus_that_others_use_are_leased_last(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_gpus(machine, tmp_path, 4, used=[0, 2])

    assert [str(lease) for lease in Devices(2, 1).usual] == ["GPU 1", "GPU 3"]
    assert str(Devices(2, 1).take(3)) == "GPU 1,3,0"


def test_cores_are_divided_evenly_and_a_physical_core_is_never_in_two_lanes(
    machine: pytest.MonkeyPatch,
) -> None:
    assert [str(lease) for lease in Devices(2, 0).usual] == ["cores 0,2", "cores 1,3"]
    # Three lanes of one each: the fourth core is nobody's, as one lane would be another machine.
    assert [lease.cores for lease in Devices(3, 0).usual] == [(0,), (2,), (1,)]
    assert str(Lease(cores=(8, 0, 1, 2))) == "cores 0-2,8"
    machine.setattr(hardware, "_quota_cores", lambda _: 2.5)
    assert [str(lease) for lease in Devices(2, 0).usual] == ["core 0", "core 2"]


def test_what_takes_more_than_there_is_never_fits(
    machine: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_gpus(machine, tmp_path, 4)
    gpus, cores = Devices(2, 2), Devices(2, 0)

    assert [gpus.fits(count) for count in (0, 1, 4, 5)] == [True, True, True, False]
    assert [cores.fits(count) for count in (0, 1)] == [True, False]
    assert (gpus.lanes, gpus.parts) == (2, 4)


def test_a_lane_that_is_left_out_is_replaced_by_gpus_that_are_spare(
    machine: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_gpus(machine, tmp_path, 3)
    shared = Devices(2, 1)

    shared.leave_out("GPU 0")
    assert [str(lease) for lease in shared.usual] == ["GPU 1", "GPU 2"]
    shared.leave_out("GPU 2")
    shared.leave_out("GPU 2")  # of a ledger that is read again

    assert shared.lanes == 1
    assert str(shared.take(1)) == "GPU 1"
    assert shared.take(1) is None


def test_a_lease_may_ask_for_the_very_parts_of_another(
    machine: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_gpus(machine, tmp_path, 4)
    shared = Devices(2, 1)

    assert str(shared.take(1, "GPU 2,3")) == "GPU 2"
    assert shared.take(1, "GPU 2") is None
    assert str(shared.take(2, "GPU 0,1")) == "GPU 0,1"
    assert str(Devices(2, 0).take(0, "cores 1,3")) == "cores 1,3"


def test_what_is_left_out_is_hidden_from_servers_without_a_lease_too(
    machine: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_gpus(machine, tmp_path, 4)
    machine.delenv("CUDA_DEVICE_ORDER", raising=False)
    shared = Devices(2, 1)
    shared.hide_left_out()
    assert "CUDA_VISIBLE_DEVICES" not in os.environ

    shared.leave_out("GPU 0,2")
    shared.hide_left_out()

    shown = (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["CUDA_DEVICE_ORDER"])
    assert shown == ("1,3", "PCI_BUS_ID")
    shared.show_all()
    assert not {"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"} & os.environ.keys()


@pytest.mark.parametrize(
    ("lanes", "each", "shown", "words"),
    [
        (5, 0, None, "--parallel 5: takes 5 CPU cores, 1 for each trial, and 4 can be used here;"),
        (2, 4, "0,1,2,3", "takes 8 GPUs, 4 for each trial, and 4 can be used here; leave it out"),
        (3, 1, "0,1", "and 2 can be used here; set at most 2"),
        (3, 1, "0,-1,1", "and 1 can be used here; leave it out"),
        (2, 1, "MIG-1", "CUDA_VISIBLE_DEVICES=MIG-1 names parts of GPUs"),
        (2, 1, None, "nvidia-smi does not tell which whole GPUs there are"),
    ],
)
def test_more_than_the_machine_has_is_refused_in_a_sentence(
    lanes: int, each: int, shown: str | None, words: str, machine: pytest.MonkeyPatch
) -> None:
    machine.setenv("PATH", "")
    if shown is not None:
        machine.setenv("CUDA_VISIBLE_DEVICES", shown)

    with pytest.raises(UsageError) as refused:
        Devices(lanes, each)

    assert words in str(refused.value)


def test_parts_of_gpus_are_no_lanes(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_gpus(machine, tmp_path, 2, mig="Enabled")

    with pytest.raises(UsageError, match="whole GPUs"):
        Devices(2, 1)
