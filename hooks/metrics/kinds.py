"""Which version of an API group is served, and what the resource of a kind is called: the discovery of Kubernetes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hooks.kube.objects import Object
from hooks.kube.unstructured import objects, text

_API_VERSION: Final = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind that is served."""

    resource: str
    """Its plural with its group, `services` or `ingresses.networking.k8s.io`."""
    namespaced: bool


def is_api_version(value: str) -> bool:
    """Whether it may be part of a path: `v1` or `group/v1`."""
    return _API_VERSION.fullmatch(value) is not None


def discovery_path(api_version: str) -> str:
    """Where the kinds of an API version are listed."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def served_version(group: Object, known: Sequence[str]) -> str | None:
    """The version to use: the one that an APIGroup prefers if it is known, else the first that is; None for none."""
    preferred = group.get("preferredVersion")
    versions = [text(one, "version") for one in ([preferred] if isinstance(preferred, dict) else [])]
    versions += [text(one, "version") for one in objects(group, "versions")]
    return next((version for version in versions if version in known), None)


def kinds(api_version: str, resources: Object) -> dict[str, Kind]:
    """The kinds in an APIResourceList, by name; subresources are not among them."""
    group = api_version.rpartition("/")[0]
    found: dict[str, Kind] = {}
    for item in objects(resources, "resources"):
        plural = text(item, "name")
        if plural and "/" not in plural:
            qualified = f"{plural}.{group}" if group else plural
            found.setdefault(text(item, "kind"), Kind(qualified, item.get("namespaced") is True))
    return found
