"""Where routes come from. A source reads; the store judges what it read."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class ConfigMap:
    """One ConfigMap with the route label, as the source found it."""

    namespace: str
    name: str
    created: str
    """creationTimestamp, RFC 3339, or empty."""
    text: str | None
    """The value of `route.json`; None when there is no such key."""
    origin: str
    """Where it is, for people: a file, or `namespace/name`."""

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a source has, at one moment."""

    config_maps: Sequence[ConfigMap]
    errors: Mapping[str, str] = field(default_factory=dict)
    """What could not be read, by place; the objects last read from there are still in `config_maps`."""
    fresh: bool = True
    """Whether it is what the source has now; false when it only tells that the source cannot be asked."""
    complete: bool = True
    """Whether the source has everything; false until its first load is over: then only `errors` count."""


class RouteSource(Protocol):
    """Where routes come from, and the single objects that they refer to."""

    async def run(self, apply: Callable[[Snapshot], None], confirm: Callable[[], None]) -> None:
        """Apply what is there, then every change, until cancelled; confirm that nothing has changed."""
        ...

    async def secret(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """The labels and decoded data of a Secret: `label:<name>` and the data keys; None when there is none."""
        ...

    async def model_deployment(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """A ModelDeployment as stored; None when there is none."""
        ...


def secret_content(found: Mapping[str, Any]) -> Mapping[str, str]:
    """The labels (as `label:<name>`) and decoded data of a Secret. A value that is no text is left out."""
    content = {key: str(value) for key, value in (found.get("stringData") or {}).items()}
    for key, value in (found.get("data") or {}).items():
        try:
            content.setdefault(key, base64.b64decode(str(value), validate=True).decode())
        except (binascii.Error, UnicodeDecodeError):
            continue
    labels = (found.get("metadata") or {}).get("labels") or {}
    return content | {f"label:{key}": str(value) for key, value in labels.items()}
