"""Failures in a cluster and their effect: hooks, Metacontroller, the API server and single pods fail under load."""

import base64
import json
import signal
import time
from typing import Any

import pytest

from tests.e2e.installation import METACONTROLLER, NAMESPACE, RELEASE, Installation
from tests.e2e.network import Fault
from tests.e2e.product import missing, set_pods_ready, workload
from tests.e2e.traffic import Traffic
from tests.processes import poll

pytestmark = pytest.mark.own_plane

MODEL = "demo"
PATH = f"/default/{MODEL}"
MINUTE = 60.0
TIMEOUT = 10.0
"""Seconds after which Metacontroller gives a sync up, from the CompositeController."""
RECOVERY = 180.0
"""Seconds within which a failed sync is tried again: the resync period and more, as the pauses between tries grow."""


@pytest.fixture(scope="module")
def served(installation: Installation) -> Installation:
    """A model with a remote backend, ready, and known to both gateways. Skipped by name without Metacontroller."""
    if reason := missing():
        pytest.skip(reason)
    source = {"apiVersion": "apps/v1", "kind": "Deployment", "name": MODEL, "namespace": "default"}
    model = {
        "apiVersion": "deployment.beamlit.com/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": MODEL},
        "spec": {
            "model": "tiny-remote",
            "modelSourceRef": source,
            "offloadingConfig": {},
            "gateway": {"localModel": "tiny-local"},
        },
    }
    installation.plane.apply(workload(MODEL), model)
    installation.until(MODEL, Ready="True", LocalReady="True", Synced="True")
    poll(lambda: installation.ask(installation.gateway(PATH)).backend == "local", "it is served")
    return installation


def written(served: Installation) -> list[dict[str, Any]]:
    """Return the effective writes of Metacontroller so far. Events are not in the log."""
    user = f"system:serviceaccount:{NAMESPACE}:{METACONTROLLER}"
    return [entry for entry in served.plane.audit() if entry["user"] == user and entry["effective"]]


def load(served: Installation) -> Traffic:
    """Return clients of one gateway pod, whose address needs no API server."""
    port = served.pods("-gateway")[0].port("http")
    return Traffic(lambda: ("127.0.0.1", port), PATH)


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [(Fault.REFUSED, MINUTE), (Fault.SILENT, 2.5 * TIMEOUT), (Fault.ERROR, 15.0)],
    ids=["down for a minute", "slow", "responding with 500"],
)
def test_hooks_fail(served: Installation, fault: Fault, seconds: float) -> None:
    """While hooks fail, nothing changes in the cluster and requests are served as before; then syncs go on by
    themselves."""
    secret = served.plane.get("secret", f"{RELEASE}-hooks-tls", NAMESPACE)["data"]
    files = [served.plane.folder / name for name in ("tls.crt", "tls.key")]
    for path in files:
        path.write_bytes(base64.b64decode(secret[path.name]))
    served.proxy.certificate = str(files[0]), str(files[1])
    versions, before, errors = served.versions(MODEL), len(written(served)), _errors(served)
    served.proxy.fault = fault
    try:
        with load(served) as traffic:
            began = time.monotonic()
            set_pods_ready(served.plane, f"app={MODEL}", False)
            poll(lambda: _errors(served) > errors, "Metacontroller has noticed")
            poll(lambda: time.monotonic() - began >= seconds, "the fault has lasted", seconds=seconds + 1)
            assert written(served)[before:] == []
            assert served.versions(MODEL) == versions
    finally:
        served.proxy.fault = Fault.NONE
    assert (traffic.failures, set(traffic.responses)) == ([], {(200, "local")})
    poll(lambda: served.remote_weight(MODEL) == 100, "it goes on by itself", seconds=RECOVERY)
    set_pods_ready(served.plane, f"app={MODEL}", True)
    served.until(MODEL, Ready="True", LocalReady="True", Synced="True")


def _errors(served: Installation) -> int:
    """Return the number of errors that Metacontroller has reported about the model so far."""
    listed = served.plane.kubectl("get", "events", "-o", "json", "--field-selector", f"involvedObject.name={MODEL}")
    events = json.loads(listed)["items"]
    return sum(int(event.get("count") or 1) for event in events if event["reason"] == "SyncError")


def test_one_of_two_hooks_dies(served: Installation) -> None:
    """After one hooks pod is killed, the other one makes the split follow readiness."""
    hooks = served.pods("-hooks")
    assert len(hooks) == 2
    hooks[0].process.stop(signal.SIGKILL)
    try:
        for ready, percentage in ((False, 100), (True, 0)):
            set_pods_ready(served.plane, f"app={MODEL}", ready)
            poll(lambda percentage=percentage: served.remote_weight(MODEL) == percentage, f"{percentage} %")  # type: ignore[misc]
    finally:
        hooks[0].process.start()
        hooks[0].until_ready()
    served.until(MODEL, Ready="True", LocalReady="True", Synced="True")


def test_metacontroller_restarted_writes_nothing(served: Installation) -> None:
    """A restarted Metacontroller syncs everything without a write."""
    served.until(MODEL, Ready="True", LocalReady="True", Synced="True")
    versions = served.versions(MODEL)
    (pod,) = served.pods("-metacontroller")
    pod.process.stop()
    before, syncs = len(written(served)), served.syncs()
    pod.process.start()
    poll(lambda: served.syncs() >= syncs + 1, "it syncs again")
    served.until(MODEL, Ready="True", Synced="True")
    assert served.versions(MODEL) == versions
    assert written(served)[before:] == []


def test_the_api_server_restarted_under_load(served: Installation) -> None:
    """While the API server is killed and restarted no request fails and gateways stay ready, and later changes reach
    them."""
    gateways, server = served.pods("-gateway"), served.plane.processes["kube-apiserver"]
    with load(served) as traffic:
        server.stop(signal.SIGKILL)
        poll(lambda: all(served.routes(pod)["sourceErrors"] for pod in gateways), "the gateways say so")
        poll(lambda: all(served.routes(pod)["ageSeconds"] > 2 for pod in gateways), "the age of the table grows")
        assert all(pod.ready for pod in gateways)
        server.start()
        poll(served.plane.ready, "the API server is back")
        poll(lambda: not any(served.routes(pod)["sourceErrors"] for pod in gateways), "the gateways follow it again")
    assert (traffic.failures, set(traffic.responses)) == ([], {(200, "local")})
    assert traffic.count > 40
    for ready, backend in ((False, "remote"), (True, "local")):
        set_pods_ready(served.plane, f"app={MODEL}", ready)
        poll(lambda backend=backend: served.ask(served.gateway(PATH)).backend == backend, f"it is {backend}")  # type: ignore[misc]
    served.until(MODEL, Ready="True", LocalReady="True", Synced="True")


def test_a_gateway_starts_while_the_api_server_is_away(served: Installation) -> None:
    """A gateway without an API server is not ready and logs the reason once, and it serves by itself once the API
    server is back."""
    pod, server = served.pods("-gateway")[1], served.plane.processes["kube-apiserver"]
    pod.process.stop()
    log_start = len(pod.process.log.read_text())
    server.stop(signal.SIGKILL)
    try:
        pod.process.start()
        poll(lambda: pod.probe("readiness") == 503, "it is not ready")
        poll(lambda: "routes_cannot_be_read" in pod.process.log.read_text()[log_start:], "it says why")
        assert pod.probe("liveness") == 200
    finally:
        server.start()
    poll(served.plane.ready, "the API server is back")
    pod.until_ready()
    assert pod.process.log.read_text()[log_start:].count("routes_cannot_be_read") == 1
    poll(lambda: served.routes(pod)["routes"], "it has the routes")
