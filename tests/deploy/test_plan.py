"""What a bundle says, decided once."""

from pathlib import Path

import pytest

from deploy_plans import MADE, plan
from llmdyno.deploy.plan import HOST


def test_secrets_are_no_variables() -> None:
    made = plan(launch={"environment": {"A": "1", "HF_TOKEN": "x"}}, secrets=("HF_TOKEN",))

    assert made.variables == {"A": "1"}


def test_the_port_of_its_health_comes_first() -> None:
    made = plan(launch={"also": {"grpc": f"grpc://{HOST}:8001"}})

    assert list(made.ports.items()) == [("http", 8000), ("grpc", 8001)]


def test_in_a_container_it_listens_on_all_addresses() -> None:
    assert plan().contained[3:5] == ("--host", "0.0.0.0")


def test_an_image_that_is_made_bears_the_services_name() -> None:
    assert plan().image_name == "vllm/vllm-openai:v0.33.0"
    assert plan(image=MADE).image_name == "org-m:latest"


def test_what_must_be_there_is_named_once() -> None:
    links = {"models/m": Path("/m"), "artifact": Path("/a")}

    assert plan(links=links, built=True).places == ("models/m", "artifact")
    assert plan(built=True).places == ("artifact",)
    assert plan().places == ()


@pytest.mark.parametrize(("timeout_s", "periods"), [(600.0, 60), (601.0, 61), (1.0, 1)])
def test_a_start_has_whole_looks_at_its_health(timeout_s: float, periods: int) -> None:
    assert plan(launch={"start_timeout_s": timeout_s}).start_periods == periods
