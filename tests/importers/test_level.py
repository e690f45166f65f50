"""Levels that are made of what a tool says."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from importers.tool_samples import SAMPLES, TOOLS, keys_of
from llmdyno.cli.rebuild import run_summary
from llmdyno.errors import UsageError
from llmdyno.importers import import_file, store_imported
from llmdyno.results.documents import level_name
from llmdyno.results.metrics import BY_NAME
from report_samples import level

# What another tool says of a level's load, and we know of our own levels from elsewhere.
OF_A_LOAD = {"rate", "max_concurrency", "sent_rate", "model", "asked", "in_flight"}
OF_A_FILE = {"label", "invalid"}


def without_extras(imported: dict[str, Any]) -> dict[str, Any]:
    """Return a level without the metrics that no import has."""
    extras = {row.name for row in BY_NAME.values() if row.may_lack}
    assert not any(imported[name] for name in extras - {"goodput"})
    return {name: value for name, value in imported.items() if name not in extras}


@pytest.mark.parametrize("name", TOOLS)
def test_an_imported_level_has_the_keys_of_a_measured_one(name: str) -> None:
    measured = level(10, rate=420, ttft_ms=510)
    del measured["histograms"]  # other tools give quantiles, not what they were taken of

    for imported in import_file(SAMPLES / name)["levels"]:
        shape = keys_of({**without_extras(imported), "goodput": None, "whole": None})
        shape["requests"]["errors"] = {}
        is_open = imported["arrival"] != "closed"
        assert ({"rate", "max_concurrency"} <= shape.keys()) is is_open
        assert ("schedule_delay_ms" not in shape) or is_open
        for key in OF_A_LOAD | OF_A_FILE | {"schedule_delay_ms"}:
            shape.pop(key, None)
        assert shape == keys_of({**measured, "whole": None})


def test_a_number_that_is_none_counts_as_not_there(tmp_path: Path) -> None:
    text = (SAMPLES / "aiperf.json").read_text()
    path = tmp_path / "aiperf.json"
    path.write_text(
        text.replace('"avg": 2483.2', '"avg": NaN').replace('"avg": 9.7', '"avg": Infinity')
    )

    (imported,) = import_file(path)["levels"]

    assert imported["token_rate"]["mean"] is None
    assert imported["request_rate"]["mean"] is None


@pytest.mark.parametrize("number", ["1e999", "-1e308", "123456789" * 40])
@pytest.mark.parametrize("name", TOOLS)
def test_absurd_numbers_end_in_a_document_or_a_sentence(
    tmp_path: Path, name: str, number: str
) -> None:
    path = tmp_path / name
    text, places = re.subn(
        r"(?<=[ \[])\d+(\.\d+)?(?=[,\]}\n])", number, (SAMPLES / name).read_text()
    )
    path.write_text(text)
    assert places > 20

    try:
        stored = store_imported(import_file(path), tmp_path / "run")
    except UsageError as error:
        assert "is not a result of" in str(error)  # noqa: PT017  # either end is right
    else:
        assert run_summary(tmp_path / "run")["levels"][0].keys() == stored["levels"][0].keys()


@pytest.mark.parametrize(("asked", "rate"), [("4", 4.0), (2.5, 2.5), ("inf", None)])
def test_a_rate_is_part_of_a_levels_name(tmp_path: Path, asked: object, rate: float | None) -> None:
    """Runs at 2 and at 4 requests a second are no pair."""
    document = msgspec.json.decode((SAMPLES / "vllm_detailed.json").read_bytes())
    path = tmp_path / "vllm.json"
    path.write_bytes(msgspec.json.encode({**document, "request_rate": asked}))

    (one,) = import_file(path)["levels"]

    assert one.get("rate") == rate
    assert rate is None or level_name(one).startswith(f"poisson {rate:g}/s")
