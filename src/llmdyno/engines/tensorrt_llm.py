"""TensorRT-LLM, by either of its roads, for the release that the config is for.

`backend=pytorch` (from 1.0 on): `trtllm-serve` reads the checkpoint; nothing is built.
`backend=tensorrt` (until 1.3.0rc20): the checkpoint is converted or quantised and an engine built;
`trtllm-serve` serves it from 0.20 on, the Triton front any.

Nothing here was run by us: there is no release of it for the machines that we test on. Names,
defaults and messages are from NVIDIA's sources and release notes; docs/tensorrt-llm.md says which.
"""

from pathlib import Path

import msgspec

from llmdyno.engines import Circumstances, Engine, Launch, Step
from llmdyno.engines._checkpoint_server import check_model, gpus
from llmdyno.engines._homes import home, required, variable
from llmdyno.engines._scheduling import SIXTEEN_BITS, Limit, Scheduling
from llmdyno.engines._trtllm import commands, starts
from llmdyno.engines._trtllm.check import check, doubts
from llmdyno.engines._trtllm.llm_args import FLAGS, document
from llmdyno.engines._trtllm.table import KNOBS, on_engine_road
from llmdyno.engines._trtllm.template_knobs import SERVE_PATHS, TEMPLATE
from llmdyno.errors import UsageError
from llmdyno.knobs import Config, at_least, show
from llmdyno.records.server_page import MetricsPage, Series, counter, histogram

_PROGRAM = ("tensorrt_llm", "trtllm-serve")  # the package, and its program
START_TIMEOUT_S = 1800.0  # weights are read, kernels tuned, graphs captured
RELEASE = "1.2.1"  # the newest that is no candidate; it has both roads
SERVES_ENGINES_SINCE = "0.20"  # trtllm-serve is older, but could not be told the runtime keys

SYMPTOMS: tuple[tuple[str, str], ...] = (
    # Most stand so in its sources or in reports: tests/engines/test_messages.py says where.
    (r"maxTokensInPagedKvCache\b.* must be large enough", "out-of-memory"),
    (r"Executor creation failed due to insufficient GPU memory", "out-of-memory"),
    # No source of these two was found: words that such a message is likely to have.
    (r"(?i)(insufficient|no|not enough) .*memory .*kv cache", "out-of-memory"),
    (r"(?i)kv cache .*(too small|not enough|insufficient)", "out-of-memory"),
    (r"CUDA runtime error in .*out of memory|cudaMalloc\w* .*out of memory", "out-of-memory"),
    (r"Failed to parse the arguments for the LLM constructor", "bad-config"),
    (r"Extra inputs are not permitted|is not a known backend", "bad-config"),
    (r"got an unexpected keyword argument", "bad-config"),
    (r"No such option: |Invalid value for ", "bad-config"),
    (r"(?i)engine .*(not compatible|different (device|version)|version mismatch)", "bad-config"),
    (r"Serialization (assertion|error)|Failed to deserialize cuda engine", "bad-config"),
    (r"libmpi|MPI_Init|libnvinfer|libtensorrt_llm|libcuda\.so", "missing-library"),
    (r"CUDA driver version is insufficient", "driver-too-old"),
)


METRICS = MetricsPage(
    kind="tensorrt-llm",
    prefix="trtllm_",
    series={
        "output_tokens": counter("trtllm_generation_tokens"),
        "input_tokens": counter("trtllm_prompt_tokens"),
        "requests": counter("trtllm_request_success"),
        **histogram("trtllm_time_to_first_token_seconds", "ttft"),
        **histogram("trtllm_request_queue_time_seconds", "queue"),
        "running": Series(("trtllm_num_requests_running",)),
        "waiting": Series(("trtllm_num_requests_waiting",)),
        "kv_use": Series(("trtllm_kv_cache_utilization",), several="max"),
        "prefix_hits": counter("trtllm_prompt_cached_tokens"),
        "prefix_queries": counter("trtllm_prompt_tokens"),
    },
)


SCHEDULING = Scheduling(
    admission="whole",
    admission_knob="capacity_scheduler_policy",
    admissions={"GUARANTEED_NO_EVICT": "whole", "MAX_UTILIZATION": "prompt"},
    sequences=Limit("max_batch_size", 2048),
    tokens=Limit("max_num_tokens", 8192),
    chunks="enable_chunked_prefill",
    chunks_unset=False,
    memory_share=Limit("free_gpu_memory_fraction", 0.9),
    memory_of_free=True,
    longest=Limit("max_seq_len", 1),
    block=Limit("", 32),
    pieces_size=Limit("", 1_000_000),  # C++ starts the engine's kernels, of large steps, too
    prefix_cache="enable_block_reuse",
    weights="quantization",
    cache="kv_cache_dtype",
    cache_shipped=("modelopt",),  # tensorrt_llm/_torch/model_config.py, kv_cache_quant_algo
    formats={"fp8": "fp8", "FP8": "fp8"},
    gpus="tensor_parallel_size",
    stages="pipeline_parallel_size",
    same_pace={"dtype": SIXTEEN_BITS, "load_format": ("dummy",)},
    stages_have_sequences=True,  # tensorrt_llm/_torch/pyexecutor: max_batch_size * pp_size
    source=(
        "TensorRT-LLM, cpp/tensorrt_llm/batch_manager/capacityScheduler.cpp and"
        " microBatchScheduler.cpp; not run by us"
    ),
)


class TensorRtLlmEngine:
    """`trtllm-serve`, and `trtllm-build` before it where an engine is wanted."""

    name = "tensorrt-llm"
    knobs = KNOBS
    scheduling = SCHEDULING
    metrics = METRICS
    install = "run: pip install tensorrt-llm, or use NVIDIA's container"
    image = f"nvcr.io/nvidia/tensorrt-llm/release:{RELEASE}"
    python_variable = variable("tensorrt-llm")
    packages = ("tensorrt-llm",)
    distributions = ("tensorrt-llm",)
    build_distributions = ("torch",)

    def version(self) -> str | None:
        """Return the installed version; "unknown" for a copy without its metadata.

        Raises:
            HomeError: its environment variable names no Python that has it, or that is not told.
        """
        found = home(self.name, *_PROGRAM)
        return found.version if found else None

    def check(self, model: str, config: Config) -> None:
        """Refuse what this release would refuse, ignore or choke on later.

        Raises:
            UsageError: names the knobs, or the model, and what would be right.
        """
        check(config, self.meant(config))
        check_model(model, config, "tensor_parallel_size")
        if on_engine_road(config):
            commands.family(model)

    def meant(self, config: Config) -> str:
        """Return the version that the config is for."""
        return str(config.get("version") or self.version() or RELEASE)

    def starts(self, known: Circumstances) -> tuple[Config, ...]:
        """Return what `trtllm-bench` would set, and what BentoML had set in 2024."""
        return starts.starts(known, self.meant(known.baseline))

    def build(self, model: str, config: Config, folder: Path) -> tuple[Step, ...]:
        """Return the commands of conversion and build; none for backend=pytorch.

        Raises:
            UsageError: the model's family has no conversion script.
        """
        if not on_engine_road(config):
            return ()
        steps = commands.steps(model, config, folder, self.meant(config))
        there = required(self.name, *_PROGRAM)
        return tuple(
            msgspec.structs.replace(step, argv=there.resolved(step.argv)) for step in steps
        )

    def launch(
        self, model: str, config: Config, *, artifact: Path | None, host: str, port: int
    ) -> Launch:
        """Return `trtllm-serve` with the sizes as flags and all else in a file.

        Raises:
            UsageError: that release cannot serve an engine by itself, or there is none.
        """
        version = self.meant(config)
        if on_engine_road(config):
            source = self._engine_folder(artifact, version)
            backend = ("--backend", "tensorrt") if at_least(version, "1.0") else ()
            what = (source, "--tokenizer", model, *backend)
            flags: tuple[str, ...] = ()  # the sizes are built in
            settings = commands.document(config, SERVE_PATHS)
        else:
            source, what = model, (model,)
            flags = tuple(
                word
                for name, flag in FLAGS.items()
                if name in config
                for word in (flag, show(config[name]))
            )
            settings = document(config, version)
        path, text = commands.written(settings)
        # The option's older name: every release has it, the newer ones as an alias of --config.
        file = ("--extra_llm_api_options", path) if settings else ()
        url = f"http://{host}:{port}"
        local = on_engine_road(config) or Path(source).is_dir()
        served = Path(source).name if local else source
        there = required(self.name, *_PROGRAM)
        words = ("trtllm-serve", *what, "--host", host, "--port", str(port), *flags, *file)
        return Launch(
            argv=there.resolved(words),
            url=url,
            endpoint="openai-chat",
            model=served,
            probe=("/v1/completions", {"model": served, "prompt": "a", "max_tokens": 1}),
            # Its /metrics is JSON about steps; Prometheus lies elsewhere, and only if asked for.
            metrics_url=f"{url}/prometheus/metrics" if config.get("return_perf_metrics") else "",
            environment={**there.environment, "TRTLLM_NO_USAGE_STATS": "1"},
            files={path: text} if settings else {},
            doubts=self._doubts(config, version),
            gpus=gpus(config, "tensor_parallel_size", "pipeline_parallel_size"),
            start_timeout_s=START_TIMEOUT_S,
            symptoms=SYMPTOMS,
        )

    def _engine_folder(self, artifact: Path | None, version: str) -> str:
        if not at_least(version, SERVES_ENGINES_SINCE):
            raise UsageError(
                f"version={version}: trtllm-serve serves engines from {SERVES_ENGINES_SINCE} on;"
                " use --front triton."
            )
        if artifact is None:
            raise UsageError("backend=tensorrt: no engine was built; run dyno build first.")
        return str(artifact / commands.ENGINE)

    def _doubts(self, config: Config, version: str) -> tuple[str, ...]:
        found = list(doubts(config, version))
        unread = [k.name for k in TEMPLATE if k.name in config and k.name not in SERVE_PATHS]
        if unread:
            found.append(f"only Triton reads {', '.join(unread)}; trtllm-serve does not.")
        here = self.version() or RELEASE  # not installed, it starts in the container
        if here != version:
            found.append(f"the config is for version {version}, and {here} will read it.")
        return tuple(found)


ENGINE: Engine = TensorRtLlmEngine()
