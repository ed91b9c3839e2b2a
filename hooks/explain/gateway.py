"""Where the gateway sends single requests, beside the split: behavior.overflow and gateway.endpoints in sentences."""

from collections.abc import Iterator
from typing import Final

from hooks.api.gateway import Gateway, GatewayQueue
from hooks.api.offloading import Overflow
from hooks.backends.remote import Remote
from hooks.offloading.rules import Facts, Split

_ENDPOINTS: Final = {
    "pods": "requests for the local replicas go to single pods, to the less busy one of two, and one that failed goes"
    " to another pod before it goes to another backend. Where gateway.endpoints of the gateway's configuration is"
    " service, they go to the name of the Service all the same.",
    "service": "requests for the local replicas go to the name of their Service, so one that failed goes to another"
    " backend at once.",
}
"""What each value of gateway.endpoints does."""


def gateway_rules(facts: Facts, split: Split) -> tuple[str, ...]:
    """Return a sentence for each rule of the specification that says where the gateway sends single requests.

    Without a local backend there is none.
    """
    if not facts.has_local or not split.local:
        return ()
    return tuple(_rules(facts, has_remote=isinstance(facts.remote, Remote) and split.remote))


def _rules(facts: Facts, *, has_remote: bool) -> Iterator[str]:
    gateway = facts.spec.gateway or Gateway()
    offloading = facts.spec.offloading_config
    overflow = None if offloading is None else offloading.behavior.overflow
    if overflow is not None:
        above = _above(gateway.queue, has_remote=has_remote)
        yield (
            f"behavior.overflow.inFlight {overflow.in_flight}: each gateway lets the local replicas serve"
            f" {_number(overflow.in_flight, 'request')} at the same time, a stream until its end. {above}"
        )
        if overflow.first_token_seconds is not None:
            yield _first_token(overflow, overflow.first_token_seconds)
    if gateway.endpoints is not None:
        yield f"gateway.endpoints {gateway.endpoints}: {_ENDPOINTS[gateway.endpoints.value]}"


def _above(queue: GatewayQueue | None, *, has_remote: bool) -> str:
    """Return what happens to a request that is too much."""
    wait = "gets status 503"
    if queue is not None:
        wait = (
            f"waits for up to {queue.wait_seconds:g} s; {_number(queue.size, 'request')} may wait, and any other gets"
            " status 503"
        )
    if not has_remote:
        return f"No remote backend may take what is above, so it {wait}."
    return f"What is above goes to the remote backend at once (Overflow); while that takes none, it {wait}."


def _first_token(overflow: Overflow, seconds: float) -> str:
    return (
        f"behavior.overflow.firstTokenSeconds {seconds:g}: each gateway finds by itself how many streams, inFlight"
        f" {overflow.in_flight} at most, the local replicas serve at the same time so that first events come within"
        f" {seconds:g} s, and treats a stream above that like a request above inFlight. Where it stands now is on"
        " /routes of the gateway, under streams, and in the metric beamlit_gateway_stream_limit."
    )


def _number(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
