"""Every reason that a condition, status.offloading or a route document may give. They are API: never renamed."""

from typing import Final

ACCEPTED: Final = "Accepted"
"""The specification is valid and in force."""
INVALID_SPEC: Final = "InvalidSpec"
"""A value of the specification cannot be used."""
CROSS_NAMESPACE_REFERENCE: Final = "CrossNamespaceReference"
"""A reference leads to another namespace, which is never followed."""
UNSUPPORTED_WORKLOAD: Final = "UnsupportedWorkload"
"""modelSourceRef points to something other than a Deployment, StatefulSet, DaemonSet or ReplicaSet of apps/v1."""
INVALID_NAME: Final = "InvalidName"
"""A name cannot be that of the object it stands for, or is taken by another child."""
INVALID_HOST: Final = "InvalidHost"
"""The host of the remote backend is not a host name or address with an optional port."""
INVALID_PATH_PREFIX: Final = "InvalidPathPrefix"
"""The path prefix of the remote backend, after its variables are put in, is not a path of plain segments."""
INVALID_HEADER: Final = "InvalidHeader"
"""A header cannot be set on requests to the remote backend."""
INVALID_CREDENTIALS: Final = "InvalidCredentials"
"""The authentication of the remote backend is incomplete or contradicts itself."""
INVALID_LOCATION: Final = "InvalidLocation"
"""The location of the remote backend names a country or continent that does not exist."""
INVALID_TEMPLATE: Final = "InvalidTemplate"
"""server.template is not a pod template."""
TOO_LARGE: Final = "TooLarge"
"""A child would be larger than Kubernetes stores together with the record of what was applied."""
NAMESPACE_NOT_MANAGED: Final = "NamespaceNotManaged"
"""The controller is not configured to manage this namespace."""

REFERENCES_RESOLVED: Final = "ReferencesResolved"
"""Everything that the specification refers to was found."""
WORKLOAD_MISSING: Final = "WorkloadMissing"
"""The workload that serves the model does not exist."""
WORKLOAD_SELECTOR_UNSUPPORTED: Final = "WorkloadSelectorUnsupported"
"""The workload does not select its pods by labels, so no Service can be made for it."""
SERVICE_MISSING: Final = "ServiceMissing"
"""A Service that the specification refers to does not exist."""
SERVICE_WITHOUT_SELECTOR: Final = "ServiceWithoutSelector"
"""The Service of serviceRef selects no pods, so it is not known which pods serve the model."""
PORT_UNKNOWN: Final = "PortUnknown"
"""It is not known, or ambiguous, which port serves the model."""
WORKSPACE_UNKNOWN: Final = "WorkspaceUnknown"
"""The path prefix of the remote backend needs a workspace and there is none."""
NO_REMOTE_BACKEND: Final = "NoRemoteBackend"
"""Neither the specification nor the configuration names a remote backend."""
GATEWAY_UNKNOWN: Final = "GatewayUnknown"
"""The configuration does not say where the gateway's Service is, so no Service can lead to it."""

REPLICAS_READY: Final = "ReplicasReady"
"""At least one replica is ready."""
NO_READY_REPLICA: Final = "NoReadyReplica"
"""No replica is ready."""
SCALED_TO_ZERO: Final = "ScaledToZero"
"""The workload is meant to have no replicas."""
TERMINATING: Final = "Terminating"
"""The object is being deleted."""
PROGRESSING: Final = "Progressing"
"""What is known of the workload is older than its present specification."""

DISABLED: Final = "Disabled"
"""spec.enabled is false: every request stays here."""
NOT_CONFIGURED: Final = "NotConfigured"
"""The specification has no offloadingConfig: every request stays here."""
OVERRIDE_FORCED: Final = "OverrideForced"
"""An override of mode Force sets the split, whatever the replicas do."""
OVERRIDE: Final = "Override"
"""An override sets the split until it ends."""
LOCAL: Final = "Local"
"""Nothing asks for offloading: every request stays here."""

NO_POLICIES: Final = "NoPolicies"
"""The model has no policies."""
POLICIES_SATISFIED: Final = "PoliciesSatisfied"
"""Every policy allows the remote backend, or there is none."""
REMOTE_POLICY: Final = "RemotePolicy"
"""A policy is on the remote platform and cannot be evaluated here: every request stays here."""
POLICY_MISSING: Final = "PolicyMissing"
"""A policy does not exist: every request stays here."""
INVALID_POLICY: Final = "InvalidPolicy"
"""A policy cannot be understood: every request stays here."""
LOCATION_UNKNOWN: Final = "LocationUnknown"
"""The remote backend does not declare what a policy asks of its location: every request stays here."""
LOCATION_NOT_ALLOWED: Final = "LocationNotAllowed"
"""A policy does not allow the location of the remote backend: every request stays here."""
FLAVORS_UNKNOWN: Final = "FlavorsUnknown"
"""A policy allows certain flavors and the remote backend declares none: every request stays here."""
FLAVOR_NOT_ALLOWED: Final = "FlavorNotAllowed"
"""A policy does not allow a flavor of the remote backend: every request stays here."""
NO_METRICS: Final = "NoMetrics"
"""The model has no metrics to watch."""
NOT_EVALUATED: Final = "NotEvaluated"
"""This version does not evaluate it, or it cannot be evaluated before the specification is accepted."""

IN_SYNC: Final = "InSync"
"""All children are observed, and the observed route equals the desired one."""
CHILD_PENDING: Final = "ChildPending"
"""A child was asked for and is not observed yet."""
ROUTE_PENDING: Final = "RoutePending"
"""The observed route is not the desired one yet."""
NAME_TAKEN: Final = "NameTaken"
"""A child was asked for some time ago and never appeared: another object has its name, or the controller may not
create it."""
INLINE_SECRET: Final = "InlineSecret"  # noqa: S105 - the name of a warning
"""The specification holds a client secret in the open."""

SERVING: Final = "Serving"
"""Requests are served as specified."""
NOT_ACCEPTED: Final = "NotAccepted"
"""The specification is not accepted; what was decided before stays in force."""
REFERENCES_UNRESOLVED: Final = "ReferencesUnresolved"
"""Something that the specification refers to was not found."""
NOT_SYNCED: Final = "NotSynced"
"""The children are not as desired yet."""
NO_BACKEND: Final = "NoBackend"
"""No replica is ready and nothing is offloaded: requests fail."""

READINESS: Final = frozenset(
    {
        NO_READY_REPLICA,
        SCALED_TO_ZERO,
        TERMINATING,
        PROGRESSING,
        WORKLOAD_MISSING,
        WORKLOAD_SELECTOR_UNSUPPORTED,
        SERVICE_MISSING,
        SERVICE_WITHOUT_SELECTOR,
        PORT_UNKNOWN,
    }
)
"""Why there may be no ready local replica; each is also the reason of the split that follows from it."""

NOWHERE_TO_OFFLOAD: Final = frozenset({WORKSPACE_UNKNOWN, NO_REMOTE_BACKEND, POLICY_MISSING})
"""Why offloading has nowhere to go, or may not go there. What is served here is served all the same."""
