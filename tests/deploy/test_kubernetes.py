"""kubernetes.yaml; test_bundle.py holds whole ones against Kubernetes' own schemas."""

from pathlib import Path
from typing import Any

import yaml

from deploy_plans import MADE, plan
from llmdyno.deploy import kubernetes


def manifests(**given: Any) -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all(kubernetes.text(plan(**given)))
    return {document["kind"]: document for document in documents}


def container(**given: Any) -> dict[str, Any]:
    pod = manifests(**given)["Deployment"]["spec"]["template"]["spec"]
    (found,) = pod["containers"]
    return dict(found)


def test_a_plain_server_is_a_deployment_and_a_service() -> None:
    found = manifests()

    assert list(found) == ["Deployment", "Service"]
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"] == labels
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == labels


def test_each_port_leads_to_the_container_by_its_name() -> None:
    found = manifests(launch={"also": {"grpc": "grpc://h:8001"}})

    assert found["Service"]["spec"]["ports"] == [
        {"name": "http", "port": 8000, "targetPort": "http"},
        {"name": "grpc", "port": 8001, "targetPort": "grpc"},
    ]


def test_what_must_be_kept_is_on_a_claim() -> None:
    found = manifests(hub=True, links={"models/m": Path("/m")})

    assert list(found) == ["PersistentVolumeClaim", "Deployment", "Service"]
    mounts = container(hub=True, links={"models/m": Path("/m")})["volumeMounts"]
    assert [(mount["mountPath"], mount.get("subPath")) for mount in mounts] == [
        ("/dev/shm", None),  # noqa: S108  # where NCCL looks for it
        ("/huggingface", "huggingface"),
        ("/bundle/models/m", "models/m"),
    ]


def test_settings_in_files_are_a_map_unless_the_image_has_them() -> None:
    launch = {"files": {"files/a.yaml": "a: 1\nb: 2\n"}}

    assert manifests(launch=launch)["ConfigMap"]["data"] == {"a.yaml": "a: 1\nb: 2\n"}
    assert "ConfigMap" not in manifests(launch=launch, image=MADE)


def test_a_secret_comes_from_a_secret_and_the_hubs_may_be_missing() -> None:
    launch = {"environment": {"KEY": "never told", "A": "$(B)"}}

    variables = container(launch=launch, secrets=("KEY", "HF_TOKEN"))["env"]

    by_name = {entry["name"]: entry for entry in variables}
    assert by_name["A"]["value"] == "$$(B)"
    assert by_name["KEY"]["valueFrom"]["secretKeyRef"] == {"name": "org-m", "key": "KEY"}
    assert by_name["HF_TOKEN"]["valueFrom"]["secretKeyRef"]["optional"] is True
    assert "never told" not in str(variables)


def test_gpus_are_a_limit_and_the_start_has_its_time() -> None:
    found = container(launch={"gpus": 2})

    assert found["resources"] == {"limits": {"nvidia.com/gpu": "2"}}
    probe = found["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] == 610
    assert "resources" not in container(launch={"gpus": 0})
