"""Compress the weights of an OpenVINO IR in place, with NNCF.

The second step of the embedded engine's builds, where weights of 8 or 4 bits are asked for. No data
is needed: each row, or each group of a row, gets a scale of its own. Embeddings and the last layer
keep 8 bits, as NNCF advises.
"""

import argparse
import sys
from pathlib import Path

from llmdyno.embedded.model import IR_FILE

MODES = ("int8_asym", "int4_asym", "int4_sym")


def compress(folder: Path, mode: str, *, group_size: int, ratio: float) -> None:
    """Replace the IR in a folder by one with compressed weights.

    Args:
        folder: with the IR.
        mode: one of MODES.
        group_size: the number of 4-bit weights that share a scale; -1: a whole row.
        ratio: the share of the weights that gets 4 bits; the rest gets 8.
    """
    import nncf
    import openvino

    graph = openvino.Core().read_model(folder / IR_FILE)
    four_bits = {"group_size": group_size, "ratio": ratio} if mode.startswith("int4") else {}
    graph = nncf.compress_weights(graph, mode=nncf.CompressWeightsMode[mode.upper()], **four_bits)
    # The new file is written beside the old one, which the graph reads until the end.
    draft = folder / "compressed.xml"
    openvino.save_model(graph, draft, compress_to_fp16=True)
    for suffix in (".bin", ".xml"):
        draft.with_suffix(suffix).rename((folder / IR_FILE).with_suffix(suffix))


def main() -> int:
    """Read the command line, compress the model in its folder, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m llmdyno.embedded.compress")
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--mode", required=True, choices=MODES)
    parser.add_argument("--group-size", type=int, default=128)
    parser.add_argument("--ratio", type=float, default=1.0)
    arguments = parser.parse_args()
    try:
        compress(
            arguments.folder,
            arguments.mode,
            group_size=arguments.group_size,
            ratio=arguments.ratio,
        )
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"weight_format: no module '{error.name}'; run: pip install 'llmdyno[build]'\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
