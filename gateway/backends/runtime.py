"""State of routes and their backends that outlives the documents they come from."""

from collections.abc import Hashable

from gateway.api import v1alpha1
from gateway.backends.breaker import CircuitBreaker
from gateway.backends.concurrency import ConcurrencyLimit
from gateway.backends.failover import RetryBudget


class BackendRuntime:
    """State of one backend of a route that outlives documents, as long as it is the same place.

    Two routes that lead to one server have one each: what a route's requests meet there (its path, its token, its
    model) is no verdict on another's.
    """

    __slots__ = ("breaker", "concurrency", "place")

    def __init__(self, place: Hashable, rules: v1alpha1.Breaker) -> None:
        self.place = place
        self.breaker = CircuitBreaker(rules)
        self.concurrency = ConcurrencyLimit()


class RouteRuntime:
    """State per route that outlives its documents: whose turn it is, what is in flight, and what may be retried."""

    __slots__ = ("backends", "budget", "in_flight", "turn")

    def __init__(self, budget: RetryBudget) -> None:
        self.turn = 0
        self.in_flight = 0
        self.budget = budget
        self.backends: dict[str, BackendRuntime] = {}
        """By the backend's id."""

    def backend(self, backend: v1alpha1.Backend, place: Hashable, rules: v1alpha1.Breaker) -> BackendRuntime:
        """The state of a backend: what there is where its place is the same as before, else new."""
        found = self.backends.get(backend.id)
        if found is None or found.place != place:
            found = self.backends[backend.id] = BackendRuntime(place, rules)
        else:
            found.breaker.apply(rules)
        found.concurrency.apply(backend.in_flight)
        return found
