"""A deployment's plan, for the tests of the files that are made of it."""

from typing import Any

from llmdyno.deploy.plan import HOST, BundlePlan, Image
from llmdyno.engines import Launch

IMAGE = Image(base="vllm/vllm-openai:v0.33.0")
MADE = Image(base="python:3.12-slim", requirements=("llmdyno[openvino]", "x>=1"), made=True)


def plan(*, launch: dict[str, Any] | None = None, **given: Any) -> BundlePlan:
    """Return the plan of a server on one GPU, changed as it is told."""
    started: dict[str, Any] = {
        "argv": ("vllm", "serve", "org/m", "--host", HOST, "--port", "8000", "--enforce-eager"),
        "url": f"http://{HOST}:8000",
        "endpoint": "openai-chat",
        "model": "org/m",
        "gpus": 1,
        "start_timeout_s": 601.0,
    }
    facts: dict[str, Any] = {
        "name": "org-m",
        "engine": "vllm",
        "engine_version": "0.33.0",
        "install": "run: pip install vllm",
        "front": "native",
        "model": "org/m",
        "config": {},
        "port": 8000,
        "launch": Launch(**started | (launch or {})),
        "image": IMAGE,
        "prepare": "",
        "secrets": (),
        "hub": False,
        "built": False,
        "links": {},
    }
    return BundlePlan(**facts | given)
