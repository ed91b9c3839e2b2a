"""What is compared of a scenario: objects at rest, effective writes and what the hook was shown, without values that
differ by chance.

A record consists of points of rest. `differences` returns one line for each path at which two records differ.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

Json = dict[str, Any]

NUDGE: Final = "example.com/nudge"
"""Annotation by which a scenario has its parent synced again."""

CHANCE: Final = ("resourceVersion", "creationTimestamp", "managedFields")
"""Fields of metadata that differ in every run; only a real API server keeps managedFields."""

NO_CONTROLLER: Final = ("uid", "generation", "annotations")
"""Metadata of the CompositeController that the stand-in, which reads it from a file, does not have."""

OTHERS_ANNOTATIONS: Final = (NUDGE, "deployment.kubernetes.io/revision")
"""Annotations that the scenario itself and the Deployment controller write."""

WORKLOADS: Final = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")
"""Kinds whose status other controllers write, on a control plane and in the stand-in alike."""

TURNING: Final = ("Synced", "Ready")
"""Types of conditions that may change for the moment between a child's write and its event. Metacontroller may then
send a parent that is older than its own last write of the status, and hooks keep the time from before."""

_PORT = re.compile(r"127\.0\.0\.1:\d+")


@dataclass
class Point:
    """One point of rest."""

    name: str
    parents: Json
    """All objects of the parent's kind, by name."""
    children: Json
    """Every other object, owned or not, by `Kind/name`, or by `Kind/namespace/name` outside the scenario's own
    namespace."""
    writes: dict[str, list[str]]
    """Effective writes of the controller since the point before, in order: create, update, delete by `Kind/name`; those
    of a status by `Kind/name/status`."""
    order: list[str]
    """The same writes one after another; compared where a record is `in_order`."""
    shown: Json
    """Hook, groups and their keys of the last sync or finalize request."""

    def wrote(self, line: str) -> None:
        """Add a write, such as `create ConfigMap/one`."""
        verb, _, name = line.partition(" ")
        self.order.append(line)
        self.writes.setdefault(name, []).append(verb)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request to a hook and the response to it."""

    target: str
    now: str
    """Time of the hooks' clock."""
    request: Json
    status: int
    answer: Json


@dataclass
class Record:
    """One run of a scenario."""

    points: list[Point] = field(default_factory=list)
    notes: Json = field(default_factory=dict)
    """Facts that the scenario itself recorded."""
    exchanges: list[Exchange] = field(default_factory=list)
    """Requests to the product's hooks with their responses, each once."""
    uncounted: list[str] = field(default_factory=list)
    """Objects whose number of writes depends on chance."""
    in_order: bool = False
    """Whether the order of writes to different objects counts."""

    def as_json(self) -> Json:
        """Return the content of the record's file: each point has only the sections that differ from the point
        before."""
        before: Json = {}
        points = []
        for point in self.points:
            sections = {"parents": point.parents, "children": point.children, "shown": point.shown}
            changed = {name: value for name, value in sections.items() if before.get(name) != value}
            writes = {key: verbs for key, verbs in point.writes.items() if key not in self.uncounted}
            order = {"order": point.order} if self.in_order else {}
            points.append({"name": point.name, "writes": writes, **order, **changed})
            before = sections
        exchanges = {"exchanges": [asdict(exchange) for exchange in self.exchanges]} if self.exchanges else {}
        return {"points": points, "notes": self.notes, **exchanges}

    @classmethod
    def from_json(cls, content: Json) -> "Record":
        """Return the record from which `as_json` made the content."""
        in_order = any("order" in point for point in content["points"])
        exchanges = [Exchange(**exchange) for exchange in content.get("exchanges", ())]
        record = cls(notes=content["notes"], exchanges=exchanges, in_order=in_order)
        before: Json = {}
        for point in content["points"]:
            before |= {name: point[name] for name in ("parents", "children", "shown") if name in point}
            before["parents"] = {name: _steady(parent) for name, parent in before["parents"].items()}
            record.points.append(
                Point(name=point["name"], writes=point["writes"], order=point.get("order", []), **before)
            )
        return record


class Names:
    """Names for uids, each of which tells which object it was and how many had its key before."""

    def __init__(self) -> None:
        self._tokens: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def see(self, key: str, item: Json) -> None:
        """Remember the uid of an object."""
        uid = item["metadata"]["uid"]
        if uid not in self._tokens:
            self._counts[key] = self._counts.get(key, 0) + 1
            self._tokens[uid] = f"uid-of-{key}-{self._counts[key]}"

    def replace(self, value: Any) -> Any:
        """Return the value with names in place of uids, and without ports."""
        text = json.dumps(value)
        for uid, token in self._tokens.items():
            text = text.replace(uid, token)
        return json.loads(_PORT.sub("127.0.0.1:0", text))


def stripped(item: Json) -> Json:
    """Return an object without the fields that differ in every run or that other controllers write."""
    result = json.loads(json.dumps(item))
    metadata = result["metadata"]
    for name in CHANCE:
        metadata.pop(name, None)
    if "deletionTimestamp" in metadata:
        metadata["deletionTimestamp"] = "<time>"
    annotations = metadata.get("annotations", {})
    for name in OTHERS_ANNOTATIONS:
        annotations.pop(name, None)
    if not annotations:
        metadata.pop("annotations", None)
    if result["kind"] in WORKLOADS:
        result.pop("status", None)
    if result["kind"] == "Service":
        spec = result["spec"]
        if spec.get("clusterIP") not in (None, "None"):
            spec["clusterIP"], spec["clusterIPs"] = "<address>", ["<address>" for _ in spec["clusterIPs"]]
    return dict(result)


def _steady(parent: Json) -> Json:
    """Return a parent without the times of TURNING conditions."""
    status = parent.get("status", {})
    if "conditions" not in status:
        return parent
    conditions = [
        {name: value for name, value in each.items() if name != "lastTransitionTime" or each.get("type") not in TURNING}
        for each in status["conditions"]
    ]
    return {**parent, "status": {**status, "conditions": conditions}}


def shown(path: str, request: Json) -> Json:
    """Return the keys of the objects in a sync or finalize request."""
    groups = {name: {kind: sorted(items) for kind, items in request[name].items()} for name in ("children", "related")}
    return {"hook": path, "finalizing": request["finalizing"], **groups}


def request_without_chance(request: Json) -> Json:
    """Return a whole hook request without the values that differ between any two runs."""
    result = {**request, "parent": stripped(request["parent"]), "controller": stripped(request["controller"])}
    for name in NO_CONTROLLER:
        result["controller"]["metadata"].pop(name, None)
    for group in ("children", "related"):
        if group in result:
            result[group] = {
                kind: {name: stripped(item) for name, item in items.items()} for kind, items in result[group].items()
            }
    return result


def differences(one: Record, other: Record, names: tuple[str, str]) -> list[str]:
    """Return a line for each path that differs: `made: children.ConfigMap/a.data.x: real 1, stand-in 2`."""
    first, second = names
    one, other = Record.from_json(one.as_json()), Record.from_json(other.as_json())
    lines = [*compare("notes", one.notes, other.notes, first, second)]
    steps = [point.name for point in one.points], [point.name for point in other.points]
    if steps[0] != steps[1]:
        return [*lines, f"points: {first} {steps[0]}, {second} {steps[1]}"]
    for left, right in zip(one.points, other.points, strict=True):
        for section in ("parents", "children", "writes", "shown", *(("order",) if one.in_order else ())):
            values = getattr(left, section), getattr(right, section)
            lines += [f"{left.name}: {line}" for line in compare(section, *values, first, second)]
    return lines


def expect_same(one: Record, other: Record, names: tuple[str, str]) -> None:
    """Raise AssertionError with a line for each difference between two records."""
    lines = differences(one, other, names)
    assert not lines, "\n".join(("", *lines))


def compare(path: str, one: Any, other: Any, first: str, second: str) -> Iterator[str]:
    """Yield a line for each path at which two decoded values differ; `first` and `second` name their sources."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other}):
            absent = object()
            left, right = one.get(key, absent), other.get(key, absent)
            if left is absent or right is absent:
                shown_left, shown_right = ("absent" if each is absent else _text(each) for each in (left, right))
                yield f"{path}.{key}: {first} {shown_left}, {second} {shown_right}"
            else:
                yield from compare(f"{path}.{key}", left, right, first, second)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from compare(f"{path}[{index}]", left, right, first, second)
    elif type(one) is not type(other) or one != other:
        yield f"{path}: {first} {_text(one)}, {second} {_text(other)}"


def _text(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 1000 else f"{text[:997]}..."
