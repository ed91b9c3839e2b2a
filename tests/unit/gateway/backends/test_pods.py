"""Pods of a backend: which one is chosen, and what is known of each while slices come and go."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.v1alpha1 import Breaker
from gateway.backends.endpoints import Endpoint, PodState, ServiceEndpoints
from gateway.backends.pods import LeastBusyOfTwo, Pod, PodSet

RULES = Breaker(consecutive_failures=2, open=10)
NOW = 100.0


def endpoint(name: str, uid: str = "", state: PodState = PodState.READY) -> Endpoint:
    """Return a pod as slices name it."""
    return Endpoint(name, uid, ("10.0.0.1",), 8000, state)


def endpoints(*names: str) -> ServiceEndpoints:
    """Return the pods of a Service, by their names."""
    result = ServiceEndpoints()
    result.pods = tuple(map(endpoint, names))
    return result


def first(pods: Sequence[Pod], _key: bytes | None, /) -> Pod:
    """Choose the first pod."""
    return pods[0]


def pods_of(place: ServiceEndpoints) -> PodSet:
    """Return the pods of a backend, of which the first available one is chosen."""
    return PodSet(place, lambda pod: pod.name, RULES, first)


@given(st.integers(0, 2**32), st.lists(st.integers(0, 3), min_size=1, max_size=6))
@settings(max_examples=50)
def test_the_less_busy_of_two_is_chosen(seed: int, loads: list[int]) -> None:
    """The busiest pod is never chosen while all others are less busy, and every pod is chosen among equals."""
    pods = [Pod(str(number), number, RULES) for number in range(len(loads))]
    for pod, load in zip(pods, loads, strict=True):
        pod.in_flight = load
    choose = LeastBusyOfTwo(random.Random(seed).random)
    chosen = Counter(choose(pods, None) for _ in range(50))

    busiest = max(loads)
    if loads.count(busiest) == 1 and len(loads) > 1:
        assert not any(pod.in_flight == busiest for pod in chosen)


def test_equal_pods_get_equal_shares() -> None:
    """Pods that are equally busy are chosen equally often."""
    pods = [Pod(str(number), number, RULES) for number in range(3)]
    choose = LeastBusyOfTwo(random.Random(7).random)
    chosen = Counter(choose(pods, None).name for _ in range(3000))

    assert all(900 < chosen[name] < 1100 for name in "012")


def test_no_pod_means_the_name_of_the_service() -> None:
    """Without pods none is chosen, and an attempt at the Service's name leaves nowhere to go on."""
    pods = pods_of(endpoints())

    assert pods.choose(None, NOW) is None
    assert pods.goes_on((), NOW)
    assert not pods.goes_on((None,), NOW)


def test_a_pod_that_is_not_available_is_chosen_last() -> None:
    """A pod whose breaker is open or that cools down gets a request only while no other one is left."""
    pods = pods_of(endpoints("a", "b", "c"))
    a, b, c = pods.pods
    a.breaker.cool_down(NOW + 5)
    for _ in range(2):
        b.breaker.failed(NOW)

    assert pods.choose(None, NOW) is c
    assert pods.next(None, [c], NOW) is None
    c.avoid_until = NOW + 1
    assert pods.choose(None, NOW) is b
    assert not pods.goes_on([b], NOW)
    assert pods.choose(None, NOW + 6) is a
    assert pods.cool_until() < NOW


def test_further_attempts_go_to_other_pods() -> None:
    """A request goes to each pod once at most."""
    pods = pods_of(endpoints("a", "b"))
    a, b = pods.pods

    assert [pods.next(None, tried, NOW) for tried in ([], [a], [a, b])] == [a, b, None]
    assert [pods.goes_on(tried, NOW) for tried in ([a], [a, b])] == [True, False]


def test_what_is_known_of_a_pod_outlives_changes_of_slices() -> None:
    """A pod keeps its state while it is an endpoint, and when it comes back while that still matters; another pod of
    its name has none."""
    place = endpoints("a", "b")
    pods = pods_of(place)
    a, b = pods.pods
    a.in_flight = 1
    place.pods = (endpoint("b", state=PodState.LEAVING),)
    assert list(pods.pods) == [b]
    place.pods = (endpoint("a"), endpoint("b", "new"))
    assert [pod in (a, b) for pod in pods.pods] == [True, False]
    a.in_flight = 0
    place.pods = ()
    assert not list(pods.pods)
    place.pods = (endpoint("a"),)
    assert [pod in (a, b) for pod in pods.pods] == [False]


@pytest.mark.parametrize("rules", [RULES, Breaker(consecutive_failures=1)])
def test_other_rules_are_those_of_all_pods(rules: Breaker) -> None:
    """Rules of circuit breakers that change count for the pods that are known and for new ones."""
    place = endpoints("a")
    pods = pods_of(place)
    (a,) = pods.pods
    pods.apply(rules)
    place.pods = (endpoint("a"), endpoint("b"))
    for pod in pods.pods:
        pod.breaker.failed(NOW)

    assert a is pods.pods[0]
    assert [pod.breaker.usable for pod in pods.pods] == [rules is RULES] * 2
