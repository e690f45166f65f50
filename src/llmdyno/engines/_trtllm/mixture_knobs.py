"""Knobs of the PyTorch road for mixtures of experts and for attention shared out by requests.

They lie in the sections moe_config and attention_dp_config of LlmArgs. Read from llm_args.py of
1.0.0, 1.1.0, 1.2.1 and of the candidates of 1.3 and 1.4. Not run by us.
"""

from functools import partial

from llmdyno.knobs import Knob

SECTIONS_KNOWN = "1.3.0rc26"  # the first candidate whose fields we know one by one

_run = partial(
    Knob,
    layer="engine",
    source="TensorRT-LLM sources 1.0 to 1.4 candidates, tensorrt_llm/llmapi/llm_args.py",
    needs=("backend", "pytorch"),
)

EXPERTS: tuple[Knob, ...] = (
    _run(
        name="moe_backend",
        conflicts="a release without that backend",
        kind="choice",
        choices=(
            *("AUTO", "CUTLASS", "CUTEDSL", "WIDEEP", "TRTLLM", "DEEPGEMM", "DENSEGEMM"),
            *("VANILLA", "TRITON", "MARLIN", "MEGAMOE_DEEPGEMM", "MEGAMOE_CUTEDSL"),
        ),
        defaults=(("1.3", "AUTO"), ("1.0", "CUTLASS")),
        alters_output=True,
        does="Whose kernels compute a mixture's experts; AUTO goes by the model.",
        turn="TRTLLM or CUTEDSL on Blackwell, DEEPGEMM for FP8 block scales, WIDEEP over nodes.",
        trades="Each is for some GPUs and number formats; with another the start fails.",
    ),
    _run(
        name="moe_max_num_tokens",
        kind="int",
        low=1,
        high=1_048_576,
        unit="tokens",
        defaults=(("1.0", None),),
        does="The most tokens that go through the experts at once. Unset: all of the step.",
        turn="Lower it when long prompts run the experts out of memory.",
        trades="A larger step is cut up and computed piece by piece.",
    ),
    _run(
        name="moe_load_balancer",
        kind="text",
        pattern=r"/\S+",
        form="a YAML file that the server can read, from / on",
        defaults=(("1.0", None),),
        does="The file that says which GPU holds which experts, and which ones twice.",
        turn="With moe_expert_parallel_size, when few experts get most of the tokens.",
        trades="Experts that are held twice take memory; moving them takes time.",
    ),
    _run(
        name="moe_disable_finalize_fusion",
        kind="bool",
        defaults=(("1.1", False),),
        alters_output=True,
        does="Adds up the experts' results in a kernel of its own (CUTLASS).",
        turn="On when answers must be the same at every run.",
        trades="A kernel more in each layer.",
    ),
    _run(
        name="moe_low_precision_combine",
        kind="bool",
        defaults=(("1.2", False),),
        alters_output=True,
        does="Adds up the experts' results in fewer bits; for NVFP4 weights only.",
        turn="Try it with NVFP4 over several GPUs, where results travel between them.",
        trades="Fewer bytes between GPUs at some accuracy.",
    ),
)

ATTENTION_DP: tuple[Knob, ...] = (
    _run(
        name="attention_dp_balance",
        conflicts="enable_attention_dp=false",
        kind="bool",
        defaults=(("1.0", False),),
        does="Holds prompts back until all GPUs have some to compute.",
        turn="On with enable_attention_dp, when GPUs wait for the one with the longest prompts.",
        trades="First tokens come later; the steps of all GPUs are alike.",
    ),
    _run(
        name="attention_dp_timeout_iters",
        conflicts="attention_dp_balance=false",
        kind="int",
        low=0,
        high=100_000,
        unit="steps",
        defaults=(("1.0", 50),),
        does="How many steps the balancing waits for prompts on every GPU.",
        turn="Lower it when first tokens come too late.",
        trades="Even steps against early first tokens.",
    ),
    _run(
        name="attention_dp_batching_wait_iters",
        conflicts="attention_dp_balance=false",
        kind="int",
        low=0,
        high=100_000,
        unit="steps",
        defaults=(("1.0", 10),),
        does="How many steps it waits for more prompts once each GPU has one.",
        turn="Raise it when prompt steps are small.",
        trades="Fuller prompt steps against early first tokens.",
    ),
    _run(
        name="attention_dp_cache_routing",
        conflicts="enable_attention_dp=false; attention_dp_conversation_affinity",
        kind="bool",
        defaults=((SECTIONS_KNOWN, False),),
        does="Sends a request to the GPU whose KV cache holds the most of its prompt.",
        turn="On with enable_attention_dp where prompts share beginnings.",
        trades="Uneven load where many prompts share one beginning.",
    ),
    _run(
        name="attention_dp_conversation_affinity",
        conflicts="enable_attention_dp=false; attention_dp_cache_routing",
        kind="bool",
        defaults=((SECTIONS_KNOWN, False),),
        does="Keeps the turns of a conversation on one GPU, by the conversation id of requests.",
        turn="On with enable_attention_dp for chats whose client sends an id of the conversation.",
        trades="A GPU with long conversations stays loaded.",
    ),
)

MIXTURE: tuple[Knob, ...] = (*EXPERTS, *ATTENTION_DP)

_MOE, _DP = "moe_config", "attention_dp_config"
MIXTURE_PATHS: dict[str, tuple[str, ...]] = {
    "moe_backend": (_MOE, "backend"),
    "moe_max_num_tokens": (_MOE, "max_num_tokens"),
    "moe_load_balancer": (_MOE, "load_balancer"),
    "moe_disable_finalize_fusion": (_MOE, "disable_finalize_fusion"),
    "moe_low_precision_combine": (_MOE, "use_low_precision_moe_combine"),
    "attention_dp_balance": (_DP, "enable_balance"),
    "attention_dp_timeout_iters": (_DP, "timeout_iters"),
    "attention_dp_batching_wait_iters": (_DP, "batching_wait_iters"),
    "attention_dp_cache_routing": (_DP, "enable_kv_cache_aware_routing"),
    "attention_dp_conversation_affinity": (_DP, "kv_cache_routing_conversation_affinity"),
}
