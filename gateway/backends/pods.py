"""Pods of one backend, with what is known of each: requests in flight, circuit breaker and cool-down.

A request goes to one of the pods that `Choice` picks. The pods are those that EndpointSlices tell now; what is known of
a pod is kept while it is one of them, and for as long as that may matter after it has left.
"""

from collections.abc import Callable, Collection, Hashable, Sequence
from math import inf
from typing import Final, Protocol

from gateway.api.v1alpha1 import Breaker
from gateway.backends.breaker import CircuitBreaker, UnavailableReason
from gateway.backends.endpoints import SERVICE_PODS, Endpoint, PodState, ServiceEndpoints

AVOID_SECONDS: Final = 1.0
"""Seconds for which a pod that could not be connected to gets no request while another one can take it."""


class Pod:
    """One pod of a backend, and what is known of it."""

    __slots__ = ("avoid_until", "breaker", "in_flight", "name", "origin")

    def __init__(self, name: str, origin: Hashable, rules: Breaker) -> None:
        self.name = name
        """Name of the pod, by which all gateways know it."""
        self.origin = origin
        """Server to which requests for the pod are sent."""
        self.in_flight = 0
        """Requests that are at the pod now, until the end of their responses."""
        self.breaker = CircuitBreaker(rules)
        self.avoid_until = -inf
        """Time until which another pod is preferred, because there was no connection to this one."""

    def available(self, now: float) -> bool:
        """Return whether the pod should get requests at `now`."""
        if now < self.avoid_until:
            return False
        return self.breaker.usable or self.breaker.unavailable_reason(now) is None


class Choice(Protocol):
    """Rule by which one of several pods is chosen."""

    def __call__(self, pods: Sequence[Pod], key: bytes | None, /) -> Pod:
        """Return one of `pods`, which are at least one, in the order of their names.

        Args:
            pods: Pods that may be chosen.
            key: What requests have in common that should go to the same pod; None where there is nothing.
        """
        ...


class LeastBusyOfTwo:
    """Choice of the less busy one of two pods that are drawn at random.

    It spreads requests nearly as well as the least busy pod of all, and several gateways that know nothing of each
    other do not all choose the same one. https://www.eecs.harvard.edu/~michaelm/postscripts/tpds2001.pdf
    """

    def __init__(self, draw: Callable[[], float]) -> None:
        """Draw numbers from 0 on and below 1 by `draw`."""
        self._draw = draw

    def __call__(self, pods: Sequence[Pod], _key: bytes | None, /) -> Pod:
        """Return one of `pods`; what a request has in common with others does not matter."""
        number = len(pods)
        one = int(self._draw() * number)
        if number == 1:
            return pods[0]
        other = int(self._draw() * (number - 1))
        if other >= one:
            other += 1
        first, second = pods[one], pods[other]
        return second if second.in_flight < first.in_flight else first


class PodSet:
    """Pods of one backend."""

    def __init__(
        self,
        endpoints: ServiceEndpoints,
        origin_of: Callable[[Endpoint], Hashable],
        rules: Breaker,
        choice: Choice,
    ) -> None:
        """Use the pods in `endpoints`.

        Args:
            endpoints: Pods of the Service, as they are now.
            origin_of: Function that returns the server to which requests for a pod are sent.
            rules: Rules of the circuit breakers.
            choice: Rule by which a pod is chosen.
        """
        self.endpoints = endpoints
        self.choice = choice
        self._origin_of = origin_of
        self._rules = rules
        self._applied: tuple[Endpoint, ...] = ()
        """Pods for which `_pods` was made."""
        self._pods: tuple[Pod, ...] = ()
        self._known: dict[Endpoint, Pod] = {}
        """Pods by their endpoints: those of now, and those that have left and still matter."""

    def apply(self, rules: Breaker) -> None:
        """Use other rules of circuit breakers from now on."""
        if rules != self._rules:
            self._rules = rules
            for pod in self._known.values():
                pod.breaker.apply(rules)

    @property
    def pods(self) -> tuple[Pod, ...]:
        """Pods that get requests now; none where the name of the Service is used."""
        endpoints = self.endpoints.pods
        if endpoints is not self._applied:
            self._renew(endpoints)
        return self._pods

    def named(self, name: str) -> Pod | None:
        """Return the pod of this name; None where it is gone."""
        for pod in self.pods:
            if pod.name == name:
                return pod
        return None

    def choose(self, key: bytes | None, now: float) -> Pod | None:
        """Return the pod for a first attempt; None where the name of the Service is used.

        A pod that is in a cool-down or whose breaker is open is chosen only while no other one is left.
        """
        pods = self.pods
        if not pods:
            return None
        chosen = self.choice(pods, key)
        if chosen.available(now):
            return chosen
        others = [pod for pod in pods if pod.available(now)]
        if not others:
            others = [pod for pod in pods if not _cools_down(pod, now)]
        return self.choice(others, key) if others else chosen

    def next(self, key: bytes | None, tried: Collection[Pod | None], now: float) -> Pod | None:
        """Return the pod for the next attempt of a request, and for its first one as `choose` does.

        Args:
            key: What the request has in common with others that should go to the same pod.
            tried: Pods that had an attempt; None among them is the name of the Service.
            now: Time of the monotonic clock.
        """
        if not tried:
            return self.choose(key, now)
        others = [pod for pod in self.pods if pod not in tried and pod.available(now)]
        return self.choice(others, key) if others else None

    def goes_on(self, tried: Collection[Pod | None], now: float) -> bool:
        """Return whether a pod that is not in `tried` is available, or the name of the Service where no pod is left."""
        pods = self.pods
        if not pods:
            return None not in tried
        return any(pod not in tried and pod.available(now) for pod in pods)

    def has_available(self, now: float) -> bool:
        """Return whether a pod should get requests at `now`."""
        return any(pod.available(now) for pod in self.pods)

    def has_new(self, now: float) -> bool:
        """Return whether there is an available pod of which nothing is known: one that has come since others failed."""
        return any(not pod.in_flight and pod.breaker.is_new and pod.available(now) for pod in self.pods)

    def cool_until(self) -> float:
        """Return the time at which the first cool-down of a pod ends, one in the past where a pod has none."""
        return min((pod.breaker.cool_until for pod in self.pods), default=-inf)

    def _renew(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Bring the pods in line with their endpoints, and keep what is known of those that stay."""
        before, known = self._known, {}
        for endpoint in endpoints:
            key = _identity(endpoint)
            pod = before.get(key)
            known[key] = Pod(endpoint.name, self._origin_of(endpoint), self._rules) if pod is None else pod
        self._pods = tuple(known.values())
        for key, pod in before.items():
            # It may come back in a moment, as slices change, and is not idle or sound then.
            if len(known) < 2 * SERVICE_PODS and key not in known and (pod.in_flight or not pod.breaker.usable):
                known[key] = pod
        self._applied, self._known = endpoints, known


def _identity(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint as it stays the same while a pod does: whatever its state."""
    return endpoint._replace(state=PodState.READY)


def _cools_down(pod: Pod, now: float) -> bool:
    return pod.breaker.unavailable_reason(now) is UnavailableReason.COOL_DOWN
