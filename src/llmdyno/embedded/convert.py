"""A model of any kind → OpenVINO IR: `python -m llmdyno.embedded.convert --model tiny --folder F`.

The first step of the embedded engine's builds (engines/openvino.py says when there is one). A GGUF
is converted by OpenVINO GenAI itself, an IR is copied. A Hugging Face checkpoint takes Optimum
Intel's exporter, and with it torch, six gigabytes that nobody else here needs: it gets an
environment of its own when it is first asked for.
"""

import argparse
import importlib.metadata
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from llmdyno.embedded import model as models
from llmdyno.errors import DynoError, UsageError
from llmdyno.processes import environments

# The tokenizer is an OpenVINO model too: made by the version that is to run it.
_EXPORTER = (
    "optimum-intel[openvino]>=2.2",
    f"openvino-tokenizers=={importlib.metadata.version('openvino-tokenizers')}",
)
_FULL_TYPES = {"f64", "f32", "f16", "bf16"}
_WEIGHT_ELEMENTS_MIN = 1 << 14  # smaller constants are shapes and scales


def convert(name: str, folder: Path) -> None:
    """Fill a folder with the IR of a model, its weights not compressed.

    Raises:
        UsageError: there is no such model, or its weights are compressed already.
        ServerError: the exporter cannot be installed.
        StorageError: the folder of the exporter's environment cannot be written.
    """
    found = models.locate(name)
    if found.kind == "checkpoint":
        _export_checkpoint(found.path or name, folder)
    else:
        assert found.path is not None
        if found.kind == "ir":
            for pattern in models.IR_FILES:
                for file in found.path.glob(pattern):
                    shutil.copy(file, folder)
        else:
            _export_gguf(found.path, folder)
    _refuse_compressed(name, folder)


def _export_gguf(path: Path, folder: Path) -> None:
    import openvino_genai

    beside = folder / "model.gguf"  # the library writes the IR beside the file that it is given
    beside.symlink_to(path.resolve())
    openvino_genai.LLMPipeline(str(beside), "CPU", enable_save_ov_model=True)
    beside.unlink()
    # The library's IR lacks the context length, which the server needs.
    facts = {"max_position_embeddings": models.context_length(path)}
    (folder / models.CONFIG_FILE).write_bytes(msgspec.json.encode(facts))


def _export_checkpoint(source: Path | str, folder: Path) -> None:
    programs = environments.ensure("openvino-export", _EXPORTER, _say)
    command = [str(programs / "optimum-cli"), "export", "openvino", "--model", str(source)]
    task = ["--task", "text-generation-with-past", "--weight-format", "fp16"]
    done = subprocess.run([*command, *task, str(folder)], check=False)
    if done.returncode:
        sys.exit(done.returncode)  # it has said why


def _refuse_compressed(name: str, folder: Path) -> None:
    import openvino

    graph = openvino.Core().read_model(folder / models.IR_FILE)
    types = {
        node.get_output_element_type(0).get_type_name()
        for node in graph.get_ops()
        if node.get_type_name() == "Constant"
        and math.prod(node.get_output_shape(0)) >= _WEIGHT_ELEMENTS_MIN
    }
    if not types & _FULL_TYPES or types & {"u8", "i8", "u4", "i4"}:
        raise UsageError(
            f"weight_format: the weights of '{name}' are compressed already"
            f" ({', '.join(sorted(types))}); leave it out, or give the model they were made from."
        )


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main() -> int:
    """Read the command line, convert, and return the exit status; a fault is printed."""
    parser = argparse.ArgumentParser(prog="python -m llmdyno.embedded.convert")
    parser.add_argument("--model", required=True)
    parser.add_argument("--folder", required=True, type=Path)
    arguments = parser.parse_args()
    # Told to stop while it installs the exporter, it must clear up what it has.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        convert(arguments.model, arguments.folder)
    except DynoError as error:
        _say(f"llmdyno.embedded: {error}")
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
