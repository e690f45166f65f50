"""GPUs by the names that people, clouds and drivers give them."""

import msgspec
import pytest

from llmdyno.errors import UsageError
from llmdyno.machine.peaks import Peaks
from llmdyno.predict.gpus import GPUS, cpu_gpu, gpu_of, gpus_of_text
from llmdyno.predict.links import link_bytes_s
from llmdyno.predict.shapes import shape_of
from llmdyno.predict.work import work_of


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("h200", "H200 SXM"),
        ("NVIDIA H200", "H200 SXM"),
        ("NVIDIA H200 NVL", "H200 NVL"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("H100-SXM5-80GB", "H100 SXM"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB SXM"),
        ("NVIDIA A100-PCIE-40GB", "A100 40GB PCIe"),
        ("a100-40gb", "A100 40GB SXM"),
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-16GB", "V100 16GB"),
        ("Tesla V100-SXM2-32GB", "V100 32GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("5090", "RTX 5090"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000 Server"),
        ("NVIDIA GH200 480GB", "GH200 96GB"),
        ("AMD Instinct MI300X", "MI300X"),
        ("gaudi3", "Gaudi 3"),
    ],
)
def test_names(said: str, name: str) -> None:
    assert gpu_of(said).name == name


@pytest.mark.parametrize("said", ["h300", "", "NVIDIA", "H100 80GB HBM3 MIG 1g.10gb"])
def test_an_unknown_name_gets_the_nearest(said: str) -> None:
    with pytest.raises(UsageError, match=r"no such GPU is known here\. Nearest: "):
        gpu_of(said)


def test_a_gpu_that_is_not_in_the_table_is_described() -> None:
    gpu = gpu_of("memory=96, bandwidth=1800,bf16=250;fp8=500")
    assert gpu.memory_bytes == 96 * 2**30
    assert gpu.bandwidth_bytes_s == 1.8e12
    assert gpu.flops == {"bf16": 250e12, "fp8": 500e12}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("memory=96,bandwidth=1800", "lacks bf16, as in memory="),
        ("memory=96,bandwidth=fast,bf16=1", "bandwidth must be a number above 0, not 'fast'"),
        ("memory=-1,bandwidth=1,bf16=1", "memory must be a number above 0"),
        ("memory=96,flops=3", "'flops' is none of memory, bandwidth, bf16"),
    ],
)
def test_a_wrong_description_is_told(said: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        gpu_of(said)


def test_the_table_is_of_dense_operations() -> None:
    """Sparse figures, which data sheets print large, are twice these."""
    for gpu in GPUS.values():
        assert gpu.source
        assert gpu.memory_bytes > 10e9, gpu.name
        assert 2e11 < gpu.bandwidth_bytes_s < 9e12, gpu.name
        # No GPU computes more than 1,400 operations of 16 bits on a byte that it reads.
        assert 30 < gpu.flops["bf16"] / gpu.bandwidth_bytes_s < 600, gpu.name
        assert gpu.flops.get("fp8", 1e99) >= gpu.flops["bf16"], gpu.name


def test_a_precision_that_is_not_there_computes_in_16_bits() -> None:
    assert gpu_of("a100").flops_at("fp8") == gpu_of("a100").flops["bf16"]
    assert gpu_of("h100").flops_at("fp8") == 1978.9e12


def test_this_cpu_is_measured() -> None:
    cpu = gpu_of("cpu")
    assert 1e8 < cpu.bandwidth_bytes_s < 2e12
    assert 1e8 < cpu.flops["bf16"] < 1e14
    assert cpu.memory_bytes > 1e8


def test_a_cpu_that_multiplies_bf16_computes_twice_as_much_and_keeps_short_numbers() -> None:
    plain = Peaks(
        bytes_s=5e10, near_bytes_s=5e10, flops=1e11, cores=2, cpu="a", measured="2026-11-29T10:00"
    )
    short = cpu_gpu(msgspec.structs.replace(plain, multiplies_bf16=True))

    assert (cpu_gpu(plain).flops["bf16"], cpu_gpu(plain).number_bytes) == (1e11, 4.0)
    assert (short.flops["bf16"], short.number_bytes) == (2e11, 2.0)


@pytest.mark.parametrize(
    ("name", "gb_s"),
    [
        ("h100", 450),
        ("a100", 300),
        ("A100 80GB PCIe", 32),
        ("l40s", 32),
        ("rtx 4090", 32),
        ("rtx 5090", 64),
        ("b200", 900),
        ("memory=80,bandwidth=3350,bf16=989", 450),
    ],
)
def test_how_fast_gpus_send_to_one_another(name: str, gb_s: float) -> None:
    assert link_bytes_s(gpu_of(name).name) == gb_s * 1e9


def test_gpus_over_pcie_take_longer_for_the_same_prompt() -> None:
    """Two GPUs: each sends half of 2 x 80 x 8,192 numbers of 2 bytes a token twice."""
    work = work_of(shape_of("llama-3.1-70b"), gpu_of("l40s"), 2, "fp8", "bf16")
    assert work.exchange_s == pytest.approx(80 * 2 * 8192 * 2 / 32e9)


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ("h200", ["H200 SXM"]),
        ("h200, NVIDIA H100 PCIe", ["H200 SXM", "H100 PCIe"]),
        ("memory=80,bandwidth=3350,bf16=989", ["memory=80,bandwidth=3350,bf16=989"]),
        (
            "l4,memory=80,bandwidth=3350,bf16=989,memory=96,bandwidth=4000,bf16=148,t4",
            ["L4", "memory=80,bandwidth=3350,bf16=989", "memory=96,bandwidth=4000,bf16=148", "T4"],
        ),
    ],
)
def test_several_gpus_by_their_names_and_figures(said: str, names: list[str]) -> None:
    assert [gpu.name for gpu in gpus_of_text(said)] == names
