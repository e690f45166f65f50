"""The Dockerfile of a bundle, for stacks without a ready image that has everything."""

import shlex

from llmdyno.deploy.plan import INSIDE, BundlePlan
from llmdyno.deploy.portable import ARTIFACT, PYTHON
from llmdyno.fronts import MODELS

WHEELS = "wheels"  # a folder where pip looks for packages, besides its index


def text(plan: BundlePlan) -> str:
    """Return the Dockerfile of a plan whose image must be made."""
    assert plan.image is not None
    lines = [
        f"# {plan.engine} behind the front {plan.front}; written by llmdyno, not built by us.",
        f"FROM {plan.image.base}",
        f"WORKDIR {INSIDE}",
        "COPY . .",
    ]
    if plan.image.requirements:
        packages = " ".join(map(shlex.quote, plan.image.requirements))
        lines.append(f"RUN {PYTHON} -m pip install --no-cache-dir --find-links={WHEELS} {packages}")
    if plan.prepare:
        lines.append(f"RUN {plan.prepare}")
    return "\n".join([*lines, ""])


def ignored() -> str:
    """Return the text of .dockerignore: the files that are mounted when the image runs."""
    return f"{MODELS}\n{ARTIFACT}\n*.yaml\n*.sh\n"
