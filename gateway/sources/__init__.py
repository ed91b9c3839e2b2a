"""Where routes come from. A source reads; the store judges what it read."""

from collections.abc import Mapping, Sequence
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


class SecretReader(Protocol):
    """Reads one referenced object. No list and no watch: the gateway sees what a route names and nothing else."""

    async def secret(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """The labels and decoded data of a Secret: `label:<name>` and the data keys; None when there is none."""
        ...

    async def model_deployment(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """A ModelDeployment as stored; None when there is none."""
        ...
