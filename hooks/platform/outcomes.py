"""Outcomes of an attempt to change the platform: what the shell reports to the core."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Registered:
    """The platform has the desired object."""

    platform_fields: Mapping[str, str] = field(default_factory=dict)
    """Values that the platform chose, by the field of status that shows them."""
    owned: bool = True
    """Whether the object is ours. False when an equal one was there before, made by another client: it is left
    alone."""
    changed: bool = True
    """Whether the attempt wrote anything."""


@dataclass(frozen=True, slots=True)
class Removed:
    """The platform has no such object, or the object belongs to another ModelDeployment by now."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The Kubernetes object no longer exists, or another object has its name. Nothing was done on its behalf."""


@dataclass(frozen=True, slots=True)
class Postponed:
    """Nothing was done: the Kubernetes object has changed since the request, or too many calls are under way."""


@dataclass(frozen=True, slots=True)
class RegistrationFailed:
    """The platform could not be changed."""

    reason: str
    """Reason of the condition Registered, one of `hooks.reasons`."""
    message: str
    """Message of the condition Registered."""
    tried: bool = True
    """Whether this counts as an attempt."""
    sent: bool = False
    """Whether the platform may have made the change nevertheless."""
    foreign: bool = False
    """Whether the object on the platform is known to belong to another owner."""
    retry_after: float | None = None
    """Seconds after which the platform wants to be asked again, or hooks ask it again at all."""


Outcome = Registered | Removed | Gone | Postponed | RegistrationFailed
