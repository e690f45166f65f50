"""Which releases have a value of a knob, and what took a knob's place, on the PyTorch road.

A knob's row says which releases have the knob. A value may be younger than its knob, or gone before
it. Read from llm_args.py of 1.0.0, 1.1.0, 1.2.1 and of the candidates of 1.3 and 1.4. Where we know
only that a candidate has it, and not since which, that candidate is given.
"""

from collections.abc import Mapping

from llmdyno.engines._trtllm.mixture_knobs import SECTIONS_KNOWN
from llmdyno.errors import UsageError
from llmdyno.knobs import Config, Value, at_least, show

# (knob, value) → the first release that has it, and what to say instead in one before.
SINCE: Mapping[tuple[str, Value], tuple[str, str]] = {
    ("speculative_decoding", "Eagle3"): ("1.3", "say Eagle, which means the same there"),
    ("speculative_decoding", "PARD"): ("1.3", "set a later version or another kind"),
    ("context_chunking_policy", "FORCE_CHUNK"): (SECTIONS_KNOWN, "set one of the other two"),
    ("waiting_queue_policy", "priority"): (SECTIONS_KNOWN, "leave it out"),
    ("allreduce_strategy", "NCCL_SYMMETRIC"): ("1.1", "set NCCL or AUTO"),
    ("kv_cache_dtype", "nvfp4"): ("1.1", "set fp8 or auto"),
    ("moe_backend", "AUTO"): ("1.3", "leave it out for CUTLASS"),
    ("moe_backend", "TRITON"): ("1.1", "leave it out for CUTLASS"),
    ("moe_backend", "DENSEGEMM"): (SECTIONS_KNOWN, "set another backend"),
    ("moe_backend", "MARLIN"): (SECTIONS_KNOWN, "set another backend"),
    ("moe_backend", "MEGAMOE_DEEPGEMM"): (SECTIONS_KNOWN, "set another backend"),
    ("moe_backend", "MEGAMOE_CUTEDSL"): ("1.4", "set another backend"),
}
# (knob, value) → the first release that no longer has it.
UNTIL: Mapping[tuple[str, Value], str] = {("moe_backend", "WIDEEP"): "1.4"}


def check_values(config: Config, version: str) -> None:
    """Refuse a value that this release does not have.

    Raises:
        UsageError: names the knob, the value and what would be right.
    """
    for name, value in config.items():
        since, instead = SINCE.get((name, value), ("0", ""))
        until = UNTIL.get((name, value), "")
        if not at_least(version, since):
            raise UsageError(
                f"{name}={show(value)} came with {since}, and version is {version}: {instead}."
            )
        if until and at_least(version, until):
            raise UsageError(
                f"{name}={show(value)} was removed in {until}, and version is {version}: set"
                " another value, or leave it out."
            )


def check_successors(config: Config, version: str) -> None:
    """Refuse a setting that has another name in this release.

    Raises:
        UsageError: names both.
    """
    newer = at_least(version, SECTIONS_KNOWN)
    if newer and "enable_piecewise_cuda_graph" in config:
        raise UsageError(
            f"enable_piecewise_cuda_graph={show(config['enable_piecewise_cuda_graph'])}: version"
            f" {version} has prefill_cuda_graph_backend=piecewise for it; set that."
        )
    if not newer and config.get("prefill_cuda_graph_backend") == "piecewise":
        raise UsageError(
            f"prefill_cuda_graph_backend=piecewise: version {version} says torch_compile=true and"
            f" enable_piecewise_cuda_graph=true; set these, or a version from {SECTIONS_KNOWN} on."
        )
    if newer and "sampler_type" in config:
        raise UsageError(
            f"sampler_type={show(config['sampler_type'])} is gone by {SECTIONS_KNOWN}: PyTorch's"
            " sampler is the only one; leave it out."
        )
    if at_least(version, "1.4") and "perf_metrics_max_requests" in config:
        raise UsageError(
            "perf_metrics_max_requests="
            f"{show(config['perf_metrics_max_requests'])} has no effect from 1.4 on: the server"
            " keeps no times of requests any more; leave it out."
        )
