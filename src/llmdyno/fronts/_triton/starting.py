"""How a tritonserver is started: its command, its ports, its words when it fails."""

import socket
from pathlib import Path

from llmdyno.engines import Launch
from llmdyno.errors import ServerError
from llmdyno.fronts._triton.repository import Repository

LAUNCHER = Path(__file__).with_name("launcher.py")
_EXIT_TIMEOUT_S = 5

# What tritonserver and its Python models write when they fail.
SYMPTOMS = (
    (
        r"(failed to start|Unable to bind|bind).*(HTTP|GRPC|Metrics|socket|address|port)",
        "port-in-use",
    ),
    (r"[Aa]ddress already in use", "port-in-use"),
    (r"memory (size )?(available )?on the system|available memory", "out-of-memory"),
    (r"bad_alloc|MemoryError|[Cc]annot allocate memory|CUDA out of memory", "out-of-memory"),
    (r"[Nn]o space left on device|Failed to initialize Python stub.*shm|shm_open", "out-of-memory"),
    (r"cannot open shared object file|ModuleNotFoundError|ImportError", "missing-library"),
    (r"[Uu]nable to find backend library|unable to load backend", "missing-library"),
    (r"is no setting of|Wrong value|Unsupported property|Check '.*' failed", "bad-config"),
    (r"with this config|[Ii]nvalid argument|[Ff]ailed to parse|must specify", "bad-config"),
    (r"llmdyno\.triton: a Python model's process", "died"),
)


def launch(
    content: Repository,
    command: tuple[str, ...],
    models: Path,
    host: str,
    ports: tuple[int, int, int],
) -> Launch:
    """Return what starts a tritonserver on a repository; ports: HTTP, gRPC, metrics."""
    http, grpc, metrics = ports
    return Launch(
        argv=(
            *command,
            f"--model-repository={models}",
            *_addresses(host, http, grpc, metrics),
            "--disable-auto-complete-config",
            "--allow-gpu-metrics=false",
            f"--exit-timeout-secs={_EXIT_TIMEOUT_S}",
        ),
        url=f"http://{host}:{http}",
        endpoint="triton-generate",
        also={"triton-grpc": f"grpc://{host}:{grpc}"},
        model=content.model,
        health_path="/v2/health/ready",
        probe=(
            f"/v2/models/{content.model}/generate",
            {"text_input": "a", "max_tokens": 1, "stream": False},
        ),
        metrics_url=f"http://{host}:{metrics}/metrics",
        symptoms=SYMPTOMS,
    )


def _addresses(host: str, http: int, grpc: int, metrics: int) -> tuple[str, ...]:
    ports = {"http": http, "grpc": grpc, "metrics": metrics}
    return tuple(
        argument
        for name, port in ports.items()
        for argument in (f"--{name}-address={host}", f"--{name}-port={port}")
    )


def port_beside(host: str, port: int, step: int) -> int:
    """Return the port at its usual distance from HTTP's, or a free one if that is taken.

    Raises:
        ServerError: no port is free.
    """
    for candidate in (port + step, 0):
        try:
            with socket.create_server((host, candidate)) as probe:
                return int(probe.getsockname()[1])
        except (OSError, OverflowError):
            continue
    raise ServerError("port-in-use", f"{host}: no port is free for Triton (port-in-use).")
