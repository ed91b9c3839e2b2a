"""Every field of a specification does something: it changes what hooks answer, or stands on a list with its reason.

A field that is accepted and ignored is one that somebody believes in.
"""

import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Final

import pytest

from tests.builders import Json
from tests.contract.leaves import Leaf, at, leaves, others, places, replaced
from tests.contract.questions import Questions
from tests.contract.worlds import WORLDS
from tests.structural import crd_schema, defaulted, problems

SCHEMA: Final = crd_schema("modeldeployments")["properties"]["spec"]
FEW: Final = 3
"""Values to try, where all that there are would take long and say the same."""
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
}
"""Fields that change nothing, each with the reason."""


pytestmark = pytest.mark.xdist_group("questions")


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Questions]:
    """What hooks ask for metrics."""
    with Questions.running(tmp_path_factory.mktemp("questions")) as questions:
        yield questions


def changed(leaf: Leaf) -> Iterator[tuple[str, Json]]:
    """Specifications with another value in one place, each with the name of the world that it is for."""
    for name, world in WORLDS.items():
        base = defaulted(SCHEMA, world.spec)
        # Minutes of metrics are many answers, and most fields are not about them.
        few = 1 if world.levels and leaf.path[0] != "offloadingConfig" else None
        for place in places(base, leaf.path):
            for value in itertools.islice(others(leaf, at(base, place)), few):
                spec = defaulted(SCHEMA, replaced(base, place, value))
                if spec != base and not problems(SCHEMA, spec):
                    yield name, spec


@functools.cache
def _answers(name: str) -> tuple[bytes, ...]:
    world = WORLDS[name]
    return tuple(world.answers(defaulted(SCHEMA, world.spec)))


def effect(leaf: Leaf, questions: Questions) -> str | None:
    """The first world in which another value makes hooks answer, the gateway read or a source ask something else."""
    for name, spec in changed(leaf):
        for before, after in zip(_answers(name), WORLDS[name].answers(spec), strict=True):
            if before != after:
                return name
        if questions.about(_metrics(spec)) != questions.about(_metrics(WORLDS[name].spec)):
            return name
    return None


def _metrics(spec: Json) -> list[Json]:
    found: list[Json] = spec.get("offloadingConfig", {}).get("metrics", [])
    return found


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_is_one_that_the_api_server_takes(name: str) -> None:
    """What is changed is a legal specification, in force."""
    assert problems(SCHEMA, defaulted(SCHEMA, WORLDS[name].spec)) == []
    *_, last, _ = _answers(name)
    assert b'"reason":"Accepted"' in last


@pytest.mark.parametrize("path", [path for path in LEAVES if path not in WITHOUT_EFFECT])
def test_every_field_does_something(path: str, questions: Questions) -> None:
    """Another value of it changes a child, a route document, a status, when hooks are asked again, what they ask for
    themselves, what the platform is sent, or what the gateway reads.
    """
    assert effect(LEAVES[path], questions), f"spec.{path} has no effect"


IDENTITIES: Final = [path for path in LEAVES if ".metric." in path or ".describedObject." in path]
"""Fields that say which metric is meant."""
NOT_ASKED_FOR: Final[Mapping[tuple[str, str], str]] = {
    ("prometheus", f"offloadingConfig.metrics[].object.describedObject.{field}"): "PromQL says what it is about"
    for field in ("apiVersion", "kind", "name")
}
"""Those of them that a source does not ask for, each with the reason."""


@pytest.mark.parametrize("path", IDENTITIES)
@pytest.mark.parametrize("source", ["kubernetes", "prometheus"])
def test_a_source_asks_for_the_metric_that_is_meant(source: str, path: str, questions: Questions) -> None:
    """Another name, selector or object is another question, and is none for what is listed."""
    asked = any(
        questions.of(source, _metrics(spec)) != questions.of(source, _metrics(WORLDS[name].spec))
        for name, spec in itertools.islice(changed(LEAVES[path]), FEW)
    )
    assert asked is ((source, path) not in NOT_ASKED_FOR)


@pytest.mark.parametrize("path", WITHOUT_EFFECT)
def test_what_has_no_effect_has_none(path: str, questions: Questions) -> None:
    """The list is as short as it can be: no value of such a field changes anything, anywhere."""
    assert effect(LEAVES[path], questions) is None


def test_what_has_no_effect_was_tried() -> None:
    """A field on the list has other values, or there is only one."""
    for path in WITHOUT_EFFECT:
        leaf = LEAVES[path]
        assert len(leaf.schema.get("enum", ())) == 1 or next(changed(leaf), None), path
