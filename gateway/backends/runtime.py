"""Runtime state of routes and their backends, which outlives the documents they come from."""

from collections.abc import Callable, Hashable
from math import inf

from gateway.api import v1alpha1
from gateway.backends.breaker import CircuitBreaker
from gateway.backends.concurrency import ConcurrencyLimit
from gateway.backends.endpoints import Endpoint, ServiceEndpoints
from gateway.backends.failover import RetryBudget
from gateway.backends.pods import Choice, PodSet
from gateway.backends.response_pods import ResponsePods
from gateway.backends.stream_slots import StreamSlots


class Traffic:
    """Requests at one backend, as far as they tell what drills are to find out."""

    __slots__ = ("refused_at", "succeeded_at")

    def __init__(self) -> None:
        self.succeeded_at = -inf
        """Time of the monotonic clock of the last POST that succeeded."""
        self.refused_at = -inf
        """Time of that clock at which the backend last responded with 401 to the gateway's own credentials."""


class BackendRuntime:
    """Runtime state of one backend of a route, kept over changes of the document while the server stays the same.

    Two routes that lead to one server have separate states: the failures of one route, with its path, its token and its
    model, say nothing about the other.
    """

    __slots__ = ("breaker", "concurrency", "origin", "pods", "streams", "traffic")

    def __init__(self, origin: Hashable, rules: v1alpha1.Breaker) -> None:
        self.origin = origin
        """Identity of the server."""
        self.breaker = CircuitBreaker(rules)
        self.concurrency = ConcurrencyLimit()
        self.traffic = Traffic()
        """Requests that count as drills at a remote backend."""
        self.pods: PodSet | None = None
        """Pods of the Service; None where requests are sent to its name."""
        self.streams: StreamSlots | None = None
        """Slots for streams, where the times of first events limit these."""

    def follow(
        self,
        endpoints: ServiceEndpoints | None,
        origin_of: Callable[[Endpoint], Hashable],
        rules: v1alpha1.Breaker,
        choice: Choice,
    ) -> None:
        """Use the pods in `endpoints` from now on, or the name of the Service where it is None.

        What is known of pods is kept while it is the same object.
        """
        if endpoints is None:
            self.pods = None
        elif self.pods is None or self.pods.endpoints is not endpoints:
            self.pods = PodSet(endpoints, origin_of, rules, choice)
        else:
            self.pods.apply(rules)
            self.pods.choice = choice

    def limit_streams(self, target: float | None, ceiling: int | None) -> None:
        """Limit streams so that first events come within `target` seconds; None for no such limit."""
        if target is None or ceiling is None:
            if self.streams is not None:
                self.streams.open()
            self.streams = None
        elif self.streams is None:
            self.streams = StreamSlots(target, ceiling)
        else:
            self.streams.apply(target, ceiling)


class TenantRuntime:
    """Runtime state of all routes of one namespace: the requests in flight."""

    __slots__ = ("in_flight",)

    def __init__(self) -> None:
        self.in_flight = 0


class RouteRuntime:
    """Runtime state of one route: the turn, the requests so far and in flight, and the retry budget."""

    __slots__ = ("arrived", "backends", "budget", "in_flight", "responses", "tenant", "turn")

    def __init__(self, budget: RetryBudget, tenant: TenantRuntime) -> None:
        self.tenant = tenant
        self.turn = 0
        """Next turn in the route's pattern of weights."""
        self.arrived = 0
        """Requests that have arrived so far."""
        self.in_flight = 0
        self.budget = budget
        self.backends: dict[str, BackendRuntime] = {}
        """States of the route's backends, by id."""
        self.responses = ResponsePods()
        """Pods that have made responses to which later requests may refer."""

    def backend(self, backend: v1alpha1.Backend, origin: Hashable, rules: v1alpha1.Breaker) -> BackendRuntime:
        """Return the state of a backend: the one there is if its server is the same as before, otherwise a new one."""
        state = self.backends.get(backend.id)
        if state is None or state.origin != origin:
            state = self.backends[backend.id] = BackendRuntime(origin, rules)
        else:
            state.breaker.apply(rules)
        state.concurrency.apply(backend.in_flight)
        state.limit_streams(backend.first_token_target, backend.in_flight)
        return state
