"""What is set when a TensorRT-LLM engine is built, and what both of its roads share.

Flags and defaults are those of `trtllm-build` and the checkpoint scripts: plugin/plugin.py of 0.12,
of about 0.20 and of 1.2, commands/build.py of about 0.16, convert_checkpoint.py and quantize.py of
about 1.2; what changed when, from NVIDIA's release notes of 0.10 to 0.20. None of it was run by us.
"""

from functools import partial

from llmdyno.knobs import Knob

# 1.3.0rc20 was the last release with engine builds; the next candidate has none.
ENGINES_END = "1.3.0rc21"

_NOTES = "TensorRT-LLM release notes 0.10 to 0.20; "
_BUILD = "TensorRT-LLM sources between 0.12 and 1.2, commands/build.py and plugin/plugin.py"
_QUANTIZE = "TensorRT-LLM source of about 1.2, examples: convert_checkpoint.py and quantize.py"
_CASE = (
    "NVIDIA's tuning guide (TensorRT-LLM 0.16), Llama-3.3-70B on four H100, 1,000 requests at once"
)

_built = partial(
    Knob,
    layer="build",
    source=_BUILD,
    until=ENGINES_END,
    needs=("backend", "tensorrt"),
)

SHARED: tuple[Knob, ...] = (
    Knob(
        name="version",
        layer="build",
        kind="text",
        pattern=r"\d+\.\d+\.\d+(rc\d+)?(\.post\d+)?",
        form="a release such as 0.10.0, 1.2.1 or 1.3.0rc20",
        defaults=(("0.9", None),),
        does=(
            "The release that the config is for: it decides which knobs there are and how they are"
            " written. Unset: the installed one, else the release 1.2.1."
        ),
        turn="Set it to build or to check a config for another machine.",
        trades="A config for another version than the installed one is for that machine only.",
        source=_NOTES + "they rename or remove flags in almost every release",
    ),
    Knob(
        name="backend",
        layer="build",
        kind="choice",
        choices=("pytorch", "tensorrt"),
        defaults=(("1.0", "pytorch"), ("0.9", "tensorrt")),
        does=(
            "The road: pytorch serves checkpoints as they are (from 1.0 on); tensorrt converts"
            " them and builds an engine first (until 1.3.0rc20)."
        ),
        turn="Leave it; tensorrt only to replay an engine of 2024 or to compare with one.",
        trades="A build takes minutes to hours and fits one GPU type, one version, one shape.",
        source="TensorRT-LLM's migration guide, docs/source/legacy/tensorrt-backend-removal.md",
    ),
    Knob(
        name="max_batch_size",
        means="sequences a step",
        conflicts="a smaller max_num_tokens",
        layer="build",
        kind="int",
        defaults=(("0.14", 2048), ("0.11", 256), ("0.9", 1)),
        low=1,
        high=65536,
        search=(32, 2048),
        when=(("queue", "raise"), ("kv", "lower")),
        search_log=True,
        unit="sequences",
        does="The most sequences that one step computes. Built into an engine, or given at start.",
        turn=(
            "Raise it above the number of users: below it users wait for a place and TTFT becomes"
            " queueing time. Powers of two; search it together with max_num_tokens."
        ),
        trades=(
            "Larger costs memory that the KV cache lacks, and slower decode for each. 64, 512 and"
            f" 2048 gave 1,944, 2,467 and 2,044 tok/s ({_CASE})."
        ),
        source=_NOTES + "commands/build.py, commands/serve.py",
    ),
    Knob(
        name="max_num_tokens",
        means="tokens a step",
        conflicts="a larger max_batch_size",
        layer="build",
        kind="int",
        defaults=(("0.11", 8192), ("0.9", None)),
        low=1,
        high=1_048_576,
        search=(1024, 16384),
        when=(("prefill", "raise"), ("kv", "lower")),
        search_log=True,
        unit="tokens",
        does="The most tokens, of prompts and answers together, that one step computes.",
        turn="Raise it for TTFT under many prompts, lower it for an even ITL.",
        trades=(
            "Activations grow with it, at the cost of the KV cache. 2048, 8192 and 16384 gave"
            f" 2,474, 2,467 and 2,461 tok/s at max_batch_size=512 ({_CASE})."
        ),
        source=_NOTES + "commands/build.py, commands/serve.py",
    ),
    Knob(
        name="max_seq_len",
        means="longest sequence",
        conflicts="a max_input_len that is not smaller, an attention window that is",
        layer="build",
        kind="int",
        defaults=(("0.11", None),),
        low=1,
        unit="tokens",
        does="The longest prompt and answer together. Unset: what the model's config says.",
        turn="Lower it to what you need, above all for models of a very long context.",
        trades="Longer requests are refused.",
        source=_NOTES + "commands/build.py, commands/serve.py",
    ),
    Knob(
        name="max_beam_width",
        layer="build",
        kind="int",
        defaults=(("0.9", 1),),
        low=1,
        high=256,
        does="The most beams of a request that searches with beams.",
        turn="Leave it at 1 unless requests ask for beams.",
        trades="Each beam costs the compute and the cache of a sequence.",
        source=_BUILD,
    ),
    Knob(
        name="dtype",
        conflicts="another gpt_attention_plugin",
        layer="build",
        kind="choice",
        choices=("auto", "float16", "bfloat16", "float32"),
        defaults=(("0.15", "auto"), ("0.9", "float16")),
        alters_output=True,
        does="The number format of weights and activations; auto: the model's own.",
        turn="bfloat16 for models that were trained in it.",
        trades="float32 costs twice the memory and much of the speed.",
        source=_NOTES + "convert_checkpoint.py",
    ),
    Knob(
        name="tensor_parallel_size",
        means="tensor parallelism",
        conflicts="a number that does not divide the model's attention heads",
        layer="build",
        kind="int",
        defaults=(("0.9", 1),),
        low=1,
        high=64,
        unit="GPUs",
        does="GPUs that share every layer.",
        turn="When the model does not fit one GPU, or one request must be quicker.",
        trades="Each layer waits for the links between GPUs.",
        source=_BUILD,
    ),
    Knob(
        name="pipeline_parallel_size",
        layer="build",
        kind="int",
        defaults=(("0.9", 1),),
        low=1,
        high=64,
        unit="GPUs",
        does="Groups of GPUs that the layers are dealt to.",
        turn="When GPUs have slow links between them: across nodes.",
        trades="One request passes through all of them in turn; it is no quicker.",
        source=_BUILD,
    ),
    Knob(
        name="tokens_per_block",
        means="KV cache block size",
        layer="build",
        kind="choice",
        choices=(8, 16, 32, 64, 128),
        # 0.12's source has 64, that of about 0.20 has 32; the change lies somewhere between.
        defaults=(("0.20", 32), ("0.10", 64), ("0.9", 128)),
        unit="tokens",
        does="Tokens in a block of the KV cache.",
        turn="Smaller blocks match shared prefixes more finely.",
        trades="Small blocks cost bookkeeping, large ones waste the ends of sequences.",
        source=_NOTES + "plugin/plugin.py, llmapi/llm_args.py",
    ),
)

CHECKPOINT: tuple[Knob, ...] = (
    _built(
        name="quantization",
        conflicts="weight-only with kv_cache_quantization=fp8; nvfp4 before 0.17",
        kind="choice",
        choices=(
            *("fp8", "int8_weight_only", "int4_weight_only", "int4_awq", "w4a8_awq"),
            *("int8_sq", "nvfp4"),
        ),
        defaults=(("0.9", None),),
        search=("fp8",),
        when=(("decode", "fp8"),),
        alters_output=True,
        does=(
            "How the checkpoint is quantised: weight-only ones by convert_checkpoint.py, the"
            " others, which look at sample texts, by quantize.py. Unset: not at all."
        ),
        turn="fp8 from Ada and Hopper on; int4_awq when the weights do not fit; nvfp4: Blackwell.",
        trades="Fewer bytes to read a step, at some accuracy and a longer build.",
        source=_QUANTIZE,
    ),
    _built(
        name="kv_cache_quantization",
        conflicts="fp8 with weight-only quantization",
        kind="choice",
        choices=("int8", "fp8"),
        defaults=(("0.9", None),),
        search=("fp8",),
        when=(("kv", "fp8"), ("decode", "fp8")),
        alters_output=True,
        instead="kv_cache_dtype",
        does="The number format of the KV cache, with scales from sample texts. Unset: dtype.",
        turn="When the cache is the limit, or decode is bound by reading it.",
        trades="Half the cache and half its reads, at some accuracy.",
        source=_QUANTIZE,
    ),
    _built(
        name="awq_block_size",
        conflicts="a quantization that is not AWQ",
        kind="choice",
        choices=(32, 64, 128, 256),
        defaults=(("0.9", 128),),
        alters_output=True,
        does="Weights that share a scale under int4_awq and w4a8_awq.",
        turn="Smaller when accuracy suffers.",
        trades="Smaller blocks are more exact and larger.",
        source=_QUANTIZE,
    ),
    _built(
        name="calib_size",
        kind="int",
        low=1,
        high=100_000,
        defaults=(("0.9", 512),),
        alters_output=True,
        does="How many sample texts the scales are taken from.",
        turn="Lower it for a quicker build, raise it when accuracy suffers.",
        trades="Minutes of build against accuracy.",
        source=_QUANTIZE,
    ),
)

BUILD: tuple[Knob, ...] = (
    _built(
        name="max_input_len",
        conflicts="a max_seq_len that is not larger",
        kind="int",
        low=1,
        unit="tokens",
        defaults=(("0.9", 1024),),
        does="The longest prompt. With packed input, later versions go by max_num_tokens instead.",
        turn="To the longest prompt that you expect.",
        trades="Longer prompts are refused; larger makes activations larger in old versions.",
        instead="max_seq_len",
    ),
    _built(
        name="max_output_len",
        kind="int",
        low=1,
        unit="tokens",
        defaults=(("0.9", 1024),),
        until="0.12",
        does="The longest answer. Deprecated in 0.11, gone in 0.12: max_seq_len took its place.",
        turn="To the longest answer that you expect.",
        trades="Longer answers are cut.",
        source=_NOTES + "commands/build.py",
        instead="max_seq_len",
    ),
    _built(
        name="multiple_profiles",
        kind="bool",
        defaults=(("0.9", False),),
        search=(True, False),
        alters_output=True,
        does="Builds several optimisation profiles, each with the best kernels for its sizes.",
        turn="On; it matters most without a gemm_plugin.",
        trades=(
            "A longer build, and answers that may differ between runs. +19 % tok/s and ITL from"
            f" 31.3 to 19.7 ms at batch 1 ({_CASE})."
        ),
    ),
    _built(
        name="gemm_plugin",
        conflicts="fp8 without quantization=fp8",
        kind="choice",
        choices=(
            *("disable", "auto", "float16", "bfloat16", "float32", "int32"),
            *("fp8", "nvfp4"),
        ),
        defaults=(("0.9", "disable"),),
        search=("disable", "auto"),
        alters_output=True,
        does="Multiplies matrices by cuBLASLt rather than by TensorRT's own kernels.",
        turn="auto (or the dtype) for 16-bit models; off for FP8, but for batches below 4.",
        trades=f"+9 % tok/s after multiple_profiles ({_CASE}); for FP8 often slower.",
    ),
    _built(
        name="gpt_attention_plugin",
        conflicts="another dtype; disable, unless batching_strategy=V1",
        kind="choice",
        choices=("disable", "auto", "float16", "bfloat16", "float32", "int32"),
        defaults=(("0.12", "auto"), ("0.9", "float16")),
        does="Fused attention kernels that write the KV cache in place.",
        turn="Leave it on, of the model's dtype: in-flight batching needs it.",
        trades="Off, nothing of what makes serving quick works.",
    ),
    _built(
        name="paged_kv_cache",
        conflicts="off, unless batching_strategy=V1; off with use_paged_context_fmha=true",
        kind="bool",
        defaults=(("0.9", True),),
        does="Keeps the KV cache in blocks; later versions say kv_cache_type and still take this.",
        turn="Leave it on.",
        trades="Off, each sequence holds its longest length from the start.",
    ),
    _built(
        name="remove_input_padding",
        conflicts="off, unless batching_strategy=V1",
        kind="bool",
        defaults=(("0.9", True),),
        does="Packs prompts of different lengths without padding.",
        turn="Leave it on: in-flight batching needs it.",
        trades="Off, padding is computed like tokens.",
    ),
    _built(
        name="context_fmha",
        conflicts="off with use_paged_context_fmha=true",
        kind="bool",
        defaults=(("0.9", True),),
        does="One fused attention kernel for prompts.",
        turn="Leave it on.",
        trades="Off, long prompts take quadratic memory.",
    ),
    _built(
        name="use_paged_context_fmha",
        conflicts=(
            "on: paged_kv_cache=false or context_fmha=false; off: enable_kv_cache_reuse and"
            " enable_chunked_context"
        ),
        kind="bool",
        # 0.12's source has it off, that of about 0.20 on; from 0.17 on it brings reuse with it.
        defaults=(("0.20", True), ("0.9", False)),
        search=(True, False),
        when=(("prefill", True),),
        does="Prompts attend to a paged KV cache, which reuse and chunked context need.",
        turn="On: without it neither enable_kv_cache_reuse nor enable_chunked_context works.",
        trades=f"Its kernels are a little slower on their own; within noise in {_CASE}.",
    ),
    _built(
        name="use_fp8_context_fmha",
        conflicts="on without quantization=fp8",
        kind="bool",
        defaults=(("0.20", True), ("0.10", False)),
        alters_output=True,
        does="Computes the attention of prompts in FP8.",
        turn="With quantization=fp8, when prompts are long.",
        trades="Quicker prefill at some accuracy.",
    ),
    _built(
        name="reduce_fusion",
        conflicts="on with tensor_parallel_size=1",
        kind="bool",
        defaults=(("0.11", False),),
        search=(True, False),
        does="Fuses the all-reduce with the addition and the norm after it.",
        turn="With tensor parallelism; on one GPU there is nothing to fuse.",
        trades=f"Within noise in {_CASE}.",
    ),
    _built(
        name="use_fused_mlp",
        kind="bool",
        defaults=(("0.13", True),),
        does="Computes the two halves of a gated MLP as one matrix product.",
        turn="Leave it on; under FP8 it needs one scale for both halves.",
        trades="A little accuracy under FP8.",
        source=_NOTES + "plugin/plugin.py",
    ),
    _built(
        name="gemm_swiglu_plugin",
        conflicts="fp8 without quantization=fp8",
        kind="choice",
        choices=("disable", "fp8"),
        defaults=(("0.11", "disable"),),
        alters_output=True,
        does="Fuses the gated MLP's matrix product with its SwiGLU, in FP8 on Hopper.",
        turn="With quantization=fp8 on Hopper, when batches are small.",
        trades="Needs one scale for both halves, at some accuracy.",
        source=_NOTES + "plugin/plugin.py",
    ),
    _built(
        name="opt_num_tokens",
        kind="int",
        low=1,
        unit="tokens",
        defaults=(("0.9", None),),
        does="The tokens of a step that kernels are chosen for. Unset: max_batch_size x beams.",
        turn="To the usual tokens of a step, when there is one profile.",
        trades="Other sizes run on kernels chosen for this one.",
    ),
)
