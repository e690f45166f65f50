"""Samples of GPUs: a line of nvidia-smi's is read, and whose it is."""

import pytest

from llmdyno.bench.gpu import is_local, read_line

LINE = "1, 87, 70123, 612.50, 1980, 61, 0x0000000000000004, GPU-1a2b3c4d-0000"


def test_a_line_is_a_sample_in_our_units() -> None:
    sample = read_line(LINE, 3, 42)

    assert sample is not None
    assert (sample.level, sample.t_ns, sample.gpu) == (3, 42, 1)
    assert sample.use == pytest.approx(0.87)
    assert (sample.memory_mib, sample.power_w) == (70123.0, 612.5)
    assert (sample.clock_mhz, sample.temperature_c, sample.throttle) == (1980.0, 61.0, 4)


def test_what_a_gpu_does_not_tell_is_none() -> None:
    sample = read_line("0, [N/A], [N/A], [N/A], [Not Supported], [N/A], [N/A], [N/A]", 0, 0)

    assert sample is not None
    assert (sample.use, sample.memory_mib, sample.power_w) == (None, None, None)
    assert (sample.clock_mhz, sample.temperature_c, sample.throttle) == (None, None, 0)


@pytest.mark.parametrize(
    "line", ["", "NVIDIA-SMI has failed because it could not talk to the driver", LINE[3:]]
)
def test_what_is_no_sample_is_none(line: str) -> None:
    assert read_line(line, 0, 0) is None


@pytest.mark.parametrize(
    ("shown", "ours"),
    [
        (("1",), True),
        (("0", "2"), False),
        (("GPU-1a2b",), True),
        (("GPU-1A2B",), True),
        (("GPU-ff",), False),
        ((), False),
    ],
)
def test_only_gpus_that_are_shown_are_read(shown: tuple[str, ...], ours: bool) -> None:
    assert (read_line(LINE, 0, 0, shown) is not None) == ours


def test_this_machine_is_told_from_others() -> None:
    assert is_local("127.0.0.1")
    assert is_local("localhost")
    assert not is_local("192.0.2.1")  # an address for documents, nobody's
    assert not is_local("models.invalid")
