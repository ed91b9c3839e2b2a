"""Sources of routes. A source reads ConfigMaps; the store decides which of them become routes."""

import base64
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
    content = _text_by_key(secret.get("stringData"))
    for key, value in _text_by_key(secret.get("data")).items():
        try:
            content.setdefault(key, base64.b64decode(value, validate=True).decode())
        except ValueError:
            continue
    metadata = secret.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, Mapping) else None
    return content | {f"label:{key}": value for key, value in _text_by_key(labels).items()}


def _text_by_key(value: object) -> dict[str, str]:
    """Return the text in a mapping by its keys; null is empty text, as the API server stores it."""
    if not isinstance(value, Mapping):
        return {}
    return {str(key): text or "" for key, text in value.items() if isinstance(text, str | None)}
