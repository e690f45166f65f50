"""Print every command, flag and template value of one of these configs, a line each.

    diff <(python show.py before.toml) <(python show.py after.toml)

is the whole of what was called tuning in 2024. Nothing is started, nothing is installed, and the
model need not be there.
"""

import os
import sys
import tempfile
from pathlib import Path

from llmdyno.cli.flags import read_toml, study_spec
from llmdyno.engines._trtllm.commands import steps
from llmdyno.engines.tensorrt_llm import ENGINE
from llmdyno.knobs import show

TRITON_IMAGES = {
    "0.9.0": "nvcr.io/nvidia/tritonserver:24.04-trtllm-python-py3",
    "0.10.0": "nvcr.io/nvidia/tritonserver:24.06-trtllm-python-py3",
}


def lines(file: Path) -> list[str]:
    """Return the commands with their flags, then what fill_template.py was given."""
    study = study_spec(read_toml(file))
    config = study.baseline
    version = str(config["version"])
    shown = [f"image {TRITON_IMAGES[version]}", f"tensorrt_llm {version}"]
    for step in steps(study.model, config, Path("artifact"), version):
        program, *words = step.argv
        shown.append(program)
        for word in words:
            if word.startswith("--") or not shown[-1].startswith("  --"):
                shown.append(f"  {word}")
            else:
                shown[-1] += f" {word}"
    built = {knob.name for knob in ENGINE.knobs if knob.layer == "build"} - {"max_beam_width"}
    template = {name: value for name, value in config.items() if name not in built}
    return [*shown, "config.pbtxt", *(f"  {name}:{show(template[name])}" for name in template)]


def main(file: Path) -> None:
    """Print the lines, from a folder in which the model's name is a Llama's."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / study_spec(read_toml(file)).model
        model.mkdir(parents=True)
        (model / "config.json").write_text('{"model_type": "llama"}')
        os.chdir(folder)
        sys.stdout.writelines(f"{line}\n" for line in lines(file))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
