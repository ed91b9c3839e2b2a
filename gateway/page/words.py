"""Sentences of the page for the reasons that a split or a request may have, which are single words elsewhere."""

from collections.abc import Mapping
from typing import Final

SPLITS: Final[Mapping[str, str]] = {
    "Local": "Nothing asks for offloading: every request is served locally.",
    "Disabled": "The model is disabled (spec.enabled): every request is served locally.",
    "NotConfigured": "The model has no offloadingConfig: every request is served locally.",
    "Override": "A person has set this split until a moment in time.",
    "OverrideForced": "A person has set this split, whether or not replicas are ready.",
    "MetricReached": "A metric has reached its target, so a part of the requests is offloaded.",
    "Releasing": "All metrics are below their targets: requests come back step by step.",
    "Returning": "A replica is ready again: requests come back step by step.",
    "MetricsMissing": "A metric cannot be read, and behavior.onMissingMetrics decides.",
    "NoReadyReplica": "No local replica is ready.",
    "ScaledToZero": "The workload is scaled to 0 replicas.",
    "Terminating": "The workload is being deleted.",
    "Progressing": "The workload is being changed, and reports no ready replica.",
    "WorkloadMissing": "The workload that serves the model does not exist.",
    "WorkloadSelectorUnsupported": "The workload does not select its pods by labels alone, so no Service can.",
    "ServiceMissing": "A Service that the model refers to does not exist.",
    "ServiceWithoutSelector": "The Service of serviceRef has no selector, so its pods are not known.",
    "ExternalService": "The Service of serviceRef is a name for a host elsewhere.",
    "PortUnknown": "It is not known which port serves the model.",
    "NoRemoteBackend": "Nothing names a remote backend: every request is served locally.",
    "WorkspaceUnknown": "The path of the remote backend needs a workspace that is not known.",
    "RemotePolicy": "A policy exists only on the platform: every request is served locally.",
    "PolicyMissing": "A policy does not exist: every request is served locally.",
    "InvalidPolicy": "A policy is not valid: every request is served locally.",
    "LocationUnknown": "The remote backend does not declare its location, which a policy asks for.",
    "LocationNotAllowed": "A policy does not allow the location of the remote backend.",
    "FlavorsUnknown": "The remote backend declares no flavors, which a policy asks for.",
    "FlavorNotAllowed": "A policy does not allow a flavor of the remote backend.",
}
"""Meaning of the reasons of splits, which hooks decide."""

LOCAL_MISSING: Final = frozenset(
    {
        "NoReadyReplica",
        "WorkloadMissing",
        "WorkloadSelectorUnsupported",
        "ServiceMissing",
        "ServiceWithoutSelector",
        "ExternalService",
        "PortUnknown",
    }
)
"""Reasons for which everything is offloaded though neither a metric nor an override asks for it."""

DIVERSIONS: Final[Mapping[str, str]] = {
    "Failover": "An attempt failed before the client got anything, so another backend got the request.",
    "Overflow": "The local backend was at its limit, so the remote one got the request.",
    "Stateful": "Only this backend has the earlier response that the request refers to.",
    "CoolDown": "The backend whose turn it was had asked for a pause.",
    "BreakerOpen": "The backend whose turn it was had failed too often.",
    "Unhealthy": "The backend whose turn it was failed its health checks.",
}
"""Meaning of the reasons for which a request went to another backend than the split says."""
