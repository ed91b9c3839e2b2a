"""Responses of Prometheus to instant queries as samples."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hooks import reasons
from hooks.kube.quantities import parse
from hooks.metrics import vectors
from hooks.observation.readings import Reading, Sample
from tests.builders import Json

TIME = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECONDS = TIME.timestamp()
WINDOW = timedelta(seconds=60)


def response(kind: str, result: Any) -> Json:
    """Return a response with this type of result."""
    return {"status": "success", "data": {"resultType": kind, "result": result}}


def vector(*series: tuple[str, Json]) -> tuple[vectors.Point, ...]:
    """Return the points of these series, which are given as value and labels."""
    return vectors.points(
        response("vector", [{"metric": labels, "value": [SECONDS, value]} for value, labels in series])
    )


def of_pods(*series: tuple[str, Json], **rest: Any) -> Reading:
    """Return the reading of these series for the pods of team-a."""
    return vectors.of_pods(vector(*series), WINDOW, namespace_label="namespace", namespace="team-a", **rest)


def test_scalars_and_vectors() -> None:
    """A scalar is one point without labels; a vector is one point for each series."""
    assert vectors.points(response("scalar", [SECONDS, "1.5"])) == (vectors.Point({}, parse("1500m"), TIME),)
    assert vector() == ()
    assert vector(("NaN", {"a": "b"})) == (vectors.Point({"a": "b"}, None, TIME, is_nan=True),)


@pytest.mark.parametrize("kind", ["matrix", "string", "streams", ""])
def test_other_types_of_results(kind: str) -> None:
    """A result that is neither a scalar nor a vector is refused."""
    with pytest.raises(vectors.ResultUnusable):
        vectors.points(response(kind, []))


def test_pods_are_those_of_the_namespace() -> None:
    """Series of another namespace do not count; one without a namespace does, because an expression may aggregate it
    away."""
    reading = of_pods(
        ("1", {"pod": "a", "namespace": "team-a", "container": "c"}),
        ("2", {"pod": "b"}),
        ("3", {"pod": "a", "namespace": "x"}),
    )
    assert reading == Reading((Sample("a", parse("1"), TIME, WINDOW), Sample("b", parse("2"), TIME, WINDOW)))
    assert of_pods(("1", {"pod": "a", "container": "c"}), containers=True).samples[0].container == "c"


def test_a_pod_without_a_number_is_left_out() -> None:
    """A pod whose value is no number is left out, and the others count."""
    assert [sample.of for sample in of_pods(("NaN", {"pod": "a"}), ("1", {"pod": "b"}), ("2", {})).samples] == ["b"]


@pytest.mark.parametrize(
    ("series", "reason"),
    [
        ((("NaN", {"pod": "a"}), ("1", {})), reasons.NOT_A_NUMBER),
        ((("1", {}), ("-Inf", {"pod": "a"})), reasons.NOT_A_NUMBER),
        ((("1", {}), ("1", {"pod": ""})), reasons.REFUSED),
        ((("1", {"pod": "a", "namespace": "x"}),), None),
    ],
)
def test_no_series_with_a_pod(series: tuple[tuple[str, Json], ...], reason: str | None) -> None:
    """Where no series has a pod, the reading says why, unless all series are of another namespace."""
    reading = of_pods(*series)
    assert reading.samples == ()
    assert (None if reading.unread is None else reading.unread.reason) == reason


def test_objects_and_series_are_whole_or_not_known() -> None:
    """One series that is no number makes the whole reading of an object or of series unusable."""
    assert [one.of for one in vectors.of_one(vector(("1", {"a": "b"}), ("2", {})), WINDOW, "it").samples] == [
        "it",
        "it",
    ]
    assert [one.of for one in vectors.of_series(vector(("1", {"b": "2", "a": "1"})), WINDOW).samples] == ["a=1,b=2"]
    for reading in (vectors.of_one(vector(("NaN", {})), WINDOW, "it"), vectors.of_series(vector(("+Inf", {})), WINDOW)):
        assert reading.unread is not None
        assert reading.unread.reason == reasons.NOT_A_NUMBER


def test_nan_alone_is_0_without_traffic() -> None:
    """Where NaN alone is why there is no reading, there are samples with 0 in its place; an infinity leaves none."""
    zero = Sample("it", parse("0"), TIME, WINDOW)
    assert vectors.of_one(vector(("NaN", {})), WINDOW, "it").without_traffic == (zero,)
    series = vectors.of_series(vector(("NaN", {"a": "1"}), ("3", {"a": "2"})), WINDOW)
    assert [(one.of, str(one.value)) for one in series.without_traffic] == [("a=1", "0"), ("a=2", "3")]
    pods = of_pods(("NaN", {"pod": "a"}), ("NaN", {"pod": "b"}))
    assert [(one.of, str(one.value)) for one in pods.without_traffic] == [("a", "0"), ("b", "0")]
    assert vectors.of_series(vector(("NaN", {"a": "1"}), ("+Inf", {"a": "2"})), WINDOW).without_traffic == ()
    assert of_pods(("NaN", {"pod": "a"}), ("-Inf", {"pod": "b"})).without_traffic == ()
    assert of_pods(("NaN", {"pod": "a"}), ("1", {"pod": "b"})).without_traffic == ()
    assert vectors.of_one(vector(("1", {})), WINDOW, "it").without_traffic == ()
