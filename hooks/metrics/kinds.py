"""Discovery in Kubernetes: the versions of an API group that are served, and the resource of a kind."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hooks.kube.objects import Object
from hooks.kube.unstructured import objects, text

_API_VERSION: Final = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Kind:
    """The resource by which a kind is served."""

    resource: str
    """Plural of the kind with its group, such as `services` or `ingresses.networking.k8s.io`."""
    namespaced: bool


def is_api_version(value: str) -> bool:
    """Return whether a text is `v1` or `group/v1`, which may stand in a path."""
    return _API_VERSION.fullmatch(value) is not None


def discovery_path(api_version: str) -> str:
    """Return the path at which the API server lists the kinds of an API version."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def served_version(group: Object, known: Sequence[str]) -> str | None:
    """Return the preferred version of an APIGroup if it is known, else the first known one; None for none."""
    preferred = group.get("preferredVersion")
    versions = [text(one, "version") for one in ([preferred] if isinstance(preferred, dict) else [])]
    versions += [text(one, "version") for one in objects(group, "versions")]
    return next((version for version in versions if version in known), None)


def kinds(api_version: str, resources: Object) -> dict[str, Kind]:
    """Return the kinds in an APIResourceList by their names. Subresources are left out."""
    group = api_version.rpartition("/")[0]
    by_name: dict[str, Kind] = {}
    for item in objects(resources, "resources"):
        plural = text(item, "name")
        if plural and "/" not in plural:
            qualified = f"{plural}.{group}" if group else plural
            by_name.setdefault(text(item, "kind"), Kind(qualified, item.get("namespaced") is True))
    return by_name
