"""Sources of routes. A source reads ConfigMaps; the store decides which of them become routes."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class ConfigMap:
    """A ConfigMap with the route label, as the source has it."""

    namespace: str
    name: str
    created: str
    """creationTimestamp of the ConfigMap (RFC 3339); empty when it has none."""
    text: str | None
    """Value of the key `route.json`; None when there is no such key."""
    origin: str
    """Origin of the ConfigMap for messages: a file, or `namespace/name`."""

    @property
    def key(self) -> str:
        """Key of the ConfigMap as `namespace/name`."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All ConfigMaps that a source has at one moment."""

    config_maps: Sequence[ConfigMap]
    errors: Mapping[str, str] = field(default_factory=dict)
    """Errors of the places that cannot be read now; the ConfigMaps last read from there are still in `config_maps`."""
    fresh: bool = True
    """Whether the source has these ConfigMaps now; false when the snapshot only says that it cannot be asked."""
    complete: bool = True
    """Whether all places were read once; only `errors` count until then."""


class RouteSource(Protocol):
    """A source of routes, and of the single objects that routes refer to."""

    async def run(self, apply: Callable[[Snapshot], None], confirm: Callable[[], None]) -> None:
        """Apply the ConfigMaps that are there, then each change, until cancelled; confirm that nothing has changed."""
        ...

    async def secret(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """Return labels and decoded data of a Secret, as `label:<name>` and data keys; None when there is none."""
        ...

    async def model_deployment(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """Return a ModelDeployment as stored; None when there is none."""
        ...


def secret_content(secret: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the labels (as `label:<name>`) and decoded data of a Secret, without values that are not UTF-8."""
    content = {key: str(value) for key, value in (secret.get("stringData") or {}).items()}
    for key, value in (secret.get("data") or {}).items():
        try:
            content.setdefault(key, base64.b64decode(str(value), validate=True).decode())
        except (binascii.Error, UnicodeDecodeError):
            continue
    labels = (secret.get("metadata") or {}).get("labels") or {}
    return content | {f"label:{key}": str(value) for key, value in labels.items()}
