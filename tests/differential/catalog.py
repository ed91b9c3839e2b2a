"""All scenarios by which Metacontroller and the stand-in are compared, and what cannot be compared."""

from typing import Final

from tests.differential.products import PRODUCTS
from tests.differential.scenarios import (
    children,
    deletion,
    labels,
    merging,
    methods,
    related,
    request,
    responses,
    status,
    stored,
)
from tests.differential.scenarios.registry import SCENARIOS, Scenario

_MODULES: Final = (request, children, labels, merging, stored, methods, responses, status, related, deletion)
ALL: Final[dict[str, Scenario]] = SCENARIOS | PRODUCTS
"""Scenarios with a scripted hook, and with the product's hooks."""

NOT_COMPARED: Final = {
    "`children: [null]`, `relatedResources: [null]`": "the real one exits on them, and again after each restart",
    "the order of children of one kind": "the real one walks a map of Go, whose order is random",
    "the number of hook requests": "events that come close together are one sync or several",
    "resourceVersions, uids, times, cluster IPs, managedFields": "chance",
    "the texts of errors": "the stand-in's name what to do; the real ones go into Events",
    "the status of workloads": "their own controllers write it, in the stand-in a kubelet of sorts",
    "long backoffs, the customize cache's 20 minutes, the informers' 30": "time",
    "unknown fields below the spec of built-in kinds": "the API server drops them; the stand-in has no schema of them",
    "a child kind with two served versions": "the stand-in has the stored version of a CRD alone",
    "cluster-scoped parents, children, related objects": "the stand-in has namespaced kinds alone",
    "labels of namespaces": "the stand-in has no Namespaces; each has its name as its one label",
    "rolling updates, ETag, server-side apply, authorization and TLS of webhooks": "the stand-in has none of them",
    "foreground and orphan deletion": "the stand-in deletes in the background alone",
    "customize requests for parents that are not selected": "related objects' events bring them, they change nothing",
    "responses that never come to rest": "they write as long as one lets them; the loop detector has a test of its own",
    "updates of Secrets": "the audit log must not hold them, and so cannot tell whether they changed something",
}
"""What is not compared, with the reason for each."""
