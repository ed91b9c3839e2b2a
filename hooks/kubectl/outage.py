"""What would happen to a model without its local replicas, from the cluster: `kubectl beamlit drill`.

Beside what drills of the gateways found it looks at who may not burst, and at how long the remote backend takes to its
first token: by the last requests that it served, or, in a drill with an override, by requests of its own.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from math import ceil
from typing import Any, Final

import orjson
import yaml

from hooks.api.common import format_time
from hooks.explain.metrics import span
from hooks.explain.outage import Check, Outage, State, outage
from hooks.gatherer import gather
from hooks.kube.objects import Object
from hooks.kube.unstructured import mapping, objects, text
from hooks.kubectl import live, requests
from hooks.kubectl.cluster import Cluster, ClusterFailed, get, path
from hooks.kubectl.drills import ProxiedGateways
from hooks.settings import Settings
from program import bounded_yaml

RULES_VOLUME: Final = "access-rules"
"""Name of the volume of a gateway's pod that has the rules for callers."""
RULES_KEY: Final = "callers.yaml"
"""Key of that ConfigMap."""
RULES_CHARACTERS: Final = 1 << 20
"""Characters of the rules that are read; a ConfigMap has no more."""
PROBES: Final = 40
"""Requests that a drill sends itself, at most, until one of them has gone to the remote backend."""
GRACE: Final = timedelta(seconds=90)
"""Time after the end of a drill in which hooks write its outcome."""
_PAUSE_SECONDS: Final = 2.0
_REQUEST_SECONDS: Final = 60.0
"""Seconds that a request may take to the first token."""
_HTTP_PORT: Final = 8080
_LINE: Final = 65536
_SHOWN_CHARACTERS: Final = 256
_SHOWN: Final = 8
"""Number of callers that are named."""


async def look(
    cluster: Cluster, parent: Object, configured: Settings, system: str, report: Callable[[str], None]
) -> Outage:
    """Return what would happen to a model if all its local replicas were gone now.

    Args:
        cluster: the cluster.
        parent: the ModelDeployment.
        configured: the configuration of hooks.
        system: namespace of the installation.
        report: takes sentences about what could not be read.

    Raises:
        ClusterFailed: an object that the model refers to cannot be read.
        hooks.api.common.InvalidObject: a value of the specification cannot be used.
        hooks.errors.NotAccepted: the specification cannot be in force.
        hooks.errors.HookError: a sync would respond with an error.
    """
    request = await live.request(cluster, parent, report)
    observation = await gather(
        request,
        configured.install_defaults,
        None,
        drill_source=ProxiedGateways(cluster, system),
        seconds=live.DEADLINE_SECONDS,
    )
    found = outage(observation, now=datetime.now(UTC))
    if not found.split.remote:
        return found
    route = f"{found.namespace}/{found.name}"
    checks = await asyncio.gather(callers(cluster, system, route), first_token(cluster, system, route))
    return found.with_checks(*(check for check in checks if check is not None))


async def callers(cluster: Cluster, system: str, route: str) -> Check | None:
    """Return who may not burst to remote backends, by the rules for callers; None where there are none."""
    try:
        name = next((name for pod in await requests.gateway_pods(cluster, system) if (name := _rules(pod))), "")
        if not name:
            return None
        found = await get(cluster, path("api", "v1", "namespaces", system, "configmaps", name))
    except ClusterFailed as exc:
        return Check("callers", State.NOTE, f"It is not known who may not burst. {exc}")
    denied = denied_callers(text(mapping(found, "data"), RULES_KEY), route)
    if denied is None:
        return Check("callers", State.NOTE, f"The rules for callers in ConfigMap {name} cannot be read.")
    if not denied:
        return Check("callers", State.GOOD, "Every caller's requests may go to the remote backend.")
    more = f" and {len(denied) - _SHOWN} more" if len(denied) > _SHOWN else ""
    shown = f"{', '.join(denied[:_SHOWN])}{more}"
    return Check("callers", State.WARNS, f"Requests of these callers may not leave the cluster (burst: deny): {shown}.")


def denied_callers(rules: str, route: str) -> list[str] | None:
    """Return the callers that may use a model and whose requests may not leave the cluster, and such groups of callers;
    None where the rules cannot be read."""
    try:
        documents = list(bounded_yaml.load_all(rules, max_chars=RULES_CHARACTERS))
    except (yaml.YAMLError, ValueError):
        return None
    content = documents[0] if documents else None
    if not isinstance(content, dict):
        return [] if content is None else None
    callers, groups = (
        sorted(str(name) for name, rule in mapping(content, key).items() if _denies(rule, route))
        for key in ("callers", "groups")
    )
    return [*callers, *(f"the group {name}" for name in groups)]


def _denies(rule: object, route: str) -> bool:
    """Return whether callers may use a model by a rule whose requests may not leave the cluster."""
    if not isinstance(rule, dict) or rule.get("burst") != "deny":
        return False
    allowed = rule.get("models")
    return not isinstance(allowed, list) or route in allowed


def _rules(pod: Mapping[str, Any]) -> str:
    """Return the name of the ConfigMap with the rules for callers that a gateway's pod has; empty without one."""
    for volume in objects(mapping(pod, "spec"), "volumes"):
        if text(volume, "name") == RULES_VOLUME:
            return text(mapping(volume, "configMap"), "name")
    return ""


async def first_token(cluster: Cluster, system: str, route: str) -> Check:
    """Return how long the last request to the remote backend that gateways remember took to its first token."""
    name, left_out = "first token", list[str]()
    try:
        paths = await requests.gateways(cluster, system)
        last = newest(await requests.decisions(cluster, paths, route, requests.MOST, left_out.append))
    except ClusterFailed as exc:
        return Check(name, State.NOTE, f"It is not known how long it takes. {exc}")
    if last is None:
        words = (
            "No gateway remembers a request for the model that the remote backend served: `--for 2m --percentage 20`"
            " sends it some."
        )
        return Check(name, State.NOTE, " ".join((words, *left_out)))
    return Check(name, State.GOOD, f"{_took(last)}, for the last request that it served ({_age(last)} ago).")


def newest(decisions: Sequence[Object]) -> Object | None:
    """Return the last request that the remote backend served."""
    served = [
        one
        for one in decisions
        if one.get("backend") == "remote"
        and isinstance(status := one.get("status"), int)
        and status < 400
        and isinstance(one.get("time"), int | float)
        and _seconds(one) is not None
    ]
    return served[-1] if served else None


def _seconds(decision: Object) -> float | None:
    """Return the seconds to the first event of a request's stream, or else to the first byte of its response."""
    for key in ("first_event_seconds", "first_byte_seconds"):
        if isinstance(value := decision.get(key), int | float):
            return float(value)
    return None


def _took(decision: Object) -> str:
    unit = "event of its stream" if isinstance(decision.get("first_event_seconds"), int | float) else "byte"
    return f"{_seconds(decision):.3f} s to the first {unit}"


def _age(decision: Object) -> str:
    passed = datetime.now(UTC) - datetime.fromtimestamp(float(decision["time"]), UTC)
    return span(max(passed, timedelta(0)))


@dataclass(frozen=True, slots=True)
class Sent:
    """A request of a drill, and the beginning of the response."""

    status: int
    backend: str
    """Backend that responded; empty where the gateway itself did."""
    seconds: float
    """Seconds to the first event of the stream, or to the first byte of another body."""
    is_stream: bool
    content: str
    """Beginning of the body."""

    @property
    def problem(self) -> str:
        """Return what is wrong, as a sentence."""
        if self.status == 401 and not self.backend:
            return "The gateway wants an API key, so no request of this drill was sent to the remote backend."
        who = "The remote backend" if self.backend else "The gateway"
        return f"{who} responds with status {self.status} to a chat completion of one token: {self.content.strip()}"


def send(port: int, namespace: str, name: str) -> Sent:
    """Send a chat completion of one token to a gateway on this machine, and return what it responds.

    Raises:
        OSError: there is no response.
        HTTPException: it is none of HTTP.
    """
    body = orjson.dumps(
        {"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, "stream": True}
    )
    connection = HTTPConnection("127.0.0.1", port, timeout=_REQUEST_SECONDS)
    try:
        began = time.perf_counter()
        connection.request(
            "POST",
            f"{path(namespace, name)}/v1/chat/completions",
            body,
            {"content-type": "application/json", "accept": "text/event-stream"},
        )
        response = connection.getresponse()
        is_stream = (response.getheader("content-type") or "").startswith("text/event-stream")
        content = response.readline(_LINE)
        while is_stream and content and not content.startswith(b"data:"):  # a comment, or the name of the event
            if time.perf_counter() - began > _REQUEST_SECONDS:  # which comments of the gateway do not prolong
                raise TimeoutError(f"there was no event of its stream within {_REQUEST_SECONDS:g} seconds")
            content = response.readline(_LINE)
        return Sent(
            response.status,
            response.getheader("x-beamlit-backend") or "",
            time.perf_counter() - began,
            is_stream,
            "".join(one for one in content.decode("utf-8", "replace") if one.isprintable())[:_SHOWN_CHARACTERS],
        )
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Drill:
    """A drill by hand that has begun: an override with its end."""

    cluster: Cluster
    system: str
    """Namespace of the installation."""
    namespace: str
    name: str
    percentage: int
    until: datetime

    async def probe(self) -> Check:
        """Send requests of one token through a gateway until one has gone to the remote backend; return how long that
        took to its first token."""
        title = "first token"
        try:
            pod = (await requests.gateway_pods(self.cluster, self.system))[0]
            port = requests.port_of(pod, requests.HTTP) or _HTTP_PORT
            async with self.cluster.forward(self.system, text(mapping(pod, "metadata"), "name"), port) as local:
                for _ in range(min(PROBES, 2 * ceil(100 / max(1, self.percentage)))):
                    response = await asyncio.to_thread(send, local, self.namespace, self.name)
                    if response.backend == "remote" and response.status < 400:
                        kind = "event of its stream" if response.is_stream else "byte"
                        took = f"{response.seconds:.3f} s to the first {kind}, for a request of this drill."
                        return Check(title, State.GOOD, took)
                    if response.backend != "local":
                        return Check(title, State.WARNS, response.problem)
        except (ClusterFailed, OSError, HTTPException) as exc:
            return Check(title, State.NOTE, f"No request of this drill could be sent: {exc}")
        return Check(title, State.NOTE, "No request of this drill went to the remote backend.")

    async def outcome(self, *, pause: float = _PAUSE_SECONDS) -> Mapping[str, Any] | None:
        """Wait until hooks have written what came of it; return the record, or None where they did not in time."""
        while datetime.now(UTC) < self.until + GRACE:
            parent = await live.model(self.cluster, self.namespace, self.name)
            record = mapping(mapping(mapping(parent, "status"), "offloading"), "drill")
            is_this = text(record, "until") == format_time(self.until)
            if is_this and text(record, "outcome") not in ("", "Running"):
                return record
            await asyncio.sleep(pause)
        return None
