"""Variants: fields of a manifest are set as they are written, and nothing else changes."""

import copy
from typing import Any

import pytest

from hooks.simulate.variants import BadVariant, read_variant
from tests.unit.hooks.simulate.worlds import WAITING, parent_of

BEHAVIOR = "spec.offloadingConfig.behavior"
METRICS = "spec.offloadingConfig.metrics"


def value_at(item: Any, *steps: str | int) -> Any:
    """Return the value that steps lead to."""
    for step in steps:
        item = item[step]
    return item


@pytest.mark.parametrize(
    ("text", "steps", "value", "name"),
    [
        (f"{BEHAVIOR}.percentage=50", ("offloadingConfig", "behavior", "percentage"), 50, "percentage=50"),
        (f" {BEHAVIOR}.mode = fixed ", ("offloadingConfig", "behavior", "mode"), "fixed", "mode=fixed"),
        (f"{METRICS}[0].pods.target.averageValue=10", ("offloadingConfig", "metrics", 0, "pods", "target"), None, ""),
        (
            "spec.offloadingConfig.metricSource={type: pods, port: 8000}",
            ("offloadingConfig", "metricSource"),
            {"type": "pods", "port": 8000},
            "metricSource={type: pods, port: 8000}",
        ),
        (f"{METRICS}=[]", ("offloadingConfig", "metrics"), [], "metrics=[]"),
        ("spec.gateway.queue.size=5", ("gateway", "queue", "size"), 5, "gateway.queue.size=5"),
        ("spec.enabled=false", ("enabled",), False, "enabled=false"),
    ],
)
def test_assignments(text: str, steps: tuple[str | int, ...], value: Any, name: str) -> None:
    """A field gets the value, read as YAML, and the object that it was set in stays as it is."""
    parent = parent_of(WAITING, percentage=100)
    before, variant = copy.deepcopy(parent), read_variant(text)
    found = value_at(variant.applied(parent)["spec"], *steps)
    assert found == ({"type": "AverageValue", "averageValue": 10} if value is None else value)
    assert parent == before
    assert not name or variant.name == name


def test_several_fields() -> None:
    """Several fields with commas between them are one variant, also where a value has commas."""
    text = f"{BEHAVIOR}.percentage=50,{BEHAVIOR}.override={{percentage: 1, until: x}}, {BEHAVIOR}.mode=proportional"
    variant = read_variant(text)
    behavior = variant.applied(parent_of())["spec"]["offloadingConfig"]["behavior"]
    assert behavior == {"percentage": 50, "override": {"percentage": 1, "until": "x"}, "mode": "proportional"}
    assert variant.name == "percentage=50, override={percentage: 1, until: x}, mode=proportional"


def test_null_takes_a_field_away() -> None:
    """A field that is set to null is not there any more, and taking away one that is not there changes nothing."""
    parent = parent_of(WAITING, percentage=50)
    assert read_variant(f"{BEHAVIOR}.percentage=null").applied(parent) == parent_of(WAITING)
    assert read_variant(f"{BEHAVIOR}.mode=null").applied(parent) == parent


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("percentage=50", "must be a path and a value, such as spec.offloadingConfig.behavior.percentage=50, not"),
        ("spec.enabled", "must be a path and a value"),
        ("spec=1", "must be a path and a value"),
        ("metadata.name=a", "must be a path and a value"),
        ("spec.a..b=1", "must be a path and a value"),
        ("spec.enabled={", "must have a value in YAML for spec.enabled, such as 50 or {type: pods}, not '{'"),
    ],
)
def test_what_cannot_be_read(text: str, message: str) -> None:
    """A text that is no assignment is refused with what to write."""
    with pytest.raises(BadVariant) as caught:
        read_variant(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            f"{METRICS}[1].type",
            "has no item [1] for spec.offloadingConfig.metrics[1].type: there are 1, counted from 0",
        ),
        ("spec.policies[0].name", "has no item [0] for spec.policies[0].name: there are 0, counted from 0"),
        ("spec.model.name", "has no field name for spec.model.name: the manifest has no object there"),
        (
            f"{METRICS}.type",
            "has no field type for spec.offloadingConfig.metrics.type: the manifest has no object there",
        ),
    ],
)
def test_paths_that_lead_nowhere(path: str, message: str) -> None:
    """A path through a value that has no such field or item is refused."""
    with pytest.raises(BadVariant) as caught:
        read_variant(f"{path}=1").applied(parent_of(WAITING))
    assert str(caught.value) == message
