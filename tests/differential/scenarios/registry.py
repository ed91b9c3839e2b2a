"""Scenarios by name. Each has a world to itself: it installs a CompositeController, sets the responses of the hook,
writes objects as a user does, and records points of rest."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from metacontroller.local.apiserver.objects import Kind
from tests.differential import widgets
from tests.differential.snapshots import Json
from tests.differential.world import World

Run = Callable[[World], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario; its name is also that of its namespace."""

    name: str
    run: Run
    parent: Kind
    crd: Json
    """CustomResourceDefinition of the parent."""


SCENARIOS: Final[dict[str, Scenario]] = {}
GOOD: Final = {"word": "good"}
"""A status that the schema of every parent accepts."""


def scenario(run: Run) -> Run:
    """Register a scenario under its function's name."""
    register(run.__name__, run)
    return run


def register(name: str, run: Run) -> None:
    """Register a scenario, with a kind of parent of its own that keeps it apart from all others."""
    name = name.replace("_", "-")
    parent = widgets.kind_of(name)
    SCENARIOS[name] = Scenario(name, run, parent, widgets.crd(parent.name))
