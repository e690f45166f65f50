import pytest

from llmdyno.processes import diagnosis
from llmdyno.processes.launch import Step


def test_every_class_is_explained() -> None:
    kinds = {kind for _, kind in diagnosis.SYMPTOMS}

    assert kinds | {"died", "hung", "start-timeout"} == set(diagnosis.FAILURES)


def test_the_last_line_that_matches_is_quoted() -> None:
    step = Step(what="-", argv=("x",))
    lines = ["CUDA out of memory, trying a smaller batch", "CUDA out of memory", "bye"]

    assert diagnosis.diagnose(lines, step) == ("out-of-memory", "\n    CUDA out of memory\n")


def test_a_commands_own_symptoms_come_first() -> None:
    step = Step(what="-", argv=("x",), symptoms=((r"CUDA out of", "bad-config"),))

    assert diagnosis.diagnose(["CUDA out of memory"], step)[0] == "bad-config"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (
            "CUDA error: CUDA driver version is insufficient for CUDA runtime version",
            "driver-too-old",
        ),
        (
            "RuntimeError: The NVIDIA driver on your system is too old (found version 12020).",
            "driver-too-old",
        ),
        ("RuntimeError: Found no NVIDIA driver on your system.", "missing-library"),
        # Triton's own warning, at every start without a GPU.
        ("E1129 12:00:00.000000 7 x.cc:1] CUDA driver version is insufficient", "died"),
    ],
)
def test_an_old_driver_is_not_a_missing_one(line: str, kind: str) -> None:
    assert diagnosis.diagnose([line], Step(what="-", argv=("x",)))[0] == kind


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (
            (
                "UserWarning: CUDA initialization: The NVIDIA driver on your system is too old.",
                "RuntimeError: No CUDA GPUs are available",
            ),
            "driver-too-old",
        ),
        (
            (
                "WARNING 11-29 12:00:00 No CUDA GPUs are available, falling back to CPU",
                "pydantic_core.ValidationError: 1 validation error for EngineArgs",
            ),
            "bad-config",
        ),
        (
            (
                "UserWarning: CUDA initialization: CUDA unknown error - this may be due to an old",
                "error: argument --tp: invalid int value: 'x'",
            ),
            "bad-config",
        ),
        (
            (
                "UserWarning: CUDA initialization: CUDA unknown error - this may be due to an old",
                "RuntimeError: Failed to infer device type",
            ),
            "gpu-unavailable",
        ),
        (
            (
                "UserWarning: CUDA initialization: The NVIDIA driver on your system is too old.",
                "ModuleNotFoundError: No module named 'foo'",
            ),
            "missing-library",
        ),
        (("RuntimeError: No CUDA GPUs are available",), "gpu-unavailable"),
        (("/x/warnings.py:7: RuntimeError: No CUDA GPUs are available",), "gpu-unavailable"),
        (("ERROR 11-29 12:00:00 core.py:9] No CUDA GPUs are available",), "gpu-unavailable"),
        (("CUDA error 802: system not yet initialized",), "gpu-unavailable"),
        (("the tracing subsystem not yet initialized",), "died"),
    ],
)
def test_a_better_reason_than_the_gpus_counts(lines: tuple[str, ...], kind: str) -> None:
    assert diagnosis.diagnose(lines, Step(what="-", argv=("x",)))[0] == kind


def test_nothing_known_is_a_death_with_the_last_lines() -> None:
    step = Step(what="-", argv=("x",))

    assert diagnosis.diagnose(["a", "b", "c", "d"], step) == ("died", "\n    b\n    c\n    d\n")
    assert diagnosis.diagnose([], step) == ("died", " It wrote nothing.")


def test_a_progress_bars_states_are_lines_without_colours() -> None:
    assert diagnosis.lines(b"\x1b[32m1 %\x1b[0m\r50 %\r\n\n100 %  \n") == ["1 %", "50 %", "100 %"]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("RuntimeError: can't start new thread", "system-limit"),
        ("OpenBLAS blas_thread_init: pthread_create failed for thread 7 of 64", "system-limit"),
        ("sh: 0: Cannot fork: Resource temporarily unavailable", "system-limit"),
        ("BlockingIOError: [Errno 11] Resource temporarily unavailable", "system-limit"),
        ("OSError: [Errno 24] Too many open files: '/dev/shm/x'", "system-limit"),
        ("Error: EMFILE: too many open files, open '/x'", "system-limit"),
        # The word is a file's name here, or of what comes after; no level.
        ("OSError: [Errno 24] Too many open files: '/x/warnings.py'", "system-limit"),
        ("OSError: [Errno 24] Too many open files: '/x/WARNING'", "system-limit"),
        ("ERROR 11-29 12:00:00 Too many open files: /logs/WARNING", "system-limit"),
        ("RuntimeError: can't start new thread, falling back", "system-limit"),
        ("(EngineCore_0 pid=7) WARNING 11-29 12:00:00 OSError: Too many open files", "died"),
        ("[2026-11-29 12:00:00 TP0] WARNING x.py:7: Too many open files", "died"),
        ("WARNING:root:can't start new thread", "died"),
        ("[TensorRT-LLM][WARNING] too many open files", "died"),
        ("/x/on_error.py:7: RuntimeWarning: can't start new thread", "died"),
        ("time=2026-11-29T12:00:00Z level=WARN msg='too many open files'", "died"),
        ("cannot start vllm: Cannot allocate memory", "system-limit"),
        ("mapped memfile0 of 12 MiB; systemfile is read", "died"),
        # What a socket says in passing.
        ("recv: Resource temporarily unavailable", "died"),
    ],
)
def test_the_systems_limits_are_no_fault_of_a_config(line: str, kind: str) -> None:
    assert diagnosis.diagnose([line], Step(what="-", argv=("x",)))[0] == kind


@pytest.mark.parametrize(
    "warning",
    [
        "OpenBLAS blas_thread_init: pthread_create failed for thread 7 of 64",
        "RuntimeError: can't start new thread, falling back",
        (
            "WARNING 11-28 19:08:15 [system_utils.py:222] Found ulimit of 1024 and failed to"
            " automatically increase with error current limit exceeds maximum limit. This can"
            " cause fd limit errors like `OSError: [Errno 24] Too many open files`. Consider"
            " increasing with ulimit -n"
        ),
    ],
)
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("ValueError: max_num_seqs must be below 9", "bad-config"),
        ("ModuleNotFoundError: No module named 'x'", "missing-library"),
    ],
)
def test_a_limit_that_was_survived_is_not_the_reason(warning: str, error: str, kind: str) -> None:
    assert diagnosis.diagnose([warning, error], Step(what="-", argv=("x",)))[0] == kind
