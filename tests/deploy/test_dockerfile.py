"""The Dockerfile of an image that is not there."""

from deploy_plans import MADE, plan
from llmdyno.deploy import dockerfile


def test_it_installs_what_is_missing_and_prepares_the_front() -> None:
    text = dockerfile.text(plan(image=MADE, prepare="python3 prepare.py"))

    assert text.splitlines()[1:] == [
        "FROM python:3.12-slim",
        "WORKDIR /bundle",
        "COPY . .",
        "RUN python3 -m pip install --no-cache-dir --find-links=wheels 'llmdyno[openvino]' 'x>=1'",
        "RUN python3 prepare.py",
    ]


def test_what_is_not_needed_is_not_run() -> None:
    assert "RUN" not in dockerfile.text(plan())


def test_what_is_mounted_is_not_copied() -> None:
    assert dockerfile.ignored() == "models\nartifact\n*.yaml\n*.sh\n"
