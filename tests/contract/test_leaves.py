"""Every field of a specification has an effect: it changes a response of hooks, or is listed with the reason why not.

A user relies on a field that is accepted, so none may be ignored.
"""

import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Final

import pytest

from tests.builders import Json
from tests.contract.leaves import Leaf, at, leaves, others, places, replaced
from tests.contract.metric_requests import MetricRequests
from tests.contract.worlds import WORLDS
from tests.structural import crd_schema, defaulted, problems

SCHEMA: Final = crd_schema("modeldeployments")["properties"]["spec"]
FEW: Final = 3
"""Number of values to try where all of them would take long."""
LEAVES: Final = {str(leaf): leaf for leaf in leaves(SCHEMA)}

_REFERENCE: Final = "part of every Kubernetes object reference"
_KIND: Final = "part of every Kubernetes object reference, and the field says already what it refers to"
WITHOUT_EFFECT: Final[Mapping[str, str]] = {
    **{
        f"{reference}.{field}": _REFERENCE
        for reference in ("modelSourceRef", "serviceRef", "metricServiceRef", "policies[]")
        for field in ("uid", "resourceVersion", "fieldPath")
    },
    **{
        f"{reference}.{field}": _KIND
        for reference in ("serviceRef", "metricServiceRef", "policies[]")
        for field in ("apiVersion", "kind")
    },
    "offloadingConfig.remoteBackend.authConfig.type": "there is one so far",
    "offloadingConfig.metricSource.type": "there is one so far",
}
"""Fields without an effect, each with the reason."""


pytestmark = pytest.mark.xdist_group("metric_requests")


@pytest.fixture(scope="module")
def metric_requests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MetricRequests]:
    """Yield the requests of hooks for metrics."""
    with MetricRequests.running(tmp_path_factory.mktemp("metric_requests")) as metric_requests:
        yield metric_requests


def changed(leaf: Leaf, most: int | None = None) -> Iterator[tuple[str, Json]]:
    """Yield specifications with another value at one place, each with the name of its world; `most` for each place."""
    for name, world in WORLDS.items():
        base = defaulted(SCHEMA, world.spec)
        # A world with metrics has many responses, and most fields are not about metrics.
        few = 1 if world.levels and leaf.path[0] != "offloadingConfig" else most
        for place in places(base, leaf.path):
            for value in itertools.islice(others(leaf, at(base, place)), few):
                spec = defaulted(SCHEMA, replaced(base, place, value))
                if spec != base and not problems(SCHEMA, spec):
                    yield name, spec


@functools.cache
def _responses(name: str) -> tuple[bytes, ...]:
    world = WORLDS[name]
    return tuple(world.responses(defaulted(SCHEMA, world.spec)))


def effect(leaf: Leaf, metric_requests: MetricRequests, most: int | None = None) -> str | None:
    """Return the first world in which another value changes a response, a credential or a request; None without one.

    `most` is the number of other values to try at each place; all by default.
    """
    for name, spec in changed(leaf, most):
        for before, after in zip(_responses(name), WORLDS[name].responses(spec), strict=True):
            if before != after:
                return name
        if metric_requests.about(_measures(spec)) != metric_requests.about(_measures(WORLDS[name].spec)):
            return name
    return None


def _measures(spec: Json) -> Json:
    """Return what a specification says of its metrics and their source."""
    config: Json = spec.get("offloadingConfig", {})
    return {field: config[field] for field in ("metrics", "metricSource") if field in config}


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_is_valid(name: str) -> None:
    """The specification of a world is valid and in force."""
    assert problems(SCHEMA, defaulted(SCHEMA, WORLDS[name].spec)) == []
    *_, last, _ = _responses(name)
    assert b'"reason":"Accepted"' in last


@pytest.mark.parametrize("path", [path for path in LEAVES if path not in WITHOUT_EFFECT])
def test_every_field_has_an_effect(path: str, metric_requests: MetricRequests) -> None:
    """Another value of a field has an effect.

    It changes a child, a status, the next sync, a request for metrics, the body for the platform, or a credential.
    """
    assert effect(LEAVES[path], metric_requests), f"spec.{path} has no effect"


IDENTITIES: Final = [path for path in LEAVES if ".metric." in path or ".describedObject." in path]
"""Fields that identify a metric."""
NOT_ASKED_FOR: Final[Mapping[tuple[str, str], str]] = {
    ("prometheus", f"offloadingConfig.metrics[].object.describedObject.{field}"): "PromQL says what it is about"
    for field in ("apiVersion", "kind", "name")
}
"""Fields that identify a metric and are in no request to a source, each with the reason."""


@pytest.mark.parametrize("path", IDENTITIES)
@pytest.mark.parametrize("source", ["kubernetes", "prometheus"])
def test_a_request_identifies_the_metric(source: str, path: str, metric_requests: MetricRequests) -> None:
    """A request for a metric has every field that identifies it, but for the listed ones."""
    asked = any(
        metric_requests.of(source, _measures(spec)) != metric_requests.of(source, _measures(WORLDS[name].spec))
        for name, spec in itertools.islice(changed(LEAVES[path]), FEW)
    )
    assert asked is ((source, path) not in NOT_ASKED_FOR)


@pytest.mark.parametrize("path", WITHOUT_EFFECT)
def test_listed_fields_have_no_effect(path: str, metric_requests: MetricRequests) -> None:
    """A field that is listed as without effect has none in any world."""
    assert effect(LEAVES[path], metric_requests, most=1) is None


def test_listed_fields_were_tried() -> None:
    """A field that is listed as without effect was tried with other values, or has only one."""
    for path in WITHOUT_EFFECT:
        leaf = LEAVES[path]
        assert len(leaf.schema.get("enum", ())) == 1 or next(changed(leaf), None), path
