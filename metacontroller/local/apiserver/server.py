"""An API server for one directory: it admits, stores, counts and notifies watchers as controllers expect it.

Writes are synchronous and happen on the event loop's thread: an object is one small file, and no reader sees a
half-done change. A write that changes nothing is no write: it makes no resourceVersion and no event.
"""

import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from metacontroller.local import errors
from metacontroller.local.apiserver import builtin, cel, schema, selectors
from metacontroller.local.apiserver.objects import Key, Kind, Object, controller_of, copy, equal, key_of
from metacontroller.local.apiserver.store import Record, Store

MAX_ANNOTATIONS = 256 * 1024
"""Bytes of all annotation names and values of one object (apimachinery TotalAnnotationSizeLimitB)."""

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Change:
    """A change, as watchers are notified of it."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    kind: Kind
    key: Key
    item: Object
    old: Object | None = None


Watcher = Callable[[Change], None]


class ApiServer:
    """An API server for objects of known kinds, which are in memory and in a Store."""

    def __init__(
        self,
        store: Store,
        kinds: Iterable[Kind],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        make_uid: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        """Load the stored objects. Replace `now` and `make_uid` to make a run repeatable."""
        self.kinds = {kind.resource: kind for kind in kinds}
        self._by_name = {(kind.api_version, kind.name): kind for kind in self.kinds.values()}
        self._store, self._now, self._make_uid = store, now, make_uid
        self._watchers: list[Watcher] = []
        self.writes: Counter[Key] = Counter()
        """Number of effective writes per object: those that gave it a new resourceVersion or removed it."""
        self._records = {key: record for key, record in store.load() if key.resource in self.kinds}
        highest = (int(record.item["metadata"]["resourceVersion"]) for record in self._records.values())
        store.raise_revision(max(highest, default=0))

    # Reading

    def kind_named(self, api_version: object, name: object) -> Kind:
        """Return the kind of an object; raise errors.Invalid where it is not installed."""
        kind = self._by_name.get((str(api_version), str(name)))
        if kind is None:
            known = ", ".join(sorted(item.name for item in self.kinds.values()))
            raise errors.Invalid(f"there is no kind {name} in {api_version} on this machine; there are {known}")
        return kind

    def resource(self, api_version: str, plural: str) -> Kind | None:
        """Return the kind for `apiVersion` and `resource` of a rule, or None."""
        kinds = self.kinds.values()
        return next((kind for kind in kinds if (kind.api_version, kind.plural) == (api_version, plural)), None)

    def find(self, key: Key) -> Object | None:
        """Return a copy of the object, or None."""
        record = self._records.get(key)
        return None if record is None else copy(record.item)

    def origin(self, key: Key) -> str | None:
        """Return the manifest of an object, or None for an object that a controller made."""
        record = self._records.get(key)
        return record.origin if record else None

    def all_of(self, kind: Kind, namespace: str | None = None) -> Iterator[tuple[Key, Object]]:
        """Return copies of all objects of a kind, ordered by key."""
        for key in sorted(self._records):
            if key.resource == kind.resource and namespace in (None, key.namespace):
                yield key, copy(self._records[key].item)

    def all_keys(self) -> tuple[Key, ...]:
        """Return the keys of all objects."""
        return tuple(sorted(self._records))

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` after every change."""
        self._watchers.append(watcher)

    # Writing

    def create(self, item: Object, *, origin: str | None = None) -> Object:
        """Store a new object; raise errors.AlreadyExists or errors.Invalid."""
        kind = self.kind_named(item.get("apiVersion"), item.get("kind"))
        admitted = self._admit(kind, item, None)
        key = key_of(kind, admitted)
        if key in self._records:
            raise errors.AlreadyExists(f"{key} is there already")
        metadata = admitted["metadata"]
        if metadata.get("resourceVersion"):
            raise errors.Invalid("metadata.resourceVersion must be absent of an object to be created")
        for name in ("deletionTimestamp", "deletionGracePeriodSeconds"):
            metadata.pop(name, None)
        metadata["uid"], metadata["creationTimestamp"] = self._make_uid(), self._time()
        if kind.generation:
            metadata["generation"] = 1
        self._put(kind, key, admitted, origin, None)
        if metadata.get("ownerReferences"):
            self._collect([key])
        return copy(admitted)

    def update(self, item: Object, *, origin: str | None = None) -> Object:
        """Replace all but the status of an object (a PUT). Raises errors.NotFound, Conflict or Invalid.

        A resourceVersion or uid in the metadata must be the stored one.
        """
        kind = self.kind_named(item.get("apiVersion"), item.get("kind"))
        key, old = self._current(kind, item)
        admitted = self._admit(kind, item, old)
        if kind.status:
            admitted.pop("status", None)
            if "status" in old:
                admitted["status"] = copy(old["status"])
        metadata, before = admitted["metadata"], old["metadata"]
        for name in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
            metadata.pop(name, None)
            if name in before:
                metadata[name] = before[name]
        if kind.generation and not equal(_content(admitted), _content(old)):
            metadata["generation"] = before.get("generation", 0) + 1
        if "deletionTimestamp" in metadata and not metadata.get("finalizers"):
            self._remove(kind, key)
            return copy(admitted)
        kept = origin if origin is not None else self.origin(key)
        self._put(kind, key, admitted, kept, old)
        if metadata.get("ownerReferences"):
            self._collect([key])
        return copy(admitted)

    def update_status(self, item: Object) -> Object:
        """Replace the status of an object and nothing else. Raises errors.NotFound, Conflict or Invalid."""
        kind = self.kind_named(item.get("apiVersion"), item.get("kind"))
        key, old = self._current(kind, item)
        admitted = copy(old)
        admitted.pop("status", None)
        if item.get("status") is not None:
            admitted["status"] = copy(item["status"])
        if kind.schema is not None:
            admitted = _custom(kind.schema, admitted, old)
        self._put(kind, key, admitted, self.origin(key), old)
        return copy(admitted)

    def delete(self, key: Key, *, uid: str | None = None) -> None:
        """Delete an object in the background: with finalizers it is marked, otherwise it is removed with all objects
        that it alone owns.

        Raises errors.NotFound, or errors.Conflict when the uid is another one.
        """
        record = self._records.get(key)
        if record is None:
            raise errors.NotFound(f"{key} is not there")
        kind, metadata = self.kinds[key.resource], record.item["metadata"]
        if uid is not None and metadata["uid"] != uid:
            raise errors.Conflict(f"{key} is another object of the same name by now")
        if not metadata.get("finalizers"):
            self._remove(kind, key)
        elif "deletionTimestamp" not in metadata:
            marked = copy(record.item)
            marked["metadata"] |= {"deletionTimestamp": self._time(), "deletionGracePeriodSeconds": 0}
            if kind.generation:
                marked["metadata"]["generation"] += 1
            self._put(kind, key, marked, record.origin, record.item)

    def collect_garbage(self) -> None:
        """Delete objects that are owned only by objects that no longer exist."""
        self._collect(list(self._records))

    def _collect(self, keys: Iterable[Key]) -> None:
        namespaces = {record.item["metadata"]["uid"]: key.namespace for key, record in self._records.items()}
        for key in keys:
            owners = self._records[key].item["metadata"].get("ownerReferences") if key in self._records else None
            # An owner in another namespace is no owner.
            if owners and not any(namespaces.get(each.get("uid")) in ("", key.namespace) for each in owners):
                self.delete(key)

    def unknown_fields(self, item: Object) -> list[str]:
        """Return the fields that pruning would drop, for a warning."""
        kind = self._by_name.get((str(item.get("apiVersion")), str(item.get("kind"))))
        if kind is None or kind.schema is None:
            return []
        return schema.prune(_whole(kind.schema), item)[1]

    # One write, step by step

    def _current(self, kind: Kind, item: Object) -> tuple[Key, Object]:
        key = key_of(kind, item)
        record = self._records.get(key)
        if record is None:
            raise errors.NotFound(f"{key} is not there")
        for field in ("uid", "resourceVersion"):
            wanted = item["metadata"].get(field)
            if wanted not in (None, "", record.item["metadata"][field]):
                raise errors.Conflict(f"{key} has changed since it was read: {field} is no longer {wanted}")
        return key, record.item

    def _admit(self, kind: Kind, item: Object, old: Object | None) -> Object:
        """Return the object in stored form; raise errors.Invalid where it is invalid."""
        admitted = copy(item)
        metadata = admitted.get("metadata")
        if not isinstance(metadata, dict):
            raise errors.Invalid("metadata must be an object")
        _refuse(_metadata_problems(kind, metadata))
        for name in ("labels", "annotations", "ownerReferences", "finalizers"):
            if not metadata.get(name):
                metadata.pop(name, None)
        for name in ("managedFields", "selfLink"):
            metadata.pop(name, None)
        if kind.schema is None:
            return self._admit_builtin(kind, admitted, old)
        if kind.status:
            admitted.pop("status", None)
            if old is not None and "status" in old:
                admitted["status"] = copy(old["status"])
        return _custom(kind.schema, admitted, old)

    def _admit_builtin(self, kind: Kind, item: Object, old: Object | None) -> Object:
        if kind.status:
            item.pop("status", None)
        try:
            admitted = builtin.stored(kind, item)
            _refuse(builtin.problems(kind, admitted))
            if kind.name == "Service":
                builtin.allocate(admitted, old, self._address_is_taken)
            if kind.name == "DaemonSet":
                builtin.count_templates(admitted, old)
            if old is not None:
                _refuse(builtin.immutable(kind, admitted, old))
        except (AttributeError, TypeError, KeyError) as exc:
            # Our view of built-in kinds is not a schema: a map where a list belongs ends here.
            raise errors.Invalid(f"the {kind.name} has a map, a list or a value where another of them belongs") from exc
        return admitted

    def _address_is_taken(self, address: str) -> bool:
        records = self._records.items()
        return any(
            key.resource == "services" and record.item["spec"].get("clusterIP") == address for key, record in records
        )

    def _put(self, kind: Kind, key: Key, item: Object, origin: str | None, old: Object | None) -> None:
        if old is not None:
            item["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
            if equal(item, old) and origin == self._records[key].origin:
                return
        item["metadata"]["resourceVersion"] = str(self._store.next_revision())
        self._store.save(key, Record(item, origin))
        self._records[key] = Record(item, origin)
        self.writes[key] += 1
        self._tell(Change("ADDED" if old is None else "MODIFIED", kind, key, item, old))

    def _remove(self, kind: Kind, key: Key) -> None:
        self._store.remove(key)
        item = self._records.pop(key).item
        self.writes[key] += 1
        self._tell(Change("DELETED", kind, key, item))
        self.collect_garbage()

    def _tell(self, change: Change) -> None:
        for watcher in self._watchers:
            watcher(change)

    def _time(self) -> str:
        return f"{self._now().astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _custom(declared: Object, item: Object, old: Object | None) -> Object:
    """Return a custom resource pruned, defaulted and validated; raise errors.Invalid where it is invalid."""
    whole = _whole(declared)
    pruned, _ = schema.prune(whole, item)
    admitted: Object = _stored(schema.default(whole, pruned))
    _refuse(schema.problems(whole, admitted))
    _refuse(cel.problems(whole, admitted, old))
    return admitted


def _stored(value: Any) -> Any:
    """Return the value as a server decodes it that prints 1.0 as 1."""
    if isinstance(value, dict):
        return {name: _stored(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_stored(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _content(item: Object) -> Object:
    """Return the fields whose changes `metadata.generation` counts."""
    return {name: value for name, value in item.items() if name not in {"metadata", "status"}}


def _whole(declared: Object) -> Object:
    """Return a CRD's schema with what the API server adds: apiVersion, kind, and metadata that is not pruned."""
    known: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    properties = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, **declared.get("properties", {})}
    return {**declared, "properties": {**properties, "metadata": known}}


def _metadata_problems(kind: Kind, metadata: Object) -> Iterator[str]:
    name, namespace = metadata.get("name"), metadata.get("namespace")
    if not isinstance(name, str) or len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        yield f"metadata.name must be a DNS name of lower-case letters, digits, '-' and '.', not {name!r}"
    if kind.namespaced and (not isinstance(namespace, str) or not _LABEL.fullmatch(namespace)):
        yield f"metadata.namespace must be a DNS label of at most 63 characters, not {namespace!r}"
    for field in ("labels", "annotations"):
        values = metadata.get(field) or {}
        if not isinstance(values, dict):
            yield f"metadata.{field} must be a map of strings"
            return
        for label, value in values.items():
            if not isinstance(value, str):
                yield f"metadata.{field}[{label}] must be a string: put {value!r} in quotes"
            elif field == "labels" and not selectors.VALUE.fullmatch(value):
                yield f"metadata.labels[{label}] must be at most 63 letters, digits, '-', '_' or '.', not {value!r}"
    annotations = metadata.get("annotations") or {}
    size = sum(len(key.encode()) + len(str(value).encode()) for key, value in annotations.items())
    if size > MAX_ANNOTATIONS:
        yield f"metadata.annotations must have at most {MAX_ANNOTATIONS} bytes, not {size}"
    owners = metadata.get("ownerReferences") or ()
    if sum(1 for owner in owners if owner.get("controller")) > 1:
        yield "metadata.ownerReferences must name at most one controller"


def _refuse(problems: Iterable[str]) -> None:
    found = list(problems)
    if found:
        raise errors.Invalid("; ".join(found))


def owned_by(item: Object, uid: str) -> bool:
    """Return whether the object with this uid is the controller of the object."""
    owner = controller_of(item)
    return owner is not None and owner.get("uid") == uid
