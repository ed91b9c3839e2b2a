"""The tenants of the campaign: three that want to be served, and a hostile one, each with a namespace of its own."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Final

from faults.site import config_map
from gateway.api.v1alpha1 import Backend, Headers, HealthCheck, RouteDocument, ServedModel, Split, Timeouts

TENANTS: Final = ("blue", "green", "red")
"""Namespaces of the tenants that are measured. Each has the model `llm`, whose backend is `<namespace>.test`."""
HOSTILE: Final = "hostile"
"""Namespace of the hostile tenant."""
DARK: Final = "dark.test"
"""Domain whose name server is silent."""


def document(tenant: str, port: int, *, connect: float | None = None) -> RouteDocument:
    """Return the route of a tenant, which is checked every second.

    Args:
        tenant: Namespace of the tenant.
        port: Port of its backend.
        connect: Seconds that a connection to it may take; None for the gateway's setting.
    """
    health = HealthCheck(path="/health", interval=1)
    backend = Backend(id="remote", host=f"{tenant}.test", port=port, weight=100, model=tenant, health=health)
    return RouteDocument(name="llm", backends=(backend,), timeouts=Timeouts(connect=connect))


@dataclasses.dataclass(frozen=True)
class Hostile:
    """The documents of the hostile tenant."""

    port: int
    """Port of its backend."""
    admin: int
    """Admin port of the gateway."""
    dark: Sequence[str] = tuple(f"dark-{number}" for number in range(12))
    """Routes whose backends have names that nobody tells."""
    inside: Sequence[str] = ("loopback", "metadata")
    """Routes whose Services lead where no request may go."""
    holding: Sequence[str] = tuple(f"hold-{number}" for number in range(4))
    """Routes whose backends do not respond."""

    def addresses(self) -> dict[str, tuple[str, ...]]:
        """Return the addresses of names that this tenant's backends have."""
        services = {"loopback": "127.0.0.1", "metadata": "169.254.169.254"}
        names = {f"{name}.{HOSTILE}.svc.cluster.local": (address,) for name, address in services.items()}
        return {f"{HOSTILE}.test": ("127.0.0.1",), **names}

    def lasting(self) -> Iterator[RouteDocument]:
        """Yield the routes that are there from the beginning: its own model, and those of some ways."""
        for name in ("llm", *self.holding):
            yield self._document(name)
        for name in self.dark:
            places = [f"{place}.{name}.{DARK}" for place in range(4)]
            yield RouteDocument(
                name=name,
                backends=tuple(Backend(id=f"b{n}", host=host, port=80, weight=25) for n, host in enumerate(places)),
            )
        for name in self.inside:
            yield RouteDocument(name=name, backends=(Backend(id="local", service=name, port=self.admin, weight=100),))

    def claims(self, percentage: int) -> Iterator[tuple[str, str]]:
        """Yield files with documents that claim what other tenants have: names, hosts and paths."""
        split = Split(percentage=percentage)
        for tenant in TENANTS:
            own = self._document(f"claims-{tenant}")
            changes: Sequence[dict[str, Any]] = (
                {"model": f"{tenant}/llm"},
                {"models": (ServedModel(name=f"{tenant}/llm"),), "requires": ("models",)},
                {"path": f"../{tenant}/llm"},
                {"path": f"{tenant}/llm"},
                {"service_names": ("llm", tenant, f"llm.{tenant}", f"llm.{tenant}.svc")},
                {"cluster_ips": (f"llm.{tenant}", f"llm.{tenant}.svc.cluster.local")},
            )
            for number, change in enumerate(changes):
                claim = own.model_copy(update={**change, "split": split, "name": f"claims-{tenant}-{number}"})
                yield f"{claim.name}.yaml", config_map(claim, HOSTILE)

    def large(self, number: int) -> dict[str, RouteDocument]:
        """Return large documents by name, which differ by `number`."""
        fields = {f"x-{place}": f"{number} {'x' * 40}" for place in range(600)}
        backends = tuple(
            Backend(id=f"b{place}", host=f"{HOSTILE}.test", port=self.port, headers=Headers(set=fields))
            for place in range(16)
        )
        return {"large": RouteDocument(name="large", backends=backends)}

    def checked(self) -> Iterator[RouteDocument]:
        """Yield 33 routes whose health checks get no response and may take an hour."""
        for number in range(33):
            yield self._document(f"checked-{number}", HealthCheck(path="/health", interval=1, timeout=3600))

    def _document(self, name: str, health: HealthCheck | None = None) -> RouteDocument:
        backend = Backend(id="remote", host=f"{HOSTILE}.test", port=self.port, weight=100, health=health)
        return RouteDocument(name=name, backends=(backend,))
