"""Drills on a real control plane with the real Metacontroller: a remote backend that is not there, and then is."""

import json
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import pytest

from tests.deadlines import SECONDS
from tests.e2e import controlplane
from tests.e2e.product import Product, missing, model_deployment, workload
from tests.e2e.test_endpoints import rbac, server
from tests.processes import poll, status
from tools.ports import free_port
from tools.repository import ROOT

NAME: Final = "lonely"
ACCOUNT: Final = "pods-gateway"


class Drilled(Product):
    """The product with a gateway as a process, whose drills hooks ask for."""

    def __init__(self, plane: controlplane.ControlPlane) -> None:
        self.port_of_gateway, admin = free_port(), free_port()
        super().__init__(plane, gateways=f"127.0.0.1:{admin}")
        self.remote = free_port()
        """Port of the remote backend, where nothing listens at first."""

    def start(self) -> None:
        """Start hooks, Metacontroller and the gateway."""
        super().start()
        self.plane.apply(*rbac())
        config = self.plane.folder / "gateway.yaml"
        config.write_text("namespaces: default\ngateway: {lameDuckSeconds: 0, allowedAddresses: [127.0.0.0/8]}\n")
        self.plane.run(
            "gateway",
            *(sys.executable, "-m", "gateway", "--config", str(config)),
            *("--kubeconfig", str(self.plane.service_account("default", ACCOUNT))),
            *("--listen", f"127.0.0.1:{self.port_of_gateway}", "--admin", self.gateways),
            environment=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        poll(lambda: status(f"http://{self.gateways}/readyz") == 200, "the gateway is ready")

    def condition(self, kind: str) -> dict[str, Any]:
        """Return a condition of the model."""
        listed = self.parent(NAME).get("status", {}).get("conditions", ())
        return next((dict(one) for one in listed if one["type"] == kind), {})

    def ask(self) -> int:
        """Return the status of the response to a request for the model, one that counts as a drill if it succeeds."""
        url = f"http://127.0.0.1:{self.port_of_gateway}/default/{NAME}/v1/chat/completions"
        return httpx.post(url, json={"model": NAME}, timeout=SECONDS, trust_env=False).status_code

    def record(self) -> dict[str, Any]:
        """Return the record of the last drill by hand."""
        return dict(self.parent(NAME)["status"]["offloading"].get("drill", {}))


@pytest.fixture(scope="module")
def drilled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drilled]:
    """The product on a control plane of its own, with a model whose replicas are 0 and whose remote is not there."""
    if reason := missing():
        pytest.skip(reason)
    with controlplane.running(tmp_path_factory.mktemp("drills")) as plane:
        product = Drilled(plane)
        product.start()
        remote = {"host": f"127.0.0.1:{product.remote}", "scheme": "http"}
        plane.apply(workload(NAME, 0), model_deployment(NAME, offloadingConfig={"remoteBackend": remote}))
        yield product


def test_a_remote_backend_from_unreachable_to_a_drill_by_hand(drilled: Drilled) -> None:
    """Without a local replica an unreachable remote backend makes the model not ready, in words that name it; when it
    is there, `kubectl wait` sees it; and an override of mode Drill is recorded with its outcome."""
    plane, model = drilled.plane, f"modeldeployment/{NAME}"
    plane.kubectl("wait", "--for=condition=OffloadReady=False", "--timeout=120s", model)
    poll(lambda: drilled.condition("Ready").get("reason") == "RemoteFails", "three drills have failed")
    proof, ready = drilled.condition("OffloadReady"), drilled.condition("Ready")
    assert (proof["status"], proof["reason"], ready["status"]) == ("False", "ConnectFailed", "False")
    assert f"127.0.0.1:{drilled.remote}" in proof["message"]
    assert ready["message"].startswith("No request can be served locally, and the remote backend fails. ")
    assert proof["message"] in ready["message"]
    assert drilled.ask() == 502
    assert drilled.remote_weight(NAME) == 100
    header, row = plane.kubectl("get", "modeldeployment", NAME).splitlines()
    assert dict(zip(header.split(), row.split(), strict=False))["OFFLOADREADY"] == "False"

    with server(drilled.remote):
        plane.kubectl("wait", "--for=condition=OffloadReady", "--timeout=240s", model)
        plane.kubectl("wait", "--for=condition=Ready", "--timeout=120s", model)
        assert drilled.ask() == 200

        plane.kubectl("scale", "deployment", NAME, "--replicas=1")
        drilled.until(NAME, LocalReady="True", Synced="True")
        until = (datetime.now(UTC) + timedelta(seconds=45)).isoformat(timespec="seconds")
        override = {"percentage": 100, "until": until, "mode": "Drill"}
        patch = {"spec": {"offloadingConfig": {"behavior": {"override": override}}}}
        plane.kubectl("patch", model, "--type=merge", "-p", json.dumps(patch))
        poll(lambda: drilled.record().get("outcome") == "Running", "it has begun")
        poll(lambda: drilled.remote_weight(NAME) == 100 and drilled.ask() == 200, "it is tried")
        poll(lambda: drilled.record()["outcome"] != "Running", "it has ended")
        assert drilled.record()["outcome"] == "Passed"
        poll(lambda: drilled.remote_weight(NAME) == 0, "requests are back")
