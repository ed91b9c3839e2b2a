"""Routing table: matches of hosts, paths and model names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.api.v1alpha1 import Backend, HealthCheck, RouteDocument
from gateway.routes.table import Entry, RoutingTable, check_path


def entry(namespace: str, name: str, *, created: str = "2026-01-01T00:00:00Z", services: tuple[str, ...] = ()) -> Entry:
    """Return an entry for a document without backends."""
    return Entry(namespace, f"{name}-route", created, RouteDocument(name=name, service_names=services))


def table(*entries: Entry, namespaces: frozenset[str] | None = None) -> RoutingTable:
    """Return the table of a gateway that serves `namespaces`, or all."""
    return RoutingTable.build(entries, namespaces=namespaces, cluster_domain="cluster.local")


@pytest.mark.parametrize("host", ["web.a", "web.a.svc", "web.a.svc.cluster.local"])
def test_full_spellings_of_a_service_lead_to_its_model(host: str) -> None:
    """Every spelling of a host with a namespace matches in a gateway of many namespaces."""
    route = table(entry("a", "demo", services=("web",))).match_host(host)

    assert route is not None
    assert route.key == "a/demo"


def test_routes_with_health_checks_are_known() -> None:
    """The table lists the routes that have health checks."""
    checked = Backend(id="local", service="x", health=HealthCheck(path="/"))
    entries = (entry("a", "demo"), Entry("a", "r", "", RouteDocument(name="checked", backends=(checked,))))
    assert [route.key for route in table(*entries).checked] == ["a/checked"]


def test_a_bare_host_counts_where_one_namespace_is_served() -> None:
    """A bare Service name matches in a gateway of one namespace."""
    route = table(entry("a", "demo"), namespaces=frozenset({"a"})).match_host("demo")

    assert route is not None


def test_a_bare_host_is_ambiguous_where_many_are_served() -> None:
    """A bare Service name in a gateway of many namespaces is an error that names the full spelling."""
    with pytest.raises(errors.AmbiguousHost, match=r"demo\.a\.svc\.cluster\.local"):
        table(entry("a", "demo")).match_host("demo")


@pytest.mark.parametrize(
    ("target", "rest"),
    [(b"/a/demo/v1/x?q=1", b"/v1/x?q=1"), (b"/a/demo", b"/"), (b"/a/demo?q", b"/?q")],
)
def test_a_path_loses_its_two_segments(target: bytes, rest: bytes) -> None:
    """The two segments that selected the route are removed from the target."""
    matched = table(entry("a", "demo")).match_path(target)

    assert matched is not None
    assert matched[1] == rest


@pytest.mark.parametrize("target", [b"/a/demos/v1", b"/a", b"/a/", b"/", b"/b/demo/v1"])
def test_a_path_matches_whole_segments(target: bytes) -> None:
    """A path matches by whole segments only."""
    assert table(entry("a", "demo")).match_path(target) is None


def test_a_bare_model_of_two_namespaces_is_a_conflict() -> None:
    """A bare model name of two namespaces is an error that names both full names, which match."""
    both = table(entry("a", "demo"), entry("b", "demo"))

    with pytest.raises(errors.AmbiguousModel, match="a/demo or b/demo"):
        both.match_model("demo")
    assert both.match_model("b/demo").namespace == "b"


@given(st.permutations([0, 1, 2]))
def test_k_05_the_older_document_keeps_a_name_in_any_order(order: list[int]) -> None:
    """The oldest document gets a name, in whatever order the documents come."""
    entries = [
        entry("a", "young", created="2026-03-01T00:00:00Z", services=("web",)),
        entry("a", "old", created="2026-01-01T00:00:00Z", services=("web",)),
        entry("a", "middle", created="2026-02-01T00:00:00Z", services=("web",)),
    ]

    built = table(*(entries[index] for index in order))

    assert built.hosts["web.a"].name == "old"
    assert {conflict.loser for conflict in built.conflicts} == {"a/young", "a/middle"}


@pytest.mark.parametrize("target", [b"/a/../b", b"/%2e%2E/b", b"/a%2fb", b"/a%5cb", b"/a%00", b"/a%0d%0ab", b"/.;x/b"])
def test_paths_that_a_backend_may_read_differently_are_refused(target: bytes) -> None:
    """A path that a backend may interpret differently is refused."""
    with pytest.raises(errors.MalformedRequest):
        check_path(target)
