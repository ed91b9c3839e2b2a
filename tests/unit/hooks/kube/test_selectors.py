"""Label selectors: what they select, how they are written, and which are refused."""

import time

import pytest

from hooks.kube.selectors import InvalidSelector, Requirement, Selector
from hooks.observation.observation import Workload
from tests.builders import Json, workload


@pytest.mark.parametrize(
    ("item", "written", "selected", "others"),
    [
        ({}, "", [{}, {"a": "b"}], []),
        ({"matchLabels": {"b": "2", "a": "1"}}, "a=1,b=2", [{"a": "1", "b": "2", "c": ""}], [{"a": "1"}, {}]),
        (
            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}]},
            "a in (x,y)",
            [{"a": "x"}],
            [{}],
        ),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["x"]}]}, "a notin (x)", [{}], [{"a": "x"}]),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, "a", [{"a": ""}], [{"b": ""}]),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist", "values": []}]}, "!a", [{}], [{"a": ""}]),
        (
            {"matchLabels": {"z/a": ""}, "matchExpressions": [{"key": "b", "operator": "In", "values": ["1"]}]},
            "b=1,z/a=",
            [{"b": "1", "z/a": ""}],
            [{"b": "1"}],
        ),
    ],
)
def test_a_selector(item: Json, written: str, selected: list[Json], others: list[Json]) -> None:
    """A selector selects the same labels as in Kubernetes, and is written as in a query."""
    selector = Selector.read(item)
    assert str(selector) == written
    assert all(selector.matches(labels) for labels in selected)
    assert not any(selector.matches(labels) for labels in others)


def test_the_order_in_which_it_was_written_does_not_matter() -> None:
    """Selectors that differ only in their order are written alike, so that they make one request."""
    one = Selector.of({"a": "1", "b": "2"}, (("c", "In", ("y", "x")), ("d", "Exists", ())))
    other = Selector.of({"b": "2", "a": "1"}, (("d", "Exists", ()), ("c", "In", ("x", "y"))))
    assert str(one) == str(other)


@pytest.mark.parametrize(
    ("key", "operator", "values", "message"),
    [
        ("a", "Like", ("x",), "the operator 'Like' must be one of In, NotIn, Exists, DoesNotExist"),
        ("", "Exists", (), "'' is not a label"),
        ("a b", "Exists", (), "'a b' is not a label"),
        ("a", "In", (), "In of 'a' has no values"),
        ("a", "DoesNotExist", ("x",), "DoesNotExist of 'a' has unexpected values"),
        ("a", "NotIn", ("x", "y,z"), "'y,z' is not the value of a label"),
        ("a", "In", ("x" * 64,), f"'{'x' * 63}…' is not the value of a label"),
        ("a" * 64, "Exists", (), f"'{'a' * 63}…' is not a label"),
        (f"{'a' * 254}/b", "Exists", (), f"'{'a' * 63}…' is not a label"),
        ("a..b/c", "Exists", (), "'a..b/c' is not a label"),
        ("a.-b/c", "Exists", (), "'a.-b/c' is not a label"),
        ("A/c", "Exists", (), "'A/c' is not a label"),
        ("/c", "Exists", (), "'/c' is not a label"),
        ("a/b/c", "Exists", (), "'a/b/c' is not a label"),
    ],
)
def test_an_invalid_requirement(key: str, operator: str, values: tuple[str, ...], message: str) -> None:
    """An invalid requirement is refused with the reason, because in a query it would mean something else."""
    with pytest.raises(InvalidSelector) as caught:
        Requirement.of(key, operator, values)
    assert str(caught.value) == message


def test_the_selector_of_a_workload() -> None:
    """The whole selector of a workload is read; one that is missing, empty or invalid counts as none."""
    item = workload()
    assert str(Workload.of(item).selector) == "app=demo"
    item["spec"]["selector"]["matchExpressions"] = [{"key": "b", "operator": "Exists"}]
    assert str(Workload.of(item).selector) == "app=demo,b"
    item["spec"]["selector"]["matchExpressions"] = [{"key": "b", "operator": "Similar"}]
    assert Workload.of(item).selector is None
    assert Workload.of(workload(match_labels={})).selector is None
    assert Workload.of({}).selector is None


def test_a_selector_of_very_many_requirements_that_are_invalid() -> None:
    """Reading a selector ends at the first requirement that is invalid, however many follow."""
    item: Json = {"matchExpressions": [{}] * 300_000}
    began = time.thread_time()
    with pytest.raises(InvalidSelector):
        Selector.read(item)
    assert time.thread_time() - began < 0.2


def test_the_longest_names_of_labels() -> None:
    """A name and a value of 63 characters and a prefix of 253 are valid, as in Kubernetes."""
    key = f"{'a.' * 126}a/{'b' * 63}"
    assert Requirement.of(key, "In", ("c" * 63,)).matches({key: "c" * 63})
