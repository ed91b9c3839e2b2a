"""Scenarios by name. One is its world's only user: it installs a CompositeController, says what the hook answers,
writes objects as a user does, and keeps points of rest."""

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
    """One scenario; its name is its namespace as well."""

    name: str
    run: Run
    parent: Kind
    crd: Json
    """The parent's."""


SCENARIOS: Final[dict[str, Scenario]] = {}
GOOD: Final = {"word": "good"}
"""A status."""


def scenario(run: Run) -> Run:
    """Register a scenario under its function's name."""
    register(run.__name__, run)
    return run


def register(name: str, run: Run) -> None:
    """Register a scenario; a parent's kind of its own keeps it apart from all others."""
    name = name.replace("_", "-")
    parent = widgets.kind_of(name)
    SCENARIOS[name] = Scenario(name, run, parent, widgets.crd(parent.name))
