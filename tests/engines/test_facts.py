"""What engines say of themselves, and that those written before need not say it."""

from types import SimpleNamespace
from typing import Any

import pytest

from llmdyno import __version__, plugins
from llmdyno.bench import server_metrics
from llmdyno.deploy.portable import PortableEngine
from llmdyno.engines import Facts, facts, pinned
from llmdyno.fronts._triton import backends

# As an engine was written before it could say more of itself.
OLD: Any = SimpleNamespace(
    name="old.engine", knobs=(), install="run: pip install old", image="", version=lambda: "2.0"
)


def test_an_engine_that_says_nothing_has_the_defaults() -> None:
    assert facts(OLD) == Facts()
    assert facts(PortableEngine(OLD)) == Facts()
    assert pinned(OLD) == ()


@pytest.mark.parametrize("name", plugins.names("engines"))
def test_a_portable_engine_says_what_the_engine_says(name: str) -> None:
    engine = plugins.load("engines", name)

    assert facts(PortableEngine(engine)) == facts(engine)


def test_packages_are_pinned_to_what_is_here() -> None:
    new: Any = SimpleNamespace(**{**vars(OLD), "packages": ("old", "llmdyno[cpu]")})

    assert pinned(new) == ("old==2.0", f"llmdyno[cpu]=={__version__}")


def test_an_engine_of_another_package_brings_its_backend() -> None:
    brought = "llmdyno.fronts._triton.backends.vllm"
    new: Any = SimpleNamespace(**{**vars(OLD), "triton_backend": brought})

    assert backends.find(new) is plugins.load(backends.KIND, "vllm")


@pytest.mark.parametrize("name", plugins.names("engines"))
def test_every_engine_has_a_page_that_is_told_from_all_others(name: str) -> None:
    page = facts(plugins.load("engines", name)).metrics
    assert page is not None

    found = server_metrics.recognise(f"{page.prefix}x 1\n".encode())

    assert found == page
