"""Ways in which a metrics API fails, each for as long as its context lasts."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from itertools import chain
from typing import Any, Final

from tests.e2e import aggregation
from tests.e2e.controlplane import ControlPlane
from tests.e2e.installation import NAMESPACE, RELEASE
from tests.e2e.scripted import GROUP, Scripted
from tools.ports import free_port

HOOKS: Final = f"{RELEASE}-hooks"
"""ServiceAccount of hooks."""

Fault = Callable[[ControlPlane, Scripted], AbstractContextManager[None]]


@contextlib.contextmanager
def not_served(plane: ControlPlane, name: str) -> Iterator[None]:
    """Remove an APIService, `version.group`, for as long as the context lasts."""
    registration = plane.get("apiservice", name)
    plane.kubectl("delete", "apiservice", name)
    try:
        yield
    finally:
        plane.apply(_fresh(registration))
        plane.until_served(name)


def gone(plane: ControlPlane, _: Scripted) -> AbstractContextManager[None]:
    """Have no server registered for the group."""
    return not_served(plane, f"{aggregation.EXTERNAL[0]}.{GROUP}")


@contextlib.contextmanager
def down(plane: ControlPlane, scripted: Scripted) -> Iterator[None]:
    """Have the group registered at a port where no server listens."""
    plane.apply(*aggregation.registration(GROUP, aggregation.EXTERNAL[0], "scripted", free_port()))
    try:
        yield
    finally:
        scripted.serve()


@contextlib.contextmanager
def slow(_: ControlPlane, scripted: Scripted) -> Iterator[None]:
    """Delay every response by ten seconds."""
    scripted.delay = timedelta(seconds=10)
    try:
        yield
    finally:
        scripted.delay = timedelta(0)


@contextlib.contextmanager
def forbidden(plane: ControlPlane, _: Scripted) -> Iterator[None]:
    """Take every right that was bound to hooks away."""
    bindings = [plane.get(kind, "", "default")["items"] for kind in ("clusterrolebindings", "rolebindings")]
    taken = [one for one in chain(*bindings) if any(map(_are_hooks, one.get("subjects", ())))]
    assert taken, "hooks have no rights that could be taken away"
    for one in taken:
        plane.kubectl("delete", one["kind"], one["metadata"]["name"], "-n", "default")
    try:
        yield
    finally:
        plane.apply(*map(_fresh, taken))


def _are_hooks(subject: Mapping[str, Any]) -> bool:
    return (subject["kind"], subject["name"], subject.get("namespace")) == ("ServiceAccount", HOOKS, NAMESPACE)


@contextlib.contextmanager
def stale(_: ControlPlane, scripted: Scripted) -> Iterator[None]:
    """Return values from ten minutes ago."""
    scripted.age = timedelta(minutes=10)
    try:
        yield
    finally:
        scripted.age = timedelta(0)


@contextlib.contextmanager
def failing(_: ControlPlane, scripted: Scripted) -> Iterator[None]:
    """Respond to every request with an error."""
    scripted.refused = 500
    try:
        yield
    finally:
        scripted.refused = 0


def _fresh(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a deleted object in a form in which it can be created again."""
    of_the_server = ("uid", "resourceVersion", "creationTimestamp")
    metadata = {name: value for name, value in stored["metadata"].items() if name not in of_the_server}
    return {name: value for name, value in stored.items() if name != "status"} | {"metadata": metadata}
