"""kubernetes.yaml: a Deployment with probes, a Service, and the claims and maps they need."""

from typing import Any

from llmdyno.deploy.plan import HEALTH_PERIOD_S, HUB, INSIDE, SHARED_MEMORY_GIB, BundlePlan
from llmdyno.deploy.portable import FILES
from llmdyno.deploy.yaml_text import dump
from llmdyno.processes import containers

CLAIM_GIB = 200
_LABEL = "app.kubernetes.io/name"
_READY_PERIOD_S = 5
_ALIVE_FAILURES = 6  # a minute: a loaded server answers late, and a restart costs all streams
_STOP_GRACE_S = 60


def text(plan: BundlePlan) -> str:
    """Return the manifests of a plan that has an image, as YAML documents."""
    documents: list[dict[str, Any]] = []
    if _files_as_map(plan):
        documents.append(_config_map(plan))
    if plan.hub or plan.places:
        documents.append(_claim(plan))
    documents += [_deployment(plan), _service(plan)]
    return dump(
        documents,
        heading="kubectl apply -f kubernetes.yaml    (written by llmdyno, checked against\n"
        "Kubernetes' own schemas; not run by us)",
        mind=plan.unproven,
    )


def _deployment(plan: BundlePlan) -> dict[str, Any]:
    labels = {_LABEL: plan.name}
    pod = {
        "automountServiceAccountToken": False,
        # Without this every Service becomes an environment variable, which some engines misread.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _STOP_GRACE_S,
        "containers": [_container(plan)],
        "volumes": _volumes(plan),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(plan),
        "spec": {
            "replicas": 1,
            # A second server beside the first would need a second set of GPUs.
            "strategy": {"type": "Recreate"},
            "progressDeadlineSeconds": plan.start_periods * HEALTH_PERIOD_S + 600,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _container(plan: BundlePlan) -> dict[str, Any]:
    assert plan.image is not None
    entrypoint, arguments = containers.split_command(plan.image.base, plan.contained)
    gpus = {"nvidia.com/gpu": str(plan.launch.gpus)} if plan.launch.gpus else {}
    probe = {
        "httpGet": {"path": plan.launch.health_path, "port": "http"},
        "timeoutSeconds": 5,
    }
    return {
        "name": "llm",
        "image": plan.image_name,
        **({"command": _escaped(entrypoint)} if entrypoint else {}),
        "args": _escaped(arguments),
        "workingDir": INSIDE,
        "env": _environment(plan),
        "ports": [{"name": name, "containerPort": port} for name, port in plan.ports.items()],
        **({"resources": {"limits": gpus}} if gpus else {}),
        "startupProbe": {
            **probe,
            "periodSeconds": HEALTH_PERIOD_S,
            "failureThreshold": plan.start_periods,
        },
        "readinessProbe": {**probe, "periodSeconds": _READY_PERIOD_S, "failureThreshold": 2},
        "livenessProbe": {
            **probe,
            "periodSeconds": HEALTH_PERIOD_S,
            "failureThreshold": _ALIVE_FAILURES,
        },
        "securityContext": {"allowPrivilegeEscalation": False},
        "volumeMounts": _mounts(plan),
    }


def _environment(plan: BundlePlan) -> list[dict[str, Any]]:
    variables = {**plan.variables, **({"HF_HOME": HUB} if plan.hub else {})}
    return [
        *({"name": name, "value": _escaped((value,))[0]} for name, value in variables.items()),
        *(
            {
                "name": name,
                "valueFrom": {
                    "secretKeyRef": {
                        "name": plan.name,
                        "key": name,
                        # The hub's token is needed for gated models only.
                        **({"optional": True} if name not in plan.launch.environment else {}),
                    }
                },
            }
            for name in plan.secrets
        ),
    ]


def _volumes(plan: BundlePlan) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {
            "name": "shared-memory",
            "emptyDir": {"medium": "Memory", "sizeLimit": f"{SHARED_MEMORY_GIB}Gi"},
        }
    ]
    if _files_as_map(plan):
        volumes.append({"name": "files", "configMap": {"name": plan.name}})
    if plan.hub or plan.places:
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": plan.name}})
    return volumes


def _mounts(plan: BundlePlan) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [{"name": "shared-memory", "mountPath": "/dev/shm"}]  # noqa: S108
    if _files_as_map(plan):
        mounts.append({"name": "files", "mountPath": f"{INSIDE}/{FILES}", "readOnly": True})
    if plan.hub:
        mounts.append({"name": "data", "mountPath": HUB, "subPath": "huggingface"})
    mounts += [
        {"name": "data", "mountPath": f"{INSIDE}/{place}", "subPath": place, "readOnly": True}
        for place in plan.places
    ]
    return mounts


def _config_map(plan: BundlePlan) -> dict[str, Any]:
    data = {path.rpartition("/")[2]: text for path, text in plan.launch.files.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(plan), "data": data}


def _claim(plan: BundlePlan) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _metadata(plan),
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": f"{CLAIM_GIB}Gi"}},
        },
    }


def _service(plan: BundlePlan) -> dict[str, Any]:
    ports = [{"name": name, "port": port, "targetPort": name} for name, port in plan.ports.items()]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(plan),
        "spec": {"selector": {_LABEL: plan.name}, "ports": ports},
    }


def _metadata(plan: BundlePlan) -> dict[str, Any]:
    return {"name": plan.name, "labels": {_LABEL: plan.name}}


def _files_as_map(plan: BundlePlan) -> bool:
    """Return whether the engine's files come from a ConfigMap, not from the image."""
    assert plan.image is not None
    return bool(plan.launch.files) and not plan.image.made


def _escaped(words: tuple[str, ...]) -> list[str]:
    """Write "$(" as Kubernetes takes it: it would put a variable there."""
    return [word.replace("$(", "$$(") for word in words]
