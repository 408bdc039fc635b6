"""What KubeRay's RayCluster and RayJob may hold, as a JSON schema made by hand. It is not KubeRay's CRD.

The CRDs hold a whole pod schema several times over (a megabyte each) and could not be had here. So the names and types
below were written down from KubeRay's API reference: docs/reference/api.md of the repository ray-project/kuberay at
commit 0057210ed5a94e830c864af372577328c3542b44, and the types in ray-operator/apis/ray/v1 that it is made of. Every
field of a spec that it has is here but `schedule`, which has since left; nothing of a status. What is a pod there is
one of Kubernetes' own schema here (vendored/NOTICE). Later KubeRays know more fields; these they should know too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_POD = {"$ref": "#/$defs/io.k8s.api.core.v1.PodTemplateSpec"}
_STRING, _BOOL, _INT, _NUMBER = ({"type": t} for t in ("string", "boolean", "integer", "number"))
_STRINGS = {"type": "object", "additionalProperties": _STRING}
_ANY: dict[str, Any] = {}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """An object that has these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _one_of(*values: str) -> dict[str, Any]:
    return {"enum": list(values)}


_AUTOSCALER = _object(
    env=_ANY,
    envFrom=_ANY,
    idleTimeoutSeconds=_INT,
    image=_STRING,
    imagePullPolicy=_STRING,
    resources={"$ref": "#/$defs/io.k8s.api.core.v1.ResourceRequirements"},
    securityContext={"$ref": "#/$defs/io.k8s.api.core.v1.SecurityContext"},
    upscalingMode=_one_of("Default", "Aggressive", "Conservative"),
    version=_one_of("v1", "v2"),
    volumeMounts=_ANY,
)
_HEAD = _object(
    ("rayStartParams", "template"),
    enableIngress=_BOOL,
    headService=_ANY,
    rayStartParams=_STRINGS,
    serviceType=_one_of("ClusterIP", "NodePort", "LoadBalancer"),
    template=_POD,
)
_GROUP = _object(
    ("groupName", "maxReplicas", "minReplicas", "rayStartParams", "template"),
    groupName=_STRING,
    idleTimeoutSeconds=_INT,
    maxReplicas=_INT,
    minReplicas=_INT,
    numOfHosts=_INT,
    rayStartParams=_STRINGS,
    replicas=_INT,
    scaleStrategy=_ANY,
    suspend=_BOOL,
    template=_POD,
)
_CLUSTER = _object(
    ("headGroupSpec",),
    autoscalerOptions=_AUTOSCALER,
    enableInTreeAutoscaling=_BOOL,
    gcsFaultToleranceOptions=_ANY,
    headGroupSpec=_HEAD,
    headServiceAnnotations=_STRINGS,
    managedBy=_STRING,
    rayVersion=_STRING,
    suspend=_BOOL,
    workerGroupSpecs={"type": "array", "items": _GROUP},
)
_JOB = _object(
    (),
    activeDeadlineSeconds=_INT,
    backoffLimit=_INT,
    clusterSelector=_STRINGS,
    deletionStrategy=_ANY,
    entrypoint=_STRING,
    entrypointNumCpus=_NUMBER,
    entrypointNumGpus=_NUMBER,
    entrypointResources=_STRING,
    jobId=_STRING,
    managedBy=_STRING,
    metadata=_STRINGS,
    rayClusterSpec=_CLUSTER,
    runtimeEnvYAML=_STRING,
    shutdownAfterJobFinishes=_BOOL,
    submissionMode=_one_of("K8sJobMode", "HTTPMode", "InteractiveMode"),
    submitterConfig=_object(backoffLimit=_INT),
    submitterPodTemplate=_POD,
    suspend=_BOOL,
    ttlSecondsAfterFinished=_INT,
)


def schema_of(kind: str) -> dict[str, Any]:
    """The JSON schema of a ServiceAccount, a RayCluster or a RayJob."""
    kubernetes = json.loads((Path(__file__).parent / "vendored" / "kubernetes-1.30.json").read_text())
    if kind == "ServiceAccount":
        return {**kubernetes, "$ref": "#/$defs/io.k8s.api.core.v1.ServiceAccount"}
    spec = {"RayCluster": _CLUSTER, "RayJob": _JOB}[kind]
    metadata = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
    whole = _object(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=metadata,
        spec=spec,
    )
    return {**kubernetes, **whole}
