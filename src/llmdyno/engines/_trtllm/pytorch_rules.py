"""What does not go together on the PyTorch road. Each rule raises UsageError with one sentence."""

from llmdyno.engines._trtllm.mixture_knobs import SECTIONS_KNOWN
from llmdyno.engines._trtllm.table import Rule, value
from llmdyno.errors import UsageError
from llmdyno.knobs import Config, at_least, show

# What guesses, by what it cannot do without; in 1.2.1 and later the start fails.
_NEEDS_MODEL = ("Eagle", "Eagle3", "DraftTarget", "PARD")
_NEEDS_LENGTH = (*_NEEDS_MODEL, "NGram")
_OF_SPECULATION = ("max_draft_len", "speculative_model", "speculative_max_concurrency")
_COMPILED = (
    *("torch_compile_fullgraph", "torch_compile_inductor", "torch_compile_userbuffers"),
    *("torch_compile_streams", "enable_piecewise_cuda_graph"),
)


def _graphs(config: Config, version: str) -> None:
    del version
    if {"cuda_graph_batch_sizes", "cuda_graph_max_batch_size"} <= config.keys():
        raise UsageError(
            f"cuda_graph_batch_sizes={config['cuda_graph_batch_sizes']} excludes"
            f" cuda_graph_max_batch_size={show(config['cuda_graph_max_batch_size'])}: set one of"
            " the two."
        )
    for name in ("cuda_graph_batch_sizes", "cuda_graph_max_batch_size", "cuda_graph_padding"):
        if name in config and config.get("cuda_graph") is False:
            raise UsageError(
                f"{name}={show(config[name])} has no effect while cuda_graph=false: leave one out."
            )


def _compilation(config: Config, version: str) -> None:
    piecewise = config.get("prefill_cuda_graph_backend") == "piecewise"
    compiled = bool(config.get("torch_compile")) or piecewise
    for name in _COMPILED:
        if name in config and not compiled:
            raise UsageError(
                f"{name}={show(config[name])} has no effect without torch_compile=true: set it, or"
                f" leave {name} out."
            )
    if config.get("prefill_cuda_graph_backend") == "breakable" and config.get("torch_compile"):
        raise UsageError(
            "prefill_cuda_graph_backend=breakable does not go with torch_compile=true: set"
            " piecewise, or leave torch_compile out."
        )
    drawn = value(config, "prefill_cuda_graph_backend", version) != "disabled"
    if "prefill_capture_num_tokens" in config and not drawn:
        raise UsageError(
            f"prefill_capture_num_tokens={config['prefill_capture_num_tokens']} has no effect while"
            " prefill_cuda_graph_backend=disabled: set piecewise or breakable."
        )


def _reuse(config: Config, version: str) -> None:
    names = ("enable_partial_reuse", "copy_on_partial_reuse", "host_cache_size", "disk_cache_size")
    for name in names:
        if config.get(name) and not value(config, "enable_block_reuse", version):
            raise UsageError(
                f"{name}={show(config[name])} has no effect while enable_block_reuse=false: leave"
                " one of them out."
            )


def _blocks(config: Config, version: str) -> None:
    if "tokens_per_block" in config and not at_least(version, "1.1"):
        raise UsageError(
            f"tokens_per_block={show(config['tokens_per_block'])}: with backend=pytorch it came"
            f" with 1.1, and version is {version}; leave it out."
        )


def _disk(config: Config, version: str) -> None:
    del version
    size = config.get("disk_cache_size")
    if size and "disk_cache_path" not in config:
        raise UsageError(f"disk_cache_size={show(size)} needs disk_cache_path: name a folder.")
    if size and config.get("use_kv_cache_manager_v2") != "true":
        raise UsageError(
            f"disk_cache_size={show(size)} is only used with use_kv_cache_manager_v2=true: set it"
            " too."
        )
    for name in ("disk_cache_path", "disk_prefetch_num_reqs"):
        if config.get(name) and not size:
            raise UsageError(
                f"{name}={show(config[name])} has no effect without disk_cache_size: set a size, or"
                f" leave {name} out."
            )


def _chunking(config: Config, version: str) -> None:
    if "context_chunking_policy" in config and not value(config, "enable_chunked_prefill", version):
        raise UsageError(
            f"context_chunking_policy={show(config['context_chunking_policy'])} has no effect"
            " without enable_chunked_prefill=true: set it, or leave the policy out."
        )


def _waiting(config: Config, version: str) -> None:
    del version
    if config.get("batch_wait_max_tokens_ratio") and not config.get("batch_wait_timeout_iters"):
        raise UsageError(
            f"batch_wait_max_tokens_ratio={show(config['batch_wait_max_tokens_ratio'])} needs"
            " batch_wait_timeout_iters above 0, or nothing ends the wait."
        )


def _attention_dp(config: Config, version: str) -> None:
    del version
    parts = [name for name in config if name.startswith("attention_dp_")]
    if parts and not config.get("enable_attention_dp"):
        raise UsageError(
            f"{parts[0]}={show(config[parts[0]])} has no effect without enable_attention_dp=true:"
            f" set it, or leave {parts[0]} out."
        )
    for name in ("attention_dp_timeout_iters", "attention_dp_batching_wait_iters"):
        if name in config and not config.get("attention_dp_balance"):
            raise UsageError(
                f"{name}={show(config[name])} has no effect without attention_dp_balance=true: set"
                f" it, or leave {name} out."
            )
    if config.get("attention_dp_cache_routing") and config.get(
        "attention_dp_conversation_affinity"
    ):
        raise UsageError(
            "attention_dp_cache_routing=true has no effect beside"
            " attention_dp_conversation_affinity=true, which goes first: set one of the two."
        )


def _speculation(config: Config, version: str) -> None:
    kind = config.get("speculative_decoding")
    given = [name for name in _OF_SPECULATION if name in config]
    for name in given:
        if kind is None:
            raise UsageError(
                f"{name}={show(config[name])} has no effect without speculative_decoding: say"
                " which, or leave it out."
            )
        if kind == "AUTO":
            raise UsageError(
                f"{name}={show(config[name])} is ignored with speculative_decoding=AUTO, which"
                f" guesses without a model and decides how far by itself: leave {name} out, or"
                " name a kind."
            )
    if kind in _NEEDS_MODEL and "speculative_model" not in config:
        raise UsageError(f"speculative_decoding={kind} needs speculative_model: name one.")
    if kind in _NEEDS_LENGTH and "max_draft_len" not in config:
        raise UsageError(
            f"speculative_decoding={kind} needs max_draft_len: set how many tokens are guessed"
            " ahead, such as 3."
        )
    own = kind == "NGram" or (kind == "MTP" and not at_least(version, SECTIONS_KNOWN))
    if own and "speculative_model" in config:
        raise UsageError(
            f"speculative_model={config['speculative_model']} is ignored with"
            f" speculative_decoding={kind}, which needs no other model: leave it out."
        )


PYTORCH_RULES: tuple[Rule, ...] = (
    *(_graphs, _compilation, _reuse, _blocks, _disk),
    *(_chunking, _waiting, _attention_dp, _speculation),
)
