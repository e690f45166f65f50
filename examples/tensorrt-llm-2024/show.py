"""Print every command, flag and template value of one of these configs, a line each.

    diff <(python show.py before.toml) <(python show.py after.toml)

is the whole of what was called tuning in 2024. Nothing is started and nothing is installed.
"""

import sys
from pathlib import Path

from llmdyno.ask import read_toml, study_spec
from llmdyno.engines._trtllm_commands import steps
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


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in lines(Path(sys.argv[1])))
