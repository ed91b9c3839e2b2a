"""Routing table: finds the route of a request by host, path or model name.

A request is matched by its host, then by its path, then by the `model` value of its body. The table is immutable; a
change builds another one. When two documents claim a name, the older ConfigMap gets it, then the one whose
`namespace/name` comes first, as the Gateway API resolves conflicts. `RoutingTable.conflicts` lists what lost.
"""

import re
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, Literal, TypeVar
from urllib.parse import unquote_to_bytes

from gateway import errors
from gateway.api.v1alpha1 import RouteDocument

_Name = TypeVar("_Name", str, bytes)

BareHostnames = Literal["namespace", "unique"]
"""Whether host names without a namespace count in a gateway of many namespaces: never, or while one route claims it."""

_CONFUSING: Final = re.compile(rb"%(?:2[fF]|5[cC]|[01][0-9a-fA-F]|7[fF])|[\\\x00-\x20\x7f]")
"""Parts of a path that a backend may interpret differently: encoded slashes, and backslashes and control characters,
encoded or not."""
_ENCODED_SLASH: Final = re.compile(rb"%2[fF]")
_NAME: Final = re.compile(
    rb"(?<=/engines/)[^/]+|(?<=/openai/deployments/)[^/]+"
    rb"|(?<=/model/)[^/]+(?=/(?:invoke(?:-with-response-stream)?|converse(?:-stream)?)$)"
)
"""Segments of a path, but the last one behind `models`, that are a model's id."""
ENCODED_SLASH: Final = (
    "An encoded slash may only be part of a model's id: behind /engines/ or /openai/deployments/, last behind /models/,"
    " or between /model/ and /invoke or /converse."
)
CONFUSING: Final = "The request's path has a backslash or a control character."
DOT_SEGMENTS: Final = "The request's path has dot segments."
_DOT_SEGMENTS: Final = frozenset({b".", b".."})


@dataclass(frozen=True, slots=True)
class Entry:
    """Valid document and the ConfigMap it came from."""

    namespace: str
    """Namespace of the ConfigMap; the document has none of its own."""
    config_map: str
    """Name of the ConfigMap."""
    created: str
    """creationTimestamp of the ConfigMap (RFC 3339); an empty one counts as the youngest."""
    document: RouteDocument


@dataclass(frozen=True, slots=True)
class Route:
    """Route to one model."""

    namespace: str
    document: RouteDocument
    created: str = ""
    config_map: str = ""
    """Name of the ConfigMap that the document came from."""
    key: str = field(init=False, compare=False)
    """`namespace/name`, the key of the route's runtime state."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.namespace}/{self.document.name}")

    @property
    def name(self) -> str:
        """Name of the ModelDeployment."""
        return self.document.name


@dataclass(frozen=True, slots=True)
class NameConflict:
    """Name that two documents claim."""

    claim: str
    """Kind of the name and, for hosts and routes, the name, for instance `host demo.default`."""
    winner: str
    """Key of the route that has the name; of two with one key, the ConfigMap, as `ConfigMap namespace/name`."""
    loser: str
    """Key of the route that does not get it, or its ConfigMap as well."""


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """All routes, and indexes to find them."""

    routes: Mapping[str, Route] = field(default_factory=dict)
    """Routes by `namespace/name`."""
    hosts: Mapping[str, Route] = field(default_factory=dict)
    """Routes by host name."""
    ambiguous: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Short host names that lead nowhere, with the full spellings to use instead."""
    paths: Mapping[bytes, Route] = field(default_factory=dict)
    """Routes by the first two path segments, `namespace/name`."""
    names: Mapping[str, tuple[Route, ...]] = field(default_factory=dict)
    """Routes by bare model name."""
    qualified: Mapping[str, Route] = field(default_factory=dict)
    """Routes by `namespace/model`."""
    models_by_name: dict[str, Route] = field(default_factory=dict)
    """Routes by all names of models that lead to one, `namespace/model` and bare ones; a dict, which compiled code
    looks up fast."""
    checked: tuple[Route, ...] = ()
    """Routes that have a backend with health checks."""
    conflicts: tuple[NameConflict, ...] = ()
    """Names that two documents claim."""

    @classmethod
    def build(
        cls,
        entries: Iterable[Entry],
        *,
        namespaces: frozenset[str] | None,
        cluster_domain: str,
        bare_hostnames: BareHostnames = "namespace",
    ) -> "RoutingTable":
        """Build a table as `building` does, in one step."""
        steps = cls.building(
            entries, namespaces=namespaces, cluster_domain=cluster_domain, bare_hostnames=bare_hostnames
        )
        while True:
            try:
                next(steps)
            except StopIteration as end:
                table: RoutingTable = end.value
                return table

    @classmethod
    def building(
        cls,
        entries: Iterable[Entry],
        *,
        namespaces: frozenset[str] | None,
        cluster_domain: str,
        bare_hostnames: BareHostnames = "namespace",
    ) -> Generator[None, None, "RoutingTable"]:
        """Build a table in small steps; return it at the end.

        Thousands of documents take longer than the event loop can wait. The order of `entries` does not matter.

        Args:
            entries: Documents in force.
            namespaces: Namespaces that this gateway serves, None for all; documents of others are left out.
            cluster_domain: Domain that Service names end with, usually `cluster.local`.
            bare_hostnames: Whether short host names count where several namespaces are served.
        """
        served = [entry for entry in entries if namespaces is None or entry.namespace in namespaces]
        served.sort(key=lambda entry: (entry.created or "~", entry.namespace, entry.document.name, entry.config_map))
        single = namespaces is not None and len(namespaces) == 1
        index = _Index()
        for entry in served:
            yield
            route = Route(entry.namespace, entry.document, entry.created, entry.config_map)
            if not index.claim(index.routes, route.key, f"name {route.key}", route):
                continue
            # A name with a dot is none of a Service, and could spell the host of another namespace.
            services = entry.document.service_names or (() if "." in route.name else (route.name,))
            for service in services:
                full = f"{service}.{route.namespace}"
                for spelling in (full, f"{full}.svc", f"{full}.svc.{cluster_domain}"):
                    index.claim(index.hosts, spelling, f"host {spelling}", route)
                index.bare.setdefault(service, []).append((route, f"{full}.svc.{cluster_domain}"))
            for address in entry.document.cluster_ips:
                full = f"{services[0]}.{route.namespace}.svc.{cluster_domain}" if services else address
                index.bare.setdefault(canonical_host(address), []).append((route, full))
            index.claim(index.paths, f"{route.namespace}/{entry.document.path_segment}".encode(), "path", route)
            for name in (entry.document.client_model, *(one.name for one in entry.document.models)):
                qualified = f"{route.namespace}/{name}"
                index.claim(index.qualified, qualified, "model", route)
                # With a slash, it could be the name of a model in another namespace.
                if index.qualified[qualified] is route and "/" not in name:
                    index.names.setdefault(name, []).append(route)
            if any(backend.health for backend in entry.document.backends):
                index.checked.append(route)
        ambiguous: dict[str, tuple[str, ...]] = {}
        for short, claims in index.bare.items():
            yield
            owners = {route.key for route, _ in claims}
            if single or (bare_hostnames == "unique" and len(owners) == 1):
                for route, _ in claims:
                    index.claim(index.hosts, short, f"host {short}", route)
            elif short not in index.hosts:
                ambiguous[short] = tuple(sorted({full for _, full in claims}))
        names: dict[str, tuple[Route, ...]] = {}
        models_by_name = index.qualified.copy()
        for name, routes in index.names.items():
            yield
            names[name] = tuple(routes)
            if len(routes) == 1:
                models_by_name.setdefault(name, routes[0])
        return cls(
            routes=index.routes,
            hosts=index.hosts,
            ambiguous=ambiguous,
            paths=index.paths,
            names=names,
            qualified=index.qualified,
            models_by_name=models_by_name,
            checked=tuple(index.checked),
            conflicts=tuple(index.conflicts),
        )

    def match_host(self, host: str) -> Route | None:
        """Return the route of a host, given in lower case without port and trailing dot; None when no route claims it.

        Raises:
            errors.AmbiguousHost: The host is a short name that needs its namespace here.
        """
        route = self.hosts.get(host)
        if route is None and self.ambiguous and (full := self.ambiguous.get(host)) is not None:
            raise errors.AmbiguousHost(f"This host name needs its namespace; use {' or '.join(full)}.")
        return route

    def match_path(self, target: bytes) -> tuple[Route, bytes] | None:
        """Return the route of `/{namespace}/{name}/…` and the target without these segments; None without a match."""
        end = target.find(b"?")
        path = target if end < 0 else target[:end]
        first = path.find(b"/", 1)
        if first < 0:
            return None
        second = path.find(b"/", first + 1)
        if second < 0:
            second = len(path)
        route = self.paths.get(path[1:second])
        if route is None:
            return None
        rest = target[second:]
        return route, rest if rest.startswith(b"/") else b"/" + rest

    def match_model(self, model: str) -> Route:
        """Return the route of a `model` value: `namespace/name`, or a bare name.

        Raises:
            errors.ModelNotFound: No route has this model.
            errors.AmbiguousModel: Routes of several namespaces have it; the message names the spellings to use.
        """
        route = self.models_by_name.get(model)
        if route is not None:
            return route
        routes = self.names.get(model)
        if routes is None:
            raise errors.ModelNotFound
        spellings = " or ".join(f"{one.namespace}/{model}" for one in routes)
        raise errors.AmbiguousModel(f"Several namespaces have a model of this name; use {spellings}.")

    def models(self) -> tuple[tuple[str, Route], ...]:
        """Return model names and routes, sorted: the bare name where it leads there, otherwise `namespace/name`."""
        listed = []
        for name, routes in self.names.items():
            if len(routes) == 1:
                listed.append((name, routes[0]))
            else:
                listed += [(f"{route.namespace}/{name}", route) for route in routes]
        for qualified, route in self.qualified.items():
            name = qualified[len(route.namespace) + 1 :]
            if "/" in name and route not in self.names.get(name, ()):
                listed.append((qualified, route))
        return tuple(sorted(listed, key=lambda item: item[0]))


class _Index:
    """Indexes of a table that is being built; the first route that claims a name gets it."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.hosts: dict[str, Route] = {}
        self.paths: dict[bytes, Route] = {}
        self.qualified: dict[str, Route] = {}
        self.names: dict[str, list[Route]] = {}
        self.bare: dict[str, list[tuple[Route, str]]] = {}
        self.checked: list[Route] = []
        self.conflicts: list[NameConflict] = []

    def claim(self, index: dict[_Name, Route], name: _Name, claim: str, route: Route) -> bool:
        """Give `name` to `route`; when another route has it, note the conflict and return False."""
        owner = index.setdefault(name, route)
        if owner is route:
            return True
        if owner.key != route.key:
            self.conflicts.append(NameConflict(claim, owner.key, route.key))
        elif index is self.routes:
            winner, loser = (f"ConfigMap {one.namespace}/{one.config_map}" for one in (owner, route))
            self.conflicts.append(NameConflict(claim, winner, loser))
        return False


def check_path(target: bytes) -> None:
    """Refuse a target that a backend may interpret differently than the routing table (RFC 3986 6.2.2.3).

    An encoded slash is part of a model's id where the path ends with `/models/{id}`, in the segment behind `/engines/`
    and `/openai/deployments/`, and in Amazon's `/model/{id}/invoke` and the like, where ids may be ARNs.

    Raises:
        errors.MalformedRequest: The path has dot segments, backslashes or control characters, plain or encoded, or
            encoded slashes in another place.
    """
    _check(target.partition(b"?")[0])


@lru_cache(maxsize=512)
def _check(path: bytes) -> None:
    """Check a path; results are cached, because most paths come again and again."""
    if b"%" in path:
        place, _, last = path.rpartition(b"/")
        if place.endswith(b"/models"):
            path = place + b"/" + _ENCODED_SLASH.sub(b"/", last)
        path = _NAME.sub(_with_slashes, path)
    if _CONFUSING.search(path):
        raise errors.MalformedRequest(ENCODED_SLASH if _ENCODED_SLASH.search(path) else CONFUSING)
    if b"/." in path or b"%" in path:
        for segment in unquote_to_bytes(path).split(b"/"):
            if segment.partition(b";")[0] in _DOT_SEGMENTS:
                raise errors.MalformedRequest(DOT_SEGMENTS)


def _with_slashes(segment: re.Match[bytes]) -> bytes:
    """Return a segment of a path with its encoded slashes decoded."""
    return _ENCODED_SLASH.sub(b"/", segment[0])


def canonical_host(host: str) -> str:
    """Return a host as in the index: in lower case, without trailing dot, IPv6 compressed and without brackets."""
    name = host.lower().removesuffix(".")
    literal = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    if ":" in literal:
        try:
            return str(ip_address(literal))
        except ValueError:
            return name
    return name
