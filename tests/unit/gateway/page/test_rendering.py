"""Templates of the page: they have a place for everything that a row may say."""

from typing import Any

from gateway.page import view
from gateway.page.filtering import Filter
from gateway.page.rendering import SECTIONS, Templates
from gateway.page.state import PageState
from gateway.page.view import RouteRow
from tests.unit.gateway.page.test_view import backend, row


def state(*routes: RouteRow, **values: Any) -> PageState:
    """Return the state of a page with these routes."""
    plain = PageState("vm", "then", "2026-01-01T00:00:00Z", Filter(), None, None, access=True, window="5 min")
    plain.routes = routes
    plain.all_routes = plain.matching_routes = len(routes)
    for name, value in values.items():
        setattr(plain, name, value)
    return plain


async def rendered(one: PageState) -> str:
    """Return the page, after each of its sections was rendered by itself as well."""
    templates = Templates()
    await templates.load()
    page = "".join(templates.page({"page": one}))
    for name in SECTIONS:
        assert "".join(templates.section(name, {"page": one})).strip() in page
    return page


async def test_pods() -> None:
    """Pods are shown with their states below their backend, those in trouble first, and it says how many are not."""
    pods = [{"name": f"pod-{number}", "inFlight": 3, "breaker": "closed", "coolDownSeconds": 0.0}
            for number in range(view.MOST_PODS + 2)]  # fmt: skip
    pods[1]["coolDownSeconds"] = 12.0
    page = await rendered(state(row(backend(pods=pods, queued=2))))
    assert '<details class="pods" id="pods-default/demo-route-local">' in page
    assert f"{view.MOST_PODS + 2} pods of local, 1 in trouble" in page
    assert "cools down for another 12 s" in page
    assert page.index("pod-1<") < page.index("pod-0<")
    assert "and 2 more, none of them in more trouble than these." in page
    assert "2 in the queue" in page
    assert "1 pod of local</summary>" in await rendered(state(row(backend(pods=pods[:1]))))


async def test_a_single_pod_of_a_backend_with_a_limit_of_streams() -> None:
    """The limit of streams stands beside the requests in flight."""
    streams = {"firstTokenSeconds": 0.5, "limit": 8, "ceiling": 8, "inFlight": 4, "cuts": 0, "raises": 0, "last": None}
    page = await rendered(state(row(backend(streams=streams, inFlight=5))))
    assert "5 of 8 <small>4 of 8 streams, for a first token in 500 ms</small>" in page


async def test_errors_of_sources() -> None:
    """Each kind of error has its line, and it says how many are not shown."""
    cut = {"sources": 1, "endpoints": 2, "left_out": 3, "conflicts": 4}
    page = await rendered(
        state(source_errors=[("a", "b")], endpoint_errors=[("c", "d")], left_out=[("e", 5)], conflicts=["f"], cut=cut)
    )
    for part in (
        "a: b",
        "Pods of c: d",
        "EndpointSlices of e: 5 changes",
        *(f"and {one} more." for one in range(1, 5)),
    ):
        assert part in page
