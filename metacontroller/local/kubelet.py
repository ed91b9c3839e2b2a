"""A kubelet for processes: it probes the processes behind workloads and writes their status as the real controllers do.

`workloads.yaml` names, per workload, the process's readiness URL. One process stands for all replicas: when it is
ready, all are. Or it lists several processes under `pods`, each of which is one replica: then the Services in front of
them have EndpointSlices. A workload that is not listed has no ready replica. A process with an address is one pod,
which is written to a file for hooks: its address is the pod's, and its ports are those that the containers declare.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from metacontroller.local import errors
from metacontroller.local.apiserver import yaml
from metacontroller.local.apiserver.builtin import WORKLOADS
from metacontroller.local.apiserver.objects import Key, Kind, Object, copy, equal
from metacontroller.local.apiserver.server import ApiServer, Change
from metacontroller.local.endpoint_slices import Pod, write_slices

INTERVAL: Final = 0.25
"""Seconds between two probes of a workload."""
TIMEOUT: Final = 1.0
"""Timeout of a probe in seconds, as the kubelet's default."""
FAILURES: Final = 3
"""Failed probes in a row after which a ready process is not ready any more, as the kubelet's default."""
ALL: Final = 1 << 30
"""Number of ready pods of a workload whose only process stands for all of them."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process that stands for a pod, or for all pods of a workload."""

    readiness: str
    """URL of the readiness probe. A status from 200 to 399 means ready."""
    address: str = ""
    """IP address of the process; empty where it is not said."""
    port: int = 0
    """Port at that address."""


@dataclass(frozen=True, slots=True)
class Workload:
    """An entry of workloads.yaml."""

    kind: str
    namespace: str
    name: str
    processes: tuple[Process, ...]
    has_pods: bool = False
    """Whether each process is one pod; otherwise the only one stands for all of them."""


def read_workloads(path: Path) -> tuple[Workload, ...]:
    """Return the entries of workloads.yaml; a missing file has none. Raise errors.SetupError where an entry is
    invalid."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    except OSError as exc:
        raise errors.SetupError(f"{path}: {exc.strerror or exc}") from exc
    try:
        content = yaml.read_plain(text)
    except yaml.DocumentError as exc:
        raise errors.SetupError(f"{path}: {exc}") from exc
    entries = content.get("workloads") if isinstance(content, dict) else None
    if entries is None:
        entries = []
    if not isinstance(entries, list):
        raise errors.SetupError(f"{path}: workloads must be a list")
    return tuple(_workload(entry, f"{path}: workloads[{index}]") for index, entry in enumerate(entries))


def _workload(entry: Any, where: str) -> Workload:
    if not isinstance(entry, dict):
        raise errors.SetupError(f"{where} must have kind, namespace, name and readiness")
    kind = entry.get("kind", "Deployment")
    if kind not in WORKLOADS:
        raise errors.SetupError(f"{where}.kind must be one of {', '.join(sorted(WORKLOADS))}, not {kind!r}")
    if not isinstance(entry.get("name"), str) or not entry["name"]:
        raise errors.SetupError(f"{where}.name is missing")
    pods = entry.get("pods")
    if pods is None:
        processes: tuple[Process, ...] = (_process(entry, where),)
    elif not isinstance(pods, list) or not pods or not all(isinstance(one, dict) and "address" in one for one in pods):
        raise errors.SetupError(f"{where}.pods must be a list of processes with address and readiness")
    else:
        processes = tuple(_process(one, f"{where}.pods[{index}]") for index, one in enumerate(pods))
    return Workload(kind, entry.get("namespace", "default"), entry["name"], processes, pods is not None)


def _process(entry: Object, where: str) -> Process:
    readiness = entry.get("readiness")
    if not isinstance(readiness, str) or not readiness:
        raise errors.SetupError(f"{where}.readiness is missing")
    if not readiness.startswith(("http://", "https://")):
        raise errors.SetupError(f"{where}.readiness must be an http URL, not {readiness!r}")
    if "address" not in entry:
        return Process(readiness)
    return Process(readiness, *_address(entry["address"], f"{where}.address"))


def _address(value: Any, where: str) -> tuple[str, int]:
    """Return the IP address and the port in `address:port`."""
    try:
        parts = urlsplit(f"//{value}")
        if parts.port is None or parts.netloc != value:
            raise ValueError
        return str(ip_address(parts.hostname or "")), parts.port
    except ValueError:
        raise errors.SetupError(f"{where} must be an IP address with a port, not {value!r}") from None


class Kubelet:
    """A prober for the entries of workloads.yaml, which writes the status of all workloads."""

    def __init__(
        self,
        api: ApiServer,
        workloads: tuple[Workload, ...],
        client: httpx.AsyncClient,
        *,
        now: Callable[[], datetime],
        report: Callable[[str], None],
        pods: Path | None = None,
    ) -> None:
        """Write the status of every stored workload: none is ready before its first probe.

        Args:
            api: server with the workloads.
            workloads: the entries of workloads.yaml.
            client: client for the probes.
            now: returns the present time.
            report: takes one line for each event.
            pods: file that gets the processes with an address as pods; None for no file.
        """
        self._api, self._client, self._now, self._report = api, client, now, report
        self._workloads = {_key(api, workload): workload for workload in workloads}
        self._ready: set[tuple[Key, int]] = set()
        """Processes that are ready, each by its workload and its number there."""
        self._pods, self._written = pods, ""
        self._since: dict[tuple[Key, int], datetime] = {}
        api.watch(self._notice)

    async def run(self) -> None:
        """Probe until cancelled."""
        for kind in self._api.kinds.values():
            if kind.name in WORKLOADS:
                for key, _ in list(self._api.all_of(kind)):
                    # What is listed keeps its status until its first probe: a restart is no outage.
                    if key not in self._workloads:
                        self._write(kind, key)
        self._write_pods()
        async with asyncio.TaskGroup() as group:
            for key, workload in self._workloads.items():
                for number, process in enumerate(workload.processes):
                    group.create_task(self._probe(key, workload, number, process))

    def _notice(self, change: Change) -> None:
        if change.kind.name in WORKLOADS and change.type != "DELETED":
            before = (change.old or {}).get("metadata", {}).get("generation")
            if before != change.item["metadata"].get("generation"):
                self._write(change.kind, change.key)
        if change.key in self._workloads or change.kind.name == "Service":
            self._write_pods()

    async def _probe(self, key: Key, workload: Workload, number: int, process: Process) -> None:
        kind, first, failed = self._api.kinds[key.resource], True, 0
        name = f"{workload.kind} {workload.namespace}/{workload.name}"
        while True:
            before = (key, number) in self._ready
            failed = 0 if await self._is_ready(process) else failed + 1
            ready = failed < FAILURES if before else failed == 0
            if first or ready != before:
                (self._ready.add if ready else self._ready.discard)((key, number))
                self._since[key, number] = self._now()
                self._write_pods()
                if self._write(kind, key):
                    pod = f", pod {_pod_name(workload.name, number)}" if workload.has_pods else ""
                    self._report(f"{name}{pod}: {_word(ready)}")
            first = False
            await asyncio.sleep(INTERVAL)

    async def _is_ready(self, process: Process) -> bool:
        try:
            async with asyncio.timeout(TIMEOUT):
                response = await self._client.get(process.readiness)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError):
            return False
        return 200 <= response.status_code < 400

    def _write_pods(self) -> None:
        """Write the processes with an address to the file of pods, and those that are pods into EndpointSlices."""
        items = []
        for key, workload in self._workloads.items():
            item = self._api.find(key)
            if item is None:
                continue
            running: list[Pod] = []
            for number, process in enumerate(workload.processes[: item["spec"].get("replicas", 1)]):
                if not process.address:
                    continue
                since = self._since.setdefault((key, number), self._now())
                ready = (key, number) in self._ready
                pod = make_pod(item, process.address, ready=ready, since=since, number=number)
                if workload.has_pods:
                    _move_port(pod, workload.processes[0].port, process.port)
                    running.append(Pod(pod["metadata"]["name"], process.address, process.port, ready))
                items.append(pod)
            if workload.has_pods:
                labels = (item["spec"]["template"].get("metadata") or {}).get("labels") or {}
                write_slices(self._api, key.namespace, labels, running)
        if self._pods is None:
            return
        text = yaml.render({"apiVersion": "v1", "kind": "List", "items": items})
        if text != self._written:
            partial = self._pods.with_name(f".{self._pods.name}.partial")
            partial.write_text(text, encoding="utf-8")
            partial.replace(self._pods)
            self._written = text

    def _ready_pods(self, key: Key) -> int:
        """Return the number of ready pods of a workload."""
        workload = self._workloads.get(key)
        if workload is None:
            return 0
        ready = sum((key, number) in self._ready for number in range(len(workload.processes)))
        return ready if workload.has_pods else ready * ALL

    def _write(self, kind: Kind, key: Key) -> bool:
        item = self._api.find(key)
        if item is None:
            return False
        before = item.get("status") or {}
        status = make_status(kind, item, ready=self._ready_pods(key), now=self._now())
        if equal(before, status):
            return False
        item["status"] = status
        self._api.update_status(item)
        return _ready_count(kind, before) != _ready_count(kind, status)


def make_pod(item: Object, address: str, *, ready: bool, since: datetime, number: int = 0) -> Object:
    """Return the pod that a process is, as the template of its workload says.

    Args:
        item: the workload.
        address: IP address of the process.
        ready: whether the process is ready.
        since: time since which it is, or is not.
        number: its number among the pods of the workload.
    """
    template, metadata = item["spec"]["template"], item["metadata"]
    moment = f"{since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": moment}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": _pod_name(metadata["name"], number),
            "namespace": metadata["namespace"],
            "labels": copy((template.get("metadata") or {}).get("labels") or {}),
        },
        "spec": copy(template["spec"]),
        "status": {"phase": "Running", "podIP": address, "conditions": [condition]},
    }


def _pod_name(workload: str, number: int) -> str:
    return f"{workload}-{number}"


def _move_port(pod: Object, before: int, after: int) -> None:
    """Let a pod declare the port of its process in place of the one that the template has for the first one."""
    for container in pod["spec"].get("containers") or ():
        for port in container.get("ports") or ():
            if port.get("containerPort") == before:
                port["containerPort"] = after


def make_status(kind: Kind, item: Object, *, ready: int, now: datetime) -> Object:
    """Return the status of a workload with this number of ready pods; it has no more than it should have."""
    wanted = 1 if kind.name == "DaemonSet" else item["spec"].get("replicas", 1)
    count = min(wanted, ready)
    generation = item["metadata"]["generation"]
    old = item.get("status") or {}
    if kind.name == "DaemonSet":
        status: Object = {
            "observedGeneration": generation,
            "currentNumberScheduled": wanted,
            "desiredNumberScheduled": wanted,
            "updatedNumberScheduled": wanted,
            "numberMisscheduled": 0,
            "numberReady": count,
        }
        optional = {"numberAvailable": count, "numberUnavailable": wanted - count}
        return status | {name: value for name, value in optional.items() if value}
    status = {"observedGeneration": generation, "replicas": wanted}
    if kind.name == "StatefulSet":
        revision = f"{item['metadata']['name']}-{generation}"
        status |= {"currentRevision": revision, "updateRevision": revision, "availableReplicas": count}
        status |= {"collisionCount": 0}
        optional = {"readyReplicas": count, "currentReplicas": wanted, "updatedReplicas": wanted}
        return status | {name: value for name, value in optional.items() if value}
    optional = {"readyReplicas": count, "availableReplicas": count}
    if kind.name == "ReplicaSet":
        status |= {"fullyLabeledReplicas": wanted}
        return status | {name: value for name, value in optional.items() if value}
    optional |= {"updatedReplicas": wanted, "unavailableReplicas": wanted - count}
    status |= {name: value for name, value in optional.items() if value}
    status = {name: value for name, value in status.items() if name != "replicas" or value}
    # A quarter of the pods may be missing, as where a Deployment says nothing else.
    status["conditions"] = _deployment_conditions(old, available=count >= wanted - wanted // 4, now=now)
    return status


def _deployment_conditions(old: Object, *, available: bool, now: datetime) -> list[Object]:
    before = {condition["type"]: condition for condition in old.get("conditions") or ()}
    words = {
        True: ("True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
        False: ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."),
    }
    progress = ("True", "NewReplicaSetAvailable", "ReplicaSet has successfully progressed.")
    return [
        _condition(before.get("Available"), "Available", words[available], now),
        _condition(before.get("Progressing"), "Progressing", progress, now),
    ]


def _condition(before: Object | None, type_: str, words: tuple[str, str, str], now: datetime) -> Object:
    status, reason, message = words
    if before is not None and (before["status"], before["reason"]) == (status, reason):
        return copy(before)
    moment = f"{now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    since = before["lastTransitionTime"] if before is not None and before["status"] == status else moment
    times = {"lastTransitionTime": since, "lastUpdateTime": moment}
    return {"type": type_, "status": status, "reason": reason, "message": message, **times}


def _ready_count(kind: Kind, status: Object) -> int:
    return int(status.get("numberReady" if kind.name == "DaemonSet" else "readyReplicas", 0))


def _key(api: ApiServer, workload: Workload) -> Key:
    kind = api.kind_named("apps/v1", workload.kind)
    return Key(kind.resource, workload.namespace, workload.name)


def _word(ready: bool) -> str:
    return "ready" if ready else "not ready"
