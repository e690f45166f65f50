"""What a model is made of, as far as its speed and its memory follow from it.

A name is one of `known.SHAPES` or `hybrids.HYBRIDS` in any spelling of the hub (organisation,
"-Instruct", "-FP8"), a folder with a config.json, such a file, or a hub id whose config.json lies
in the hub's cache here. Nothing is fetched.
"""

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from llmdyno import files
from llmdyno.embedded.model import RECIPES
from llmdyno.errors import UsageError
from llmdyno.predict.configs import read_config
from llmdyno.predict.decoder import BITS_A_BYTE, Shape, canonical
from llmdyno.predict.hybrids import HYBRIDS
from llmdyno.predict.known import SHAPES
from llmdyno.processes import containers

__all__ = ("Shape", "closest", "shape_of")


_KNOWN = SHAPES | HYBRIDS


def shape_of(name: str, field: str = "--model") -> Shape:
    """Return the shape of a model by its name, its folder or its config.json.

    `field` is the flag that an error of a name names.

    Raises:
        UsageError: nothing of that name is known here; names the nearest.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        path = path / "config.json"
        if not path.is_file():
            raise UsageError(f"{field} {name}: the folder has no config.json{_adapter(path)}.")
    if path.suffix.lower() == ".gguf":
        raise UsageError(f"{field} {name}: give the config.json that its weights were made from.")
    if path.is_file():
        return read_config(path, name)
    if name in RECIPES:
        return _ours(name)
    for key, quantised in _spellings(name):
        if key in _KNOWN:
            shape = msgspec.structs.replace(_KNOWN[key], name=name)
            return _with_weights(shape, quantised)
    cached = _in_hub_cache(name)
    if cached is not None:
        return read_config(cached, name)
    known = [*dict.fromkeys(shape.name for shape in _KNOWN.values()), *RECIPES]
    raise UsageError(
        f"{field} {name}: its shape is not known here; give a folder with its config.json, or a"
        f" well-known name.{closest(name.rpartition('/')[2], known)}"
    )


def _adapter(config: Path) -> str:
    """Say whose adapter a folder without a config.json has; empty: none."""
    path = config.with_name("adapter_config.json")
    try:
        base = json.loads(files.text(path))["base_model_name_or_path"] if path.is_file() else ""
    except (files.FileError, ValueError, LookupError, TypeError):
        return ""
    return f", but a LoRA adapter; plan its base model, --model {base}" if base else ""


def closest(name: str, known: Sequence[str]) -> str:
    """Return " Nearest: A, B, C." with the known names that are most like this one."""
    by_lower = {other.lower(): other for other in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.0)
    return f" Nearest: {', '.join(by_lower[one] for one in found)}."


def _ours(name: str) -> Shape:
    recipe = RECIPES[name]
    return Shape(
        name=name,
        layers=recipe.layers,
        hidden=recipe.hidden,
        heads=recipe.heads,
        kv_heads=recipe.kv_heads,
        head_dim=recipe.hidden // recipe.heads,
        intermediate=recipe.feed_forward,
        vocab=recipe.vocabulary,
        context=recipe.context_length,
    )


# Words of a hub name that say nothing of the model's sizes.
_EXTRA = re.compile(
    r"instruct|chat|it|hf|base|pt|preview|latest|text|thinking|v\d[\d.]*|\d{4}|\d+k|bf16|fp16"
    r"|dynamic|static|tensor|block|kv|quantized|unsloth|qat|gguf|mlx|bnb|pytorch|vision|128e|16e|original"
)
# How many bits a weight has, by what the name says of it.
_QUANTISED = {
    **dict.fromkeys(("fp8", "int8", "w8a8", "w8a16", "8bit", "q8"), 8.0),
    **dict.fromkeys(("awq", "gptq", "int4", "w4a16", "w4a8"), 4 + 20 / 128),
    **dict.fromkeys(("4bit", "nvfp4", "fp4", "q4"), 4.5),
    "mxfp4": 4.25,
}
# In which precision the products are then made; the others only keep their weights small.
_COMPUTES = {"fp8": "fp8", "w8a8": "int8", "int8": "int8", "nvfp4": "fp4", "fp4": "fp4"}


def _spellings(name: str) -> Iterator[tuple[str, str]]:
    """Yield keys that a hub name may have in the table, the longest first, and how it is quantised.

    That is a key of `_QUANTISED`; empty: not at all.
    """
    last = name.rstrip("/").rpartition("/")[2].lower().removeprefix("meta-")
    words = [word for word in re.split(r"[-_\s:]|(?<!\d)\.|\.(?!\d)", last) if word]
    quantised = ""
    while words:
        yield canonical("".join(words)), quantised
        # A date may tell two models apart: Mistral-Small-Instruct-2409 is not Mistral-Small.
        telling = [word for word in words if word.isdigit() or not _EXTRA.fullmatch(word)]
        yield canonical("".join(telling)), quantised
        word = words.pop()
        if word in _QUANTISED:
            quantised = word
        elif not _EXTRA.fullmatch(word):
            return


def _with_weights(shape: Shape, quantised: str) -> Shape:
    if not quantised:
        return shape
    return msgspec.structs.replace(
        shape,
        weight_bytes=_QUANTISED[quantised] / BITS_A_BYTE,
        expert_bytes=0.0,
        computes=_COMPUTES.get(quantised, ""),
    )


def _in_hub_cache(name: str) -> Path | None:
    """Return the config.json of a hub id that was fetched to this machine before."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return None
    try:
        cache = containers.hub_cache()
    except UsageError:  # without a home there is none
        return None
    folder = cache / "hub" / f"models--{name.replace('/', '--')}" / "snapshots"
    return next(iter(sorted(folder.glob("*/config.json"), reverse=True)), None)
