"""The audit log of an API server: its policy, and how it is read."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

WRITES: Final = ["create", "update", "patch", "delete", "deletecollection"]
POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "omitManagedFields": True,
    "rules": [
        {"level": "None", "resources": [{"group": "", "resources": ["events"]},
                                        {"group": "events.k8s.io", "resources": ["events"]},
                                        {"group": "coordination.k8s.io", "resources": ["leases"]}]},
        # Without their content: a record must never hold a Secret.
        {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets", "serviceaccounts/token"]}]},
        {"level": "RequestResponse", "verbs": WRITES},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"], "omitStages": ["ResponseStarted"]},
    ],
}  # fmt: skip


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield every request in an audit log: time, user, verb, resource, namespace, name, code, and `effective`: whether
    it was a write that changed something. A PUT of the stored object keeps the resourceVersion; so does one that
    removes the last finalizer of an object that is being deleted, and with it the object."""
    versions: dict[tuple[str, str, str], str] = {}
    with path.open() as lines:
        for line in lines:
            if not line.endswith("\n"):
                return  # this line is being written
            event = json.loads(line)
            reference = event.get("objectRef", {})
            metadata = event.get("responseObject", {}).get("metadata", {})
            code = event.get("responseStatus", {}).get("code", 0)
            place = reference.get("resource", ""), reference.get("namespace", ""), reference.get("name", "")
            if not place[2]:
                place = *place[:2], metadata.get("name", "")
            effective = event["verb"] in WRITES and code < 300
            if effective and event["verb"] in ("update", "patch"):
                gone = "deletionTimestamp" in metadata and not metadata.get("finalizers")
                effective = gone or versions.get(place) != metadata.get("resourceVersion")
            if event["verb"] in WRITES and "resourceVersion" in metadata:
                versions[place] = metadata["resourceVersion"]
            yield {
                "time": event["stageTimestamp"],
                "user": event["user"]["username"],
                "verb": event["verb"],
                "resource": "/".join(filter(None, (place[0], reference.get("subresource")))),
                "namespace": place[1],
                "name": place[2],
                "code": code,
                "effective": effective,
            }
