"""Keys of objects on the platform, the objects it should have, and what `status.platform` records of them."""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Self

from hooks.api.common import format_time
from hooks.kube.jitter import jittered
from hooks.kube.objects import Object
from hooks.kube.stored import canonical_json
from hooks.kube.unstructured import integer, mapping, text, time
from hooks.observation.observation import Parent

PlatformKind = Literal["models", "policies"]
"""Collection of the platform's API that an object belongs to, as it stands in the path."""

FIRST_DELAY: Final = 5.0
"""Seconds between the first failed attempt and the next one."""
LONGEST_DELAY: Final = 600.0
"""Most seconds between two attempts. Each further failure doubles the delay until it is this long."""
JITTER: Final = 0.2
"""Share by which the delay of an object is longer or shorter, so that not all objects are tried at the same time."""
_MOST_ATTEMPTS: Final = 1_000_000

PLATFORM_FIELDS: Final = ("workspace", "createdAtOnBeamlit", "updatedAtOnBeamlit")
"""Fields of status whose values the platform chose. A sync replaces the whole status, so it has to repeat them."""


@dataclass(frozen=True, slots=True)
class PlatformKey:
    """Kind, name and environment by which the platform identifies an object."""

    kind: PlatformKind
    name: str
    environment: str = ""
    """Environment of a model; empty for a policy, which has none."""

    def __str__(self) -> str:
        noun = "model" if self.kind == "models" else "policy"
        return f"{noun} {self.name}" + (f" in environment {self.environment}" if self.environment else "")


@dataclass(frozen=True, slots=True)
class DesiredObject:
    """An object that the platform should have, as it is sent."""

    key: PlatformKey
    body: Object
    hash: str
    """Hash of the body together with the account that sends it."""

    @classmethod
    def of(cls, key: PlatformKey, body: Object, account: str) -> Self:
        """Return the object with its hash. Another account has another hash: nothing was sent to it yet."""
        return cls(key, body, hashlib.sha256(canonical_json({"account": account, "body": body})).hexdigest()[:32])


@dataclass(frozen=True, slots=True)
class RegistrationState:
    """Content of `status.platform`: what the platform has of a Kubernetes object, and how often an attempt failed."""

    key: PlatformKey | None = None
    """Object that the platform has, or may have; None when it has none."""
    hash: str = ""
    """Hash of the body that the platform accepted last; empty when it is not known whether it accepted one."""
    tried: str = ""
    """Hash of the body that the failed attempts sent, or `registration.REMOVAL`; empty when none failed."""
    attempts: int = 0
    """Number of attempts in a row that failed."""
    since: datetime | None = None
    """Time of the last attempt that failed."""

    @classmethod
    def of(cls, kind: PlatformKind, parent: Parent) -> Self:
        """Read the state from the status of a Kubernetes object. A value of a wrong type counts as absent."""
        state = mapping(parent.status, "platform")
        name = text(state, "name")
        return cls(
            PlatformKey(kind, name, text(state, "environment")) if name else None,
            text(state, "hash"),
            text(state, "tried"),
            max(0, min(integer(state, "attempts") or 0, _MOST_ATTEMPTS)),
            time(state, "since"),
        )

    def as_json(self) -> Object:
        """Return the state as it is written to status; empty when there is nothing to record."""
        key = self.key
        state: dict[str, Any] = {
            "name": key and key.name,
            "environment": key and key.environment,
            "hash": self.hash,
            "tried": self.tried,
            "attempts": self.attempts,
            "since": self.since and format_time(self.since),
        }
        return {name: value for name, value in state.items() if value}

    def with_failure(self, tried: str, now: datetime) -> Self:
        """Return the state after one more attempt failed, where `tried` identifies what was attempted."""
        attempts = self.attempts + 1 if self.tried == tried else 1
        return replace(self, tried=tried, attempts=min(attempts, _MOST_ATTEMPTS), since=now.replace(microsecond=0))

    def seconds_until_retry(self, tried: str, uid: str, now: datetime) -> float:
        """Return the seconds after which `tried` may be attempted again; 0 when it may be attempted now."""
        if self.tried != tried or self.since is None:
            return 0.0
        return max(0.0, (min(self.since, now) - now) / timedelta(seconds=1) + delay(self.attempts, uid))


def delay(attempts: int, uid: str) -> float:
    """Return the seconds to wait after this many failed attempts in a row."""
    grown: float = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(attempts - 1, 20))
    return jittered(grown, JITTER, uid)


def platform_fields(parent: Parent) -> dict[str, str]:
    """Return the fields of the present status whose values the platform chose."""
    return {name: value for name in PLATFORM_FIELDS if (value := text(parent.status, name))}
