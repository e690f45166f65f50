"""A config of the PyTorch road as the fields of LlmArgs, as the release that it is for spells them.

`trtllm-serve` reads them from its document, Triton's Python model from model.yaml.
"""

from collections.abc import Mapping
from typing import Any

from llmdyno.engines._trtllm import commands
from llmdyno.engines._trtllm.mixture_knobs import SECTIONS_KNOWN
from llmdyno.engines._trtllm.pytorch_knobs import PATHS, PYTORCH
from llmdyno.knobs import Config, at_least

# What the command line of `trtllm-serve` has had under one name in every release from 0.20 on; all
# else goes into the document, which wins over the command line.
FLAGS: Mapping[str, str] = {
    "max_batch_size": "--max_batch_size",
    "max_num_tokens": "--max_num_tokens",
    "max_seq_len": "--max_seq_len",
    "max_beam_width": "--max_beam_width",
    "tensor_parallel_size": "--tp_size",
    "pipeline_parallel_size": "--pp_size",
    "moe_expert_parallel_size": "--ep_size",
}
_DOCUMENT: Mapping[str, tuple[str, ...]] = {
    **{knob.name: (knob.name,) for knob in PYTORCH if knob.name not in FLAGS},
    "dtype": ("dtype",),
    **PATHS,
}
_SWITCHES = {"cuda_graph", "torch_compile"}  # no fields but whole sections
_SPELT_SINCE = "1.3"  # kinds of speculation are spelt otherwise
_SPELLINGS: Mapping[str, str] = {
    "DraftTarget": "Draft_Target",
    "Eagle": "Eagle3",  # "Eagle" is taken for it, with a warning that it may not be for ever
}


def document(config: Config, version: str) -> dict[str, Any]:
    """Return what the document of `trtllm-serve` says: all that is no flag."""
    return _fields(config, version, _DOCUMENT)


def llm_arguments(config: Config, version: str) -> dict[str, Any]:
    """Return all settings as fields of LlmArgs, nested as they are there."""
    return _fields(config, version, {**{name: (name,) for name in FLAGS}, **_DOCUMENT})


def _fields(config: Config, version: str, paths: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    plain = {name: value for name, value in config.items() if name not in _SWITCHES}
    settings = commands.document(plain, paths)
    if config.get("cuda_graph") is False:
        settings["cuda_graph_config"] = None
    if config.get("torch_compile"):
        settings.setdefault("torch_compile_config", {})
    if "speculative_config" in settings:
        settings["speculative_config"] = _speculation(settings["speculative_config"], version)
    return settings


def _speculation(section: dict[str, Any], version: str) -> dict[str, Any]:
    """Return the section of speculation as that release spells it."""
    kind = section.get("decoding_type")
    if kind == "MTP" and "max_draft_len" in section and not at_least(version, SECTIONS_KNOWN):
        # There max_draft_len is overwritten by this one, whose default is 1.
        section["num_nextn_predict_layers"] = section.pop("max_draft_len")
    if at_least(version, _SPELT_SINCE) and str(kind) in _SPELLINGS:
        section["decoding_type"] = _SPELLINGS[str(kind)]
    return section
