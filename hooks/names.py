"""Names of everything we create. Whoever may create what, under which name, is decided here alone.

A derived name never changes for as long as its parent lives: it depends on the parent's name and nothing else.
"""

import hashlib
import re
from typing import Final

MAX_LENGTH: Final = 63
"""Longest DNS label (RFC 1035 section 2.3.4): the limit of Service names and of label values."""
_HASH_LENGTH: Final = 8
_LABEL: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

NAME_LABEL: Final = "deployment.beamlit.com/name"
"""Label on children and pods: name of the ModelDeployment, cut where it is too long."""
UID_LABEL: Final = "deployment.beamlit.com/uid"
"""Label on pods: uid of the ModelDeployment, so that two of the same name never share pods. Also on the platform, to
say whose a model is."""
NAMESPACE_LABEL: Final = "deployment.beamlit.com/namespace"
"""Label on the platform: namespace of the ModelDeployment that a model belongs to."""
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "beamlit-controller"
WORKLOAD_ANNOTATION: Final = "deployment.beamlit.com/workload"
"""Annotation on the local Service: `Kind/name` of the workload behind it."""

LAST_APPLIED: Final = "metacontroller.k8s.io/last-applied-configuration"
"""Annotation in which Metacontroller keeps what it applied last, as JSON."""
CONTROLLER_UID_LABEL: Final = "controller-uid"
"""Label that Metacontroller adds to every child by itself (generateSelector)."""


def deployment(parent: str) -> str:
    """The Deployment made from spec.server."""
    return _derived(parent, "")


def local_service(parent: str) -> str:
    """The Service that leads to the local replicas."""
    return _derived(parent, "-local")


def route(parent: str) -> str:
    """The ConfigMap with the route document."""
    return _derived(parent, "-route")


def label_value(parent: str) -> str:
    """The parent's name as a label value."""
    return _derived(parent, "")


def is_service_name(name: str) -> bool:
    """Whether a Service may have that name: an RFC 1035 label."""
    return len(name) <= MAX_LENGTH and _LABEL.fullmatch(name) is not None


def is_object_name(name: str) -> bool:
    """Whether it is a DNS subdomain (RFC 1123), as most objects must be named."""
    return len(name) <= 253 and _SUBDOMAIN.fullmatch(name) is not None


def _derived(parent: str, suffix: str) -> str:
    """`parent` + `suffix` as an RFC 1035 label.

    A ModelDeployment's name may be longer, have dots and begin with a digit. Where something has to change, a hash of
    the whole name keeps two names from becoming one.
    """
    name = parent + suffix
    if is_service_name(name):
        return name
    plain = re.sub(r"[^a-z0-9-]", "-", parent)
    plain = plain if plain[:1].isalpha() else f"m-{plain}"
    digest = hashlib.sha256(parent.encode()).hexdigest()[:_HASH_LENGTH]
    room = MAX_LENGTH - len(suffix) - _HASH_LENGTH - 1
    return f"{plain[:room].rstrip('-')}-{digest}{suffix}"
