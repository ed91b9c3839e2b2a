"""Names, labels and annotations of everything that the controller creates.

A derived name depends on the name of the parent and nothing else, so it never changes while the parent exists.
"""

import hashlib
import re
from typing import Final

MAX_LENGTH: Final = 63
"""Most characters of a DNS label (RFC 1035 section 2.3.4), which limits names of Services and values of labels."""
_HASH_LENGTH: Final = 8
_LABEL: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

NAME_LABEL: Final = "deployment.beamlit.com/name"
"""Label of children and pods: the name of the ModelDeployment, shortened where it is too long."""
UID_LABEL: Final = "deployment.beamlit.com/uid"
"""Label of pods: the uid of the ModelDeployment, so that two of the same name never share pods. A model on the platform
has it too, to name its owner."""
NAMESPACE_LABEL: Final = "deployment.beamlit.com/namespace"
"""Label of a model on the platform: the namespace of the ModelDeployment that owns it."""
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "beamlit-controller"
WORKLOAD_ANNOTATION: Final = "deployment.beamlit.com/workload"
"""Annotation of the local Service: `Kind/name` of the workload behind it."""

LAST_APPLIED: Final = "metacontroller.k8s.io/last-applied-configuration"
"""Annotation in which Metacontroller keeps the child of its last response, as JSON."""
CONTROLLER_UID_LABEL: Final = "controller-uid"
"""Label that Metacontroller adds to every child (`generateSelector`)."""


def deployment(parent: str) -> str:
    """Return the name of the Deployment that is made of spec.server."""
    return _derived(parent, "")


def local_service(parent: str) -> str:
    """Return the name of the Service that leads to the local replicas."""
    return _derived(parent, "-local")


def route(parent: str) -> str:
    """Return the name of the ConfigMap with the route document."""
    return _derived(parent, "-route")


def label_value(parent: str) -> str:
    """Return the name of the parent as the value of a label."""
    return _derived(parent, "")


def is_service_name(name: str) -> bool:
    """Return whether a Service may have the name: whether it is a DNS label (RFC 1035)."""
    return len(name) <= MAX_LENGTH and _LABEL.fullmatch(name) is not None


def is_object_name(name: str) -> bool:
    """Return whether most other objects may have the name: whether it is a DNS subdomain (RFC 1123)."""
    return len(name) <= 253 and _SUBDOMAIN.fullmatch(name) is not None


def _derived(parent: str, suffix: str) -> str:
    """Return the name of the parent with a suffix, as a DNS label (RFC 1035).

    The name of a ModelDeployment may be longer, have dots and begin with a digit. Where it must be changed, a hash of
    the whole name keeps the results for two parents different.
    """
    name = parent + suffix
    if is_service_name(name):
        return name
    plain = re.sub(r"[^a-z0-9-]", "-", parent)
    plain = plain if plain[:1].isalpha() else f"m-{plain}"
    digest = hashlib.sha256(parent.encode()).hexdigest()[:_HASH_LENGTH]
    room = MAX_LENGTH - len(suffix) - _HASH_LENGTH - 1
    return f"{plain[:room].rstrip('-')}-{digest}{suffix}"
