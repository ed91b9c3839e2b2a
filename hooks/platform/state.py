"""What something is called on the platform, and what status.platform remembers: what is there, and what failed."""

import hashlib
import zlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Self

from hooks.api.common import format_time
from hooks.kube.objects import Object
from hooks.kube.stored import canonical_json
from hooks.kube.unstructured import integer, mapping, text, time
from hooks.observation.observation import Parent

PlatformKind = Literal["models", "policies"]

FIRST_DELAY: Final = 5.0
"""Seconds after the first failure."""
LONGEST_DELAY: Final = 600.0
"""Seconds after many; every further failure doubles the delay up to it."""
JITTER: Final = 0.2
"""Share by which the delays of objects differ, so that they do not all come at once."""
_MOST_ATTEMPTS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class PlatformKey:
    """What something is called on the platform."""

    kind: PlatformKind
    name: str
    environment: str = ""
    """Of a model."""

    def __str__(self) -> str:
        noun = "model" if self.kind == "models" else "policy"
        return f"{noun} {self.name}" + (f" in environment {self.environment}" if self.environment else "")


@dataclass(frozen=True, slots=True)
class DesiredObject:
    """What the platform shall have."""

    thing: PlatformKey
    body: Object
    hash: str

    @classmethod
    def of(cls, thing: PlatformKey, body: Object, account: str) -> Self:
        """With its hash, which is another one for another account."""
        return cls(thing, body, hashlib.sha256(canonical_json({"account": account, "body": body})).hexdigest()[:32])


@dataclass(frozen=True, slots=True)
class RegistrationState:
    """What status.platform holds. What cannot be read in it is forgotten."""

    thing: PlatformKey | None = None
    """What is there, or may be: with an empty hash it is not known."""
    hash: str = ""
    tried: str = ""
    attempts: int = 0
    since: datetime | None = None

    @classmethod
    def of(cls, kind: PlatformKind, parent: Parent) -> Self:
        """Of an object."""
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
        """As it is written; empty when there is nothing to remember."""
        thing = self.thing
        state: dict[str, Any] = {
            "name": thing and thing.name,
            "environment": thing and thing.environment,
            "hash": self.hash,
            "tried": self.tried,
            "attempts": self.attempts,
            "since": self.since and format_time(self.since),
        }
        return {key: value for key, value in state.items() if value}

    def failed(self, tried: str, now: datetime) -> Self:
        """After one more failure."""
        attempts = self.attempts + 1 if self.tried == tried else 1
        return replace(self, tried=tried, attempts=min(attempts, _MOST_ATTEMPTS), since=now.replace(microsecond=0))

    def wait(self, tried: str, uid: str, now: datetime) -> float:
        """Seconds until that may be tried; 0 for now."""
        if self.tried != tried or self.since is None:
            return 0.0
        return max(0.0, (min(self.since, now) - now) / timedelta(seconds=1) + delay(self.attempts, uid))


def delay(attempts: int, uid: str) -> float:
    """Seconds after so many failures in a row."""
    share = zlib.crc32(uid.encode()) / 0xFFFFFFFF
    grown: float = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(attempts - 1, 20))
    return round(grown * (1 - JITTER + 2 * JITTER * share), 3)


CARRIED: Final = ("workspace", "createdAtOnBeamlit", "updatedAtOnBeamlit")
"""What the platform says. Status is replaced whole, so it must be said again."""


def carried_over(parent: Parent) -> dict[str, str]:
    """What an earlier status holds and is not ours to decide."""
    return {name: value for name in CARRIED if (value := text(parent.status, name))}
