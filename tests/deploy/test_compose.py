"""compose.yaml; test_bundle.py holds whole ones against the specification's schema."""

from pathlib import Path
from typing import Any

import yaml

from deploy_plans import MADE, plan
from llmdyno.deploy import compose


def document(**given: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(compose.text(plan(**given)))
    return loaded


def service(**given: Any) -> dict[str, Any]:
    found: dict[str, Any] = document(**given)["services"]["llm"]
    return found


def test_its_ports_are_on_loopback_only() -> None:
    launch = {"also": {"grpc": "grpc://h:8001"}}

    assert service(launch=launch)["ports"] == ["127.0.0.1:8000:8000", "127.0.0.1:8001:8001"]


def test_a_secret_is_named_and_a_variable_is_set() -> None:
    launch = {"environment": {"A": "$HOME", "KEY": "never told"}}

    found = service(launch=launch, secrets=("KEY",))

    assert found["environment"] == ["A=$$HOME", "KEY"]


def test_gpus_are_reserved_if_there_are_any() -> None:
    (device,) = service(launch={"gpus": 2})["deploy"]["resources"]["reservations"]["devices"]

    assert (device["driver"], device["count"]) == ("nvidia", 2)
    assert "deploy" not in service(launch={"gpus": 0})


def test_places_are_mounted_and_the_hubs_cache_is_a_volume() -> None:
    found = document(links={"models/m": Path("/m")}, hub=True)

    place, hub = found["services"]["llm"]["volumes"]
    assert (place["source"], place["target"], place["read_only"]) == (
        "./models/m", "/bundle/models/m", True,
    )  # fmt: skip
    assert hub["type"] == "volume"
    assert list(found["volumes"]) == [hub["source"]]


def test_settings_in_files_are_mounted_unless_the_image_has_them() -> None:
    launch = {"files": {"files/a.yaml": "a: 1"}}

    assert [mount["source"] for mount in service(launch=launch)["volumes"]] == ["./files"]
    made = service(launch=launch, image=MADE)
    assert "volumes" not in made
    assert (made["build"], made["image"]) == (".", "org-m:latest")


def test_its_health_may_take_as_long_as_its_start() -> None:
    health = service()["healthcheck"]

    assert health["start_period"] == "601s"
    assert "http://127.0.0.1:8000/health" in health["test"][-1]
