"""A model's name → files that OpenVINO GenAI can load.

Where it stands: the server calls `resolve` once, before it starts its worker; a build (convert.py)
calls `locate`. A name is one of ours (`tiny`, `small`), a path to a GGUF file or to a folder, or a
Hugging Face id.

Why we write models ourselves: a benchmark's own tests, examples and self-checks need a model where
there is no network. Ours have Llama's shape, random weights and a real tokenizer, so they cost what
a model of their size costs and their greedy output is varied and repeatable; it only means nothing.
"""

import ast
import hashlib
import re
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from llmdyno import store
from llmdyno.errors import UsageError, nearest

if TYPE_CHECKING:
    import gguf

IR_FILE = "openvino_model.xml"
CONFIG_FILE = "config.json"
IR_FILES = ["openvino_*.xml", "openvino_*.bin", "*.json", "*.jinja"]
# Where nothing says it: OpenVINO exports place no bound on positions, a cache has its own.
CONTEXT_LENGTH_UNSAID = 32768

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] }}: {{ message['content'] }}\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>")  # in this order: their ids are 0, 1 and 2


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """All that a model written here depends on; its hash names the cache folder."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocabulary: int = 4096
    context_length: int = 8192
    seed: int = 0
    # The tokenizer learns from the standard library, so another Python makes another tokenizer.
    python: str = "{}.{}.{}".format(*sys.version_info[:3])
    edition: int = 1  # raise it when the code below makes something else of the same recipe


RECIPES = {
    "tiny": Recipe(hidden=256, layers=4, heads=4, kv_heads=2, feed_forward=768),
    "small": Recipe(hidden=512, layers=8, heads=8, kv_heads=4, feed_forward=1536),
}


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model on disk that OpenVINO GenAI can load."""

    name: str  # as the user gave it; requests name it so
    path: Path  # a GGUF file or a folder with an OpenVINO IR
    context_length: int


_GGUF = b"GGUF"  # how such a file begins


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model is and what it is."""

    kind: Literal["gguf", "ir", "checkpoint"]
    path: Path | None  # None: a checkpoint that is still on the hub


def check_name(name: str, *, converted: bool = False) -> None:
    """Refuse a name that can be no model, without reading or fetching one.

    Args:
        name: of the model.
        converted: it is built first, so that it may also be a Hugging Face checkpoint.

    Raises:
        UsageError: neither a model of ours, nor a file or folder, nor a Hugging Face id.
    """
    if name in RECIPES:
        return
    path = Path(name).expanduser()
    if path.exists():
        found = _look_at(path)
        if found.kind == "checkpoint" and not converted:
            raise UsageError(_needs_conversion(name))
    elif name.startswith((".", "/", "~")) or name.endswith(".gguf"):
        raise UsageError(f"model: {name}: there is no such file or folder.")
    elif not _is_hub_id(name):
        raise UsageError(
            f"model: '{name}' is not a built-in model, a file, a folder or a Hugging Face id"
            f" (org/name).{nearest(name, RECIPES)}"
        )


def resolve(name: str, artifact: Path | None = None) -> Model:
    """Return the model of that name, writing or fetching it first if need be.

    Args:
        name: of the model.
        artifact: a folder with the IR that a build has made of it.

    Raises:
        UsageError: there is no such model, or OpenVINO cannot load what there is.
    """
    path = artifact
    if path is None:
        found = locate(name)
        if found.path is None or found.kind == "checkpoint":
            raise UsageError(_needs_conversion(name))
        path = found.path
    return Model(name=name, path=path, context_length=context_length(path))


def locate(name: str) -> Found:
    """Return where the model of that name is, writing or fetching it first if need be.

    Raises:
        UsageError: there is no such model.
    """
    check_name(name, converted=True)
    if name in RECIPES:
        return Found(kind="gguf", path=built_in(RECIPES[name]))
    if Path(name).expanduser().exists():
        return _look_at(Path(name).expanduser())
    fetched = _fetch(name)
    return Found(kind="checkpoint", path=None) if fetched is None else _look_at(fetched)


def built_in(recipe: Recipe) -> Path:
    """Return the GGUF file of a recipe, from the cache or written now.

    Two processes may do this at once: each writes a folder of its own, the first to rename wins.
    """
    digest = hashlib.sha256(msgspec.json.encode(recipe, order="sorted")).hexdigest()[:16]
    folder = store.cache_folder("models") / digest
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{digest}.", dir=folder.parent))
        try:
            _write_gguf(draft / "model.gguf", recipe)
            draft.rename(folder)
        except OSError:
            if not folder.exists():  # if it does, the other process was first: use its work
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder / "model.gguf"


def _is_hub_id(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None and (
        not name.endswith(".gguf")
    )


def _needs_conversion(name: str) -> str:
    return (
        f"model: '{name}' is a Hugging Face checkpoint, not a GGUF or an OpenVINO IR: set"
        " weight_format=fp16 (or int8, int4), and it is converted."
    )


def _look_at(path: Path) -> Found:
    """Return what a file or folder that exists is."""
    if path.is_file():
        if path.suffix != ".gguf":
            raise UsageError(f"model: {path} is not a .gguf file; give a GGUF or an OpenVINO IR.")
        with path.open("rb") as file:
            if file.read(len(_GGUF)) != _GGUF:
                raise UsageError(f"model: {path} does not begin as a GGUF does; fetch it again.")
        return Found(kind="gguf", path=path)
    if (path / IR_FILE).exists():
        weights = (path / IR_FILE).with_suffix(".bin")
        if not weights.is_file():
            raise UsageError(f"model: {path} has {IR_FILE} without its weights, {weights.name}.")
        return Found(kind="ir", path=path)
    found = sorted(path.glob("*.gguf"))
    if len(found) == 1:
        return Found(kind="gguf", path=found[0])
    if (path / CONFIG_FILE).exists() and any(path.glob("*.safetensors")):
        return Found(kind="checkpoint", path=path)
    if not found:
        raise UsageError(
            f"model: {path} has neither {IR_FILE}, nor a .gguf file, nor {CONFIG_FILE} with"
            " .safetensors."
        )
    names = ", ".join(file.name for file in found)
    raise UsageError(f"model: {path} has {len(found)} GGUF files ({names}): give the path of one.")


def _fetch(name: str) -> Path | None:
    """Download a Hugging Face repository's IR, or its only GGUF; None if it is a checkpoint."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        # The small files first: that also says, in one request, whether there is an IR.
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=IR_FILES))
        if (folder / IR_FILE).exists() or any(folder.glob("*.gguf")):
            return folder
        files = huggingface_hub.list_repo_files(name)
        ggufs = [file for file in files if file.endswith(".gguf")]
        if len(ggufs) == 1:
            return Path(huggingface_hub.snapshot_download(name, allow_patterns=ggufs))
        if CONFIG_FILE in files and any(file.endswith(".safetensors") for file in files):
            return None
    except errors.RepositoryNotFoundError as error:
        raise UsageError(
            f"model: there is no Hugging Face repository '{name}', or it is private: check the"
            " name, or set HF_TOKEN."
        ) from error
    except OSError as error:  # no network, a server's error, a full disk: the library's are OSError
        raise UsageError(
            f"model: '{name}' cannot be fetched from Hugging Face ({type(error).__name__}): check"
            f" the network, or use a local path or a built-in model ({', '.join(RECIPES)})."
        ) from error
    what = f"{len(ggufs)} GGUF files: download one and give its path"
    if not ggufs:
        what = f"neither {IR_FILE}, nor a .gguf file, nor {CONFIG_FILE} with .safetensors"
    raise UsageError(f"model: the Hugging Face repository '{name}' has {what}.")


def context_length(path: Path) -> int:
    """Return the context length in tokens of a GGUF file or of a folder with an IR.

    Raises:
        UsageError: the IR's config does not state it.
    """
    if path.is_dir():
        return _context_length_of_ir(path / CONFIG_FILE)
    import gguf

    fields = gguf.GGUFReader(path).fields
    architecture = fields["general.architecture"].contents()
    return int(fields[f"{architecture}.context_length"].contents())


def _context_length_of_ir(config: Path) -> int:
    """Read it from the model's own config; what OpenVINO itself writes comes without one."""
    if not config.exists():
        return CONTEXT_LENGTH_UNSAID
    try:
        return int(msgspec.json.decode(config.read_bytes())["max_position_embeddings"])
    except KeyError:
        return CONTEXT_LENGTH_UNSAID
    except (msgspec.MsgspecError, TypeError, ValueError, OSError) as error:
        raise UsageError(f"{config}: does not tell the model's context length: {error}.") from error


def _write_gguf(path: Path, recipe: Recipe) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(recipe.context_length)
    writer.add_embedding_length(recipe.hidden)
    writer.add_block_count(recipe.layers)
    writer.add_feed_forward_length(recipe.feed_forward)
    writer.add_head_count(recipe.heads)
    writer.add_head_count_kv(recipe.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(recipe.hidden // recipe.heads)
    writer.add_vocab_size(recipe.vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_chat_template(CHAT_TEMPLATE)
    _add_tokenizer(writer, recipe)
    _add_weights(writer, recipe)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: "gguf.GGUFWriter", recipe: Recipe) -> None:
    """Train a byte-level BPE tokenizer, as GPT-2's and Llama 3's are, and add it."""
    import gguf
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_english(), trainer)
    bpe = msgspec.json.decode(tokenizer.to_str())["model"]
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].__getitem__)
    assert len(tokens) == recipe.vocabulary, len(tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_merges([" ".join(pair) for pair in bpe["merges"]])
    kinds = gguf.TokenType
    writer.add_token_types(
        [kinds.CONTROL if token in SPECIAL_TOKENS else kinds.NORMAL for token in tokens]
    )
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)


def _english() -> Iterator[str]:
    """Yield the English that every Python installation carries: its manual and docstrings."""
    from pydoc_data import topics

    for _, text in sorted(topics.topics.items()):
        yield text
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield ast.get_docstring(node) or ""


def _add_weights(writer: "gguf.GGUFWriter", recipe: Recipe) -> None:
    """Add seeded random weights, scaled so that activations keep their size from layer to layer."""
    import numpy as np

    random = np.random.default_rng(recipe.seed)

    def matrix(name: str, rows: int, columns: int, *, spread: float) -> None:
        values = random.standard_normal((rows, columns), dtype=np.float32) * spread
        writer.add_tensor(f"{name}.weight", values.astype(np.float16))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(recipe.hidden, dtype=np.float32))

    hidden, feed_forward = recipe.hidden, recipe.feed_forward
    kv_width = hidden // recipe.heads * recipe.kv_heads
    # Embeddings as large as the norm's output, so that each token changes what comes next: smaller
    # ones make greedy output repeat a single token.
    matrix("token_embd", recipe.vocabulary, hidden, spread=1.0)
    for layer in range(recipe.layers):
        block = f"blk.{layer}"
        norm(f"{block}.attn_norm")
        norm(f"{block}.ffn_norm")
        matrix(f"{block}.attn_q", hidden, hidden, spread=hidden**-0.5)
        matrix(f"{block}.attn_k", kv_width, hidden, spread=hidden**-0.5)
        matrix(f"{block}.attn_v", kv_width, hidden, spread=hidden**-0.5)
        matrix(f"{block}.attn_output", hidden, hidden, spread=hidden**-0.5)
        matrix(f"{block}.ffn_gate", feed_forward, hidden, spread=hidden**-0.5)
        matrix(f"{block}.ffn_up", feed_forward, hidden, spread=hidden**-0.5)
        matrix(f"{block}.ffn_down", hidden, feed_forward, spread=feed_forward**-0.5)
    norm("output_norm")
    matrix("output", recipe.vocabulary, hidden, spread=hidden**-0.5)
