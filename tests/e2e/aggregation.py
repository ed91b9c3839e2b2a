"""API servers behind the API server, by its aggregation layer.

https://kubernetes.io/docs/concepts/extend-kubernetes/api-extension/apiserver-aggregation/
"""

import json
import urllib.request
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

CUSTOM: Final = ("v1beta1", "v1beta2")
"""Versions of custom.metrics.k8s.io that the test-adapter serves."""
EXTERNAL: Final = ("v1beta1",)
NAMESPACE: Final = "kube-system"
ADAPTER: Final = "test-adapter"
_RBAC: Final = "rbac.authorization.k8s.io"


def registration(group: str, version: str, name: str, port: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the Service `name` and the APIService of an API that a process of this machine serves. The Service is a
    host name, as no cluster IP is routed here."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
    }
    api_service = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"{version}.{group}"},
        "spec": {
            "group": group,
            "version": version,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": {"name": name, "namespace": NAMESPACE, "port": port},
        },
    }
    return service, api_service


def adapter_rules() -> tuple[dict[str, Any], ...]:
    """Return the ServiceAccount of the test-adapter and its rights: to review tokens and access, and to list pods."""
    subject = {"kind": "ServiceAccount", "name": ADAPTER, "namespace": NAMESPACE}

    def bound(kind: str, name: str, role: str, **metadata: str) -> dict[str, Any]:
        return {
            "apiVersion": f"{_RBAC}/v1",
            "kind": f"{kind}Binding",
            "metadata": {"name": name, **metadata},
            "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": role},
            "subjects": [subject],
        }

    return (
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ADAPTER, "namespace": NAMESPACE}},
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": ADAPTER},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}],
        },
        bound("ClusterRole", ADAPTER, ADAPTER),
        bound("ClusterRole", f"{ADAPTER}-delegator", "system:auth-delegator"),
        bound("Role", f"{ADAPTER}-reader", "extension-apiserver-authentication-reader", namespace=NAMESPACE),
    )


class Adapter:
    """A client of the test-adapter, which serves the values that tests set.

    A value of custom.metrics.k8s.io is set for one object and stays, with the time at which it was set, until it is set
    again. Values of external.metrics.k8s.io are fixed, the same in every namespace and as new as the request:
    `my-external-metric` has the series `foo=bar` (42) and `foo=baz` (43), `other-external-metric` one without labels
    (44); any other name has no series. Neither has a window.
    """

    def __init__(self, port: int, address: str) -> None:
        """Make a client of a process that serves the API server at `port`, and takes values at the host:port
        `address`."""
        self.port, self.address = port, address

    def set(
        self,
        resource: str,
        name: str,
        metric: str,
        value: str,
        *,
        namespace: str = "default",
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Set the metric of one object.

        Args:
            resource: plural of its kind, with its group: `pods`, `deployments.apps`.
            name: of the object.
            metric: its name.
            value: a Kubernetes quantity.
            namespace: of the object.
            labels: of the metric, which a selector of the metric is held against.
        """
        path = "/".join(quote(part, safe="") for part in (namespace, resource, name, metric))
        query = urlencode({"labels": ",".join(f"{key}={word}" for key, word in (labels or {}).items())})
        request = urllib.request.Request(
            f"http://{self.address}/write-metrics/namespaces/{path}?{query}",
            json.dumps(value).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            response.read()
