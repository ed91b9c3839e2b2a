"""What would happen to a model without its local replicas, from the cluster: `kubectl beamlit drill`.

Beside what drills of the gateways found it looks at who may not burst, and at how long the remote backend takes to its
first token: by the last request or completion that it served, by a completion that a gateway sends for the command, or,
in a drill with an override, by requests of its own.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from math import ceil
from typing import Any, Final
from urllib.parse import urlencode

import orjson
import yaml

from hooks import reasons
from hooks.api.common import format_time
from hooks.backends import proof
from hooks.explain.metrics import span
from hooks.explain.outage import Check, Outage, State, outage
from hooks.gatherer import gather
from hooks.kube.objects import Object
from hooks.kube.unstructured import mapping, objects, text
from hooks.kubectl import live, requests
from hooks.kubectl.cluster import Cluster, ClusterFailed, get, path
from hooks.kubectl.drills import ProxiedGateways
from hooks.observation import drills as drill_results
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
BEGIN: Final = timedelta(seconds=30)
"""Time in which hooks write that a drill has begun."""
FOLLOW_SECONDS: Final = 1.0
"""Seconds after that in which gateways follow: requests before would all go to the local backend."""
_BEGIN_PAUSE_SECONDS: Final = 0.5
_PAUSE_SECONDS: Final = 2.0
_REQUEST_SECONDS: Final = 60.0
"""Seconds that a request may take to the first token."""
_COMPLETION_SECONDS: Final = 100.0
"""Seconds that a gateway may take to respond to the wish for a completion: more than its drill may take."""
_HTTP_PORT: Final = 8080
_ADMIN_PORT: Final = 8081
_RESPONSE_BYTES: Final = 1 << 20
_EVENT_LINES: Final = 1024
"""Lines of a stream that are read until there is a token."""
_LINE: Final = 65536
_SHOWN_CHARACTERS: Final = 256
_SHOWN: Final = 8
"""Number of callers that are named."""


async def look(
    cluster: Cluster,
    parent: Object,
    configured: Settings,
    system: str,
    report: Callable[[str], None],
    *,
    probe: bool = False,
) -> Outage:
    """Return what would happen to a model if all its local replicas were gone now.

    Args:
        cluster: the cluster.
        parent: the ModelDeployment.
        configured: the configuration of hooks.
        system: namespace of the installation.
        report: takes sentences about what could not be read.
        probe: whether a gateway sends the remote backend a completion of one token before anything is read.

    Raises:
        ClusterFailed: an object that the model refers to cannot be read.
        hooks.api.common.InvalidObject: a value of the specification cannot be used.
        hooks.errors.NotAccepted: the specification cannot be in force.
        hooks.errors.HookError: a sync would respond with an error.
    """
    metadata = mapping(parent, "metadata")
    sent = await completion(cluster, system, text(metadata, "namespace"), text(metadata, "name")) if probe else None
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
    who = await callers(cluster, system, route)
    if sent is None:
        drills = observation.drills[0].drills if observation.drills else ()
        sent = await first_token(cluster, system, route, drills)
    return found.with_checks(*(check for check in (who, sent) if check is not None))


async def completion(cluster: Cluster, system: str, namespace: str, name: str) -> Check:
    """Have a gateway send a completion of one token to the remote backend; return how long that took."""
    title = "first token"
    try:
        pod = (await requests.gateway_pods(cluster, system))[0]
        port = requests.port_of(pod, requests.ADMIN) or _ADMIN_PORT
        async with cluster.forward(system, text(mapping(pod, "metadata"), "name"), port) as local:
            response = await asyncio.to_thread(ask, local, namespace, name)
    except (ClusterFailed, OSError, HTTPException, ValueError) as exc:
        return Check(title, State.NOTE, f"No completion could be sent: {exc}")
    drills = objects(response, "drills")
    worst = next((one for one in drills if text(one, "reason") != reasons.PROVEN), None)
    one = worst or next(iter(drills), None)
    if one is None:
        return Check(title, State.NOTE, f"No completion was sent: {text(response, 'error')}.")
    message, seconds = printable(text(one, "message")), one.get("seconds")
    if worst is None and isinstance(seconds, int | float):
        took = f"{seconds:.3f} s with its connection, for a completion of one token that a gateway has sent now."
        return Check(title, State.GOOD, took)
    state = State.BAD if text(one, "reason") in proof.FATAL else State.WARNS
    return Check(title, State.NOTE if text(one, "reason") == reasons.NOT_TRIED else state, message)


def ask(port: int, namespace: str, name: str) -> Mapping[str, Any]:
    """Ask a gateway by its port for administrators, on this machine, for a completion; return what it responds.

    Raises:
        OSError: there is no response.
        HTTPException: it is none of HTTP.
        ValueError: it is no JSON object.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=_COMPLETION_SECONDS)
    try:
        query = urlencode({"namespace": namespace, "name": name})
        connection.request("POST", f"/drills?{query}", b"{}", {"content-type": "application/json"})
        response = connection.getresponse()
        content = response.read(_RESPONSE_BYTES)
        if response.status == 405:
            raise ValueError("the gateway is of an older version, which sends none when it is asked.")
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise ValueError("the gateway responds with something that is not JSON.") from None
    finally:
        connection.close()
    if not isinstance(found, dict):
        raise ValueError("the gateway responds with something else than its drills.")
    return found


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


async def first_token(cluster: Cluster, system: str, route: str, drills: Sequence[drill_results.Drill] = ()) -> Check:
    """Return how long the last request to the remote backend that gateways remember took to its first token, or the
    last completion of a drill."""
    name, left_out = "first token", list[str]()
    tried = max(
        ((one.token_time, one.token_seconds) for one in drills if one.token_time and one.token_seconds is not None),
        default=None,
    )
    try:
        paths = await requests.gateways(cluster, system)
        last = newest(await requests.decisions(cluster, paths, route, requests.MOST, left_out.append))
    except ClusterFailed as exc:
        if tried is None:
            return Check(name, State.NOTE, f"It is not known how long it takes. {exc}")
        last = None
    if tried is not None and (last is None or tried[0].timestamp() > float(last["time"])):
        ago = span(max(datetime.now(UTC) - tried[0], timedelta(0)))
        took = f"{tried[1]:.3f} s with its connection, for the completion of the last drill that had one ({ago} ago)."
        return Check(name, State.GOOD, took)
    if last is None:
        words = (
            "No gateway remembers a request for the model that the remote backend served: `--probe` sends a completion"
            " of one token."
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
    """Seconds to the first event of the stream that has a token, or to the first byte of another body."""
    is_stream: bool
    content: str
    """Beginning of the body."""
    is_empty: bool = False
    """Whether the stream has ended without a token."""

    @property
    def problem(self) -> str:
        """Return what is wrong, as a sentence."""
        if self.is_empty:
            return f"The {self.backend} backend ended its stream without a token: {self.content.strip()}"
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
        line = content = response.readline(_LINE)
        lines, has_token = 1, has_content(line)
        while is_stream and line and not has_token and lines < _EVENT_LINES:
            if time.perf_counter() - began > _REQUEST_SECONDS:  # which comments of the gateway do not prolong
                raise TimeoutError(f"there was no token in its stream within {_REQUEST_SECONDS:g} seconds")
            line, lines = response.readline(_LINE), lines + 1
            has_token = has_content(line)
            if line.startswith(b"data:") and b"[DONE]" not in line:
                content = line
        return Sent(
            response.status,
            response.getheader("x-beamlit-backend") or "",
            time.perf_counter() - began,
            is_stream,
            printable(content.decode("utf-8", "replace")),
            is_stream and not has_token,
        )
    finally:
        connection.close()


def has_content(line: bytes) -> bool:
    """Return whether a line of an event stream has a part of a completion: a token, or why there is none.

    Servers send an event with the role alone before the first token, some of them before they have begun with it.
    """
    if not line.startswith(b"data:"):
        return False
    try:
        event = orjson.loads(line.removeprefix(b"data:"))
    except orjson.JSONDecodeError:
        return False
    for choice in objects(event, "choices") if isinstance(event, dict) else ():
        parts = {key: value for key, value in mapping(choice, "delta").items() if key != "role"}
        if any(parts.values()) or choice.get("text") or choice.get("finish_reason"):
            return True
    return False


def printable(words: str) -> str:
    """Return the beginning of a text, without what a terminal would take for more than text."""
    return "".join(one for one in words if one.isprintable())[:_SHOWN_CHARACTERS]


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
        await self._begun()
        try:
            pod = (await requests.gateway_pods(self.cluster, self.system))[0]
            port = requests.port_of(pod, requests.HTTP) or _HTTP_PORT
            async with self.cluster.forward(self.system, text(mapping(pod, "metadata"), "name"), port) as local:
                for _ in range(min(PROBES, 2 * ceil(100 / max(1, self.percentage)))):
                    response = await asyncio.to_thread(send, local, self.namespace, self.name)
                    if response.backend == "remote" and response.status < 400 and not response.is_empty:
                        kind = "token of its stream" if response.is_stream else "byte"
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
            record = await self._record()
            if text(record, "outcome") not in ("", "Running"):
                return record
            await asyncio.sleep(pause)
        return None

    async def _begun(self) -> None:
        """Wait until hooks have written that it has begun, and until gateways follow; no longer than a bound."""
        end = min(self.until, datetime.now(UTC) + BEGIN)
        try:
            while datetime.now(UTC) < end:
                if await self._record():
                    break
                await asyncio.sleep(_BEGIN_PAUSE_SECONDS)
        except ClusterFailed:
            return  # what is wrong is said where the outcome is read
        await asyncio.sleep(FOLLOW_SECONDS)

    async def _record(self) -> Mapping[str, Any]:
        """Return the record of this drill in the status of the model; an empty one where there is none yet."""
        parent = await live.model(self.cluster, self.namespace, self.name)
        record = mapping(mapping(mapping(parent, "status"), "offloading"), "drill")
        return record if text(record, "until") == format_time(self.until) else {}
