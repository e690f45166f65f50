"""Finds the class of a command's failure in the last lines of its output.

A failure has a class because the tuner must distinguish a config that needs too much memory from a
machine whose port is taken.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from llmdyno.processes.launch import Launch, Step

FAILURES: Mapping[str, str] = {
    "bad-config": "the engine refused a setting",
    "out-of-memory": "there was not enough memory, of the GPU or of the machine",
    "gpu-unavailable": "it found no GPU that works: there is none, or it is broken, lost or held "
    "by another program",
    "missing-library": "a program, package or shared library that it needs is not installed",
    "driver-too-old": "the GPU's driver is older than the CUDA that its packages are built for: "
    "install a newer driver, or packages for an older CUDA",
    "port-in-use": "another program listens on its port",
    "model-not-found": "the model is not there",
    "auth": "the model's source refused the credentials",
    "disk-full": "there is no space left on the disk",
    "system-limit": "the system lets no further process or thread start, or file be opened: raise "
    "ulimit -u or -n, or the container's limit of processes or memory",
    "start-timeout": "it was not ready in time",
    "died": "it ended without a reason that we know",
    "hung": "it runs but does not answer",
}

GPU = "gpu-unavailable"
LIMIT = "system-limit"

# A warning has its level before any error that it quotes: "WARNING 11-28", "(x pid=7) WARNING",
# "x.py:7: UserWarning: ". Elsewhere in a line the word tells nothing: it may be a file's name.
_LEVEL = r"(?:(?!(?i:error): |\bERROR\b|\[Errno ).)*?(?:\bWARN(?:ING)?\b|[Ww]arning: )"
# The beginnings of a line that is no warning; that tells of nothing survived; and of an error.
_NO_WARNING = rf"^(?!{_LEVEL})"
_FATAL = rf"{_NO_WARNING}(?!.*(?i:falling back))"
_ERROR = rf"{_FATAL}.*(?i:error\b)"
_NO_MORE = r"((?i:can't start new thread|\btoo many open files\b)|\bEMFILE\b)"
_UNKNOWN = "CUDA unknown error - this may be due to"

# Messages of engines, Python and the kernel, tried after the engine's own; first match wins.
SYMPTOMS: Sequence[tuple[str, str]] = (
    (r"^cannot start .*: (Cannot allocate memory|Too many open files)", LIMIT),  # the leash's words
    (r"(?i)CUDA out of memory|OutOfMemoryError|\bout of memory\b", "out-of-memory"),
    (r"\bbad_alloc\b|^MemoryError|Cannot allocate memory", "out-of-memory"),
    (r"cudaErrorMemoryAllocation|No available memory for the cache", "out-of-memory"),
    # vLLM warns of "Too many open files" wherever it cannot raise the limit.
    (rf"{_FATAL}.*{_NO_MORE}", LIMIT),
    (r"(?i)(\bfork: |BlockingIOError: ).*Resource temporarily unavailable", LIMIT),
    (r"No space left on device|ENOSPC|Disk quota exceeded", "disk-full"),
    (
        r"(?i)\b(address|socket|port)\b.* already in use|EADDRINUSE|port \d+ is already",
        "port-in-use",
    ),
    (r"ModuleNotFoundError|ImportError|cannot open shared object file", "missing-library"),
    # Before the GPU's: a driver that is too old finds no GPU either. Triton's own warning, at every
    # start without a GPU, is none of these.
    (r"^(?![WE]\d{4} ).*CUDA driver version is insuff", "driver-too-old"),
    (r"NVIDIA driver on your system is too old", "driver-too-old"),
    # CUDA's, NVML's, PyTorch's and the kernel module's words.
    (r"^(?![WE]\d{4} ).*[Nn]o CUDA-capable device is detected", GPU),
    # PyTorch's, which an engine may survive on a CPU: only an error tells.
    (rf"{_ERROR}.*No CUDA GPUs are available", GPU),
    (r"(?i)CUDA-capable device\S* (is|are|is/are) busy|uncorrectable ECC error", GPU),
    (r"(?i)GPU (is lost|has fallen off the bus|requires reset)|\bsystem not yet initialized", GPU),
    (rf"Driver/library version mismatch|{_ERROR}.*{_UNKNOWN}", GPU),
    (r"^(?![WE]\d{4} ).*no NVIDIA driver", "missing-library"),
    (r"undefined symbol", "missing-library"),
    (r"command not found|^cannot start .*: No such file", "missing-library"),
    (r"GatedRepoError|gated repo|\b401 (Client Error|Unauthorized)|\b403 Forbidden", "auth"),
    (r"(?i)accept the (model's )?licen[cs]e|licen[cs]e agreement|invalid credentials", "auth"),
    (r"RepositoryNotFound|is not a local folder and is not a valid model", "model-not-found"),
    (r"(?i)model\S* .*(not found|does not exist)", "model-not-found"),
    (r"No such file .*(model|\.gguf|config\.json)", "model-not-found"),
    (r"unrecognized arguments|invalid choice|error: argument", "bad-config"),
    (r"(?i)no such option|unexpected argument|unknown (option|flag|argument)", "bad-config"),
    (r"the following arguments are required|ValidationError|\bValueError\b", "bad-config"),
    (r"(?i)invalid (value|option|argument)", "bad-config"),
    # In warnings, or survived as it says: if nothing else tells why.
    (_UNKNOWN, GPU),
    (rf"{_NO_WARNING}.*{_NO_MORE}", LIMIT),
    (r"pthread_create failed", LIMIT),  # OpenBLAS's, which goes on with fewer threads
)
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def diagnose(lines: Sequence[str], command: Launch | Step) -> tuple[str, str]:
    """Return the class of a failure and the lines that decide it, ready to be printed."""
    for pattern, kind in (*command.symptoms, *SYMPTOMS):
        # The last matching line counts: earlier ones may be of faults that the engine survived.
        for line in reversed(lines):
            if re.search(pattern, line):
                return kind, _quote([line])
    return "died", _quote(lines[-3:])


def _quote(lines: Sequence[str]) -> str:
    if not lines:
        return " It wrote nothing."
    return "".join(f"\n    {line[:500]}" for line in lines) + "\n"


def lines(raw: bytes) -> list[str]:
    """Split output into lines without terminal colours; each state of a progress bar is a line."""
    text = _TERMINAL_CODES.sub("", raw.decode(errors="replace"))
    return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


def oom_kills() -> int | None:
    """Return how many processes the kernel's OOM killer has ended; None without its counter."""
    try:
        found = re.search(r"^oom_kill (\d+)", Path("/proc/vmstat").read_text("utf-8"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None
