"""What a plug-in's author may import: a list, so that a change of it is seen and meant."""

import importlib
import inspect

import pytest

SURFACE = {
    "llmdyno.engines": [
        "Circumstances", "Engine", "Facts", "Launch", "Limit", "Scheduling", "Sizes", "Step",
        "Waking", "facts", "pinned",
    ],
    "llmdyno.fronts": [
        "MODELS", "Facts", "Front", "Portable", "check_load", "facts", "model_link",
        "speaks_openai", "starts_server_of",
    ],
    "llmdyno.knobs": [
        "Config", "Knob", "MemoryShare", "Value", "accepts", "at_least", "check", "check_version",
        "default", "parse_settings", "show",
    ],
    "llmdyno.testing.engines": ["EngineContract"],
}  # fmt: skip


@pytest.mark.parametrize("module", SURFACE)
def test_a_module_exports_what_the_list_says(module: str) -> None:
    assert sorted(importlib.import_module(module).__all__) == sorted(SURFACE[module])


@pytest.mark.parametrize("module", SURFACE)
def test_what_is_exported_is_there_and_documented(module: str) -> None:
    exporting = importlib.import_module(module)

    assert exporting.__doc__
    for name in exporting.__all__:
        exported = getattr(exporting, name)
        if inspect.isclass(exported) or inspect.isfunction(exported):
            assert exported.__doc__, f"{module}.{name} says nothing of itself"


@pytest.mark.parametrize("module", SURFACE)
def test_a_module_has_no_public_name_that_is_not_exported(module: str) -> None:
    exporting = importlib.import_module(module)
    own = {
        name
        for name, value in vars(exporting).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module
    }

    assert own <= set(exporting.__all__)
