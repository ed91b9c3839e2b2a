"""The limits between namespaces, and of each program: a namespace cannot act on another one, and no program may do more
than it needs."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from gateway.api.v1alpha1 import CREDENTIAL_LABEL, KEY, LABEL, LABEL_VALUE
from tests.e2e.controlplane import CommandFailed
from tests.e2e.installation import GATEWAY, METACONTROLLER, NAMESPACE, RELEASE, Installation
from tests.e2e.product import missing, model_deployment, workload
from tests.e2e.witness import Witness
from tests.processes import poll

pytestmark = pytest.mark.own_plane

OURS, THEIRS = "team-b", "team-a"
"""Namespace that attacks, and namespace that it attacks."""
CANARY = "canary-7f3a"
"""Text in every secret value of this module, and in every token that they buy."""


@pytest.fixture(scope="module")
def namespaces(installation: Installation) -> Installation:
    """An installation with two namespaces."""
    for namespace in (THEIRS, OURS):
        installation.plane.kubectl("create", "namespace", namespace)
    return installation


@pytest.fixture(scope="module")
def tenants(namespaces: Installation) -> Installation:
    """The installation with a ready workload `demo` in each namespace. Tests are skipped by name without
    Metacontroller."""
    if reason := missing():
        pytest.skip(reason)
    for namespace in (THEIRS, OURS):
        namespaces.plane.apply(workload("demo"), namespace=namespace)
    return namespaces


@pytest.fixture(scope="module")
def owner() -> Iterator[Witness]:
    """The server to which the Secrets may be sent."""
    with Witness("owner", CANARY).running() as witness:
        yield witness


@pytest.fixture(scope="module")
def thief() -> Iterator[Witness]:
    """A server to which no Secret may be sent."""
    with Witness("thief", CANARY).running() as witness:
        yield witness


def adopted(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """Return a ModelDeployment on the namespace's workload `demo`."""
    source = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "demo", "namespace": namespace}
    model = model_deployment(name, **{"modelSourceRef": source} | spec)
    return model | {"metadata": {"name": name, "namespace": namespace}}


def offloaded(name: str, witness: Witness, **backend: Any) -> dict[str, Any]:
    """Return a ModelDeployment in `OURS` whose every request goes to a witness."""
    override = {"percentage": 100, "mode": "Force", "until": "2099-01-01T00:00:00Z"}
    remote = {"host": witness.host, "scheme": "http", **backend}
    return adopted(name, OURS, offloadingConfig={"remoteBackend": remote, "behavior": {"override": override}})


def by_secret(name: str) -> dict[str, Any]:
    """Return fields that authenticate with a Secret."""
    return {"authConfig": {"type": "oauth", "oauthConfig": {"clientSecretRef": {"name": name}}}}


def by_header(name: str) -> dict[str, Any]:
    """Return a header field whose value is in a Secret."""
    return {"headers": [{"name": "x-api-key", "valueFrom": {"secretKeyRef": {"name": name, "key": "value"}}}]}


def secret(name: str, namespace: str, hosts: str, token_url: str, *, labeled: bool = True) -> dict[str, Any]:
    """Return a Secret with a client's credentials and a value for a header field."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {CREDENTIAL_LABEL: "true"} if labeled else {}},
        "stringData": {
            "hosts": hosts,
            "tokenUrl": token_url,
            "clientId": "client",
            "clientSecret": f"{name}-{CANARY}",
            "value": f"{name}-{CANARY}",
        },
    }


def document(name: str, *backends: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a route ConfigMap in `OURS` as a user could write it by hand."""
    route = {"apiVersion": "gateway.beamlit.com/v1alpha1", "name": name, "backends": list(backends), **fields}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{name}-route", "namespace": OURS, "labels": {LABEL: LABEL_VALUE}},
        "data": {KEY: json.dumps(route)},
    }


# References


@pytest.mark.parametrize(
    "spec",
    [
        {"modelSourceRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "demo", "namespace": THEIRS}},
        {"serviceRef": {"name": "demo", "namespace": THEIRS, "targetPort": 80}},
        {"metricServiceRef": {"name": "demo", "namespace": THEIRS, "targetPort": 80}},
        {"policies": [{"refType": "localPolicy", "name": "eu", "namespace": THEIRS}]},
    ],
    ids=["modelSourceRef", "serviceRef", "metricServiceRef", "policies"],
)
def test_a_reference_to_another_namespace(tenants: Installation, spec: dict[str, Any]) -> None:
    """A reference to another namespace is refused with its reason, and nothing is created for it."""
    tenants.plane.apply(adopted("reaching", OURS, **spec))
    tenants.until("reaching", OURS, Accepted="False", Ready="False")
    assert tenants.conditions("reaching", OURS)["Accepted"][1] == "CrossNamespaceReference"
    assert tenants.route("reaching", OURS) == {}
    tenants.plane.kubectl("delete", "modeldeployment", "reaching", "-n", OURS)


# Host names


def test_a_host_name_belongs_to_its_namespace(tenants: Installation) -> None:
    """Neither a ModelDeployment nor a document can claim the host name of a model in another namespace."""
    local = {"localModel": "tiny-local"}
    tenants.plane.apply(adopted("demo", THEIRS, gateway=local), adopted("demo", OURS, gateway=local))
    for namespace in (THEIRS, OURS):
        tenants.until("demo", namespace, LocalReady="True", Synced="True")
    for claim in (f"demo.{THEIRS}", f"demo.{THEIRS}.svc.cluster.local"):
        with pytest.raises(CommandFailed, match="serviceName"):
            tenants.plane.apply(adopted("claiming", OURS, gateway={"serviceName": claim}))
        backend = {"id": "local", "service": "demo-local", "port": 80, "weight": 100}
        tenants.plane.apply(document("claiming", backend, serviceNames=[claim], namespace=THEIRS))
        poll(lambda: "claiming" in _errors(tenants), "the document is refused, and reported")
        host = tenants.ask(tenants.gateway(), "-H", f"Host: demo.{THEIRS}.svc.cluster.local", model="demo")
        assert (host.status, host.backend) == (200, "local"), host
    tenants.plane.kubectl("delete", "configmap", "claiming-route", "-n", OURS)


def _errors(tenants: Installation) -> str:
    """Return what the gateways report about documents that they refuse."""
    return json.dumps([tenants.routes(pod) for pod in tenants.pods("-gateway")])


def test_a_local_backend_is_of_its_namespace(tenants: Installation) -> None:
    """A document cannot name a Service of another namespace, nor an address of the cluster or of the node."""
    for service in (f"demo-local.{THEIRS}", f"demo-local.{THEIRS}.svc"):
        tenants.plane.apply(document("crossing", {"id": "local", "service": service, "port": 80, "weight": 100}))
        poll(lambda: "crossing" in _errors(tenants), "it is refused, and reported")
        assert tenants.ask(tenants.gateway(f"/{OURS}/crossing")).status == 404
    refused = ("169.254.169.254", "0.0.0.0", "224.0.0.1", "10.0.0.1", "[::1]")
    for number, host in enumerate(refused):
        remote = {"id": "remote", "host": host, "port": 80, "scheme": "http", "weight": 100}
        tenants.plane.apply(document(f"crossing-{number}", remote))
        url = tenants.gateway(f"/{OURS}/crossing-{number}")
        poll(lambda url=url: tenants.ask(url).status != 404, "it is known")  # type: ignore[misc]
        response = tenants.ask(url)
        assert (response.status, response.json["error"]["code"]) == (502, "address_refused"), host
        tenants.plane.kubectl("delete", "configmap", f"crossing-{number}-route", "-n", OURS)
    tenants.plane.kubectl("delete", "configmap", "crossing-route", "-n", OURS)


# Credentials


@pytest.fixture(scope="module")
def credentials(tenants: Installation, owner: Witness, thief: Witness) -> Installation:
    """Secrets of all kinds, with models and documents that use them as they may and as they may not."""
    token_url = f"http://{owner.host}/token"
    inline = {"clientId": "client", "clientSecret": f"inline-{CANARY}", "tokenUrl": token_url}
    stolen = {"id": "remote", "host": "127.0.0.1", "port": thief.port, "scheme": "http", "weight": 100}
    elsewhere = {"oauth2": {"kind": "Secret", "name": "good", "tokenUrl": f"http://{thief.host}/token"}}
    tenants.plane.apply(
        secret("good", OURS, owner.host, token_url),
        secret("unlabeled", OURS, owner.host, token_url, labeled=False),
        secret("elsewhere", OURS, "models.example.com", token_url),
        secret("theirs", THEIRS, thief.host, token_url),
        offloaded("rightful", owner, **by_secret("good")),
        offloaded("inline", owner, authConfig={"type": "oauth", "oauthConfig": inline}),
        offloaded("keyed", owner, **by_header("good")),
        offloaded("without-label", owner, **by_secret("unlabeled")),
        offloaded("key-without-label", owner, **by_header("unlabeled")),
        offloaded("other-host", owner, **by_secret("elsewhere")),
        offloaded("to-thief", thief, **by_secret("good")),
        offloaded("key-to-thief", thief, **by_header("good")),
        offloaded("of-neighbor", thief, **by_secret("theirs")),
        offloaded("key-of-neighbor", thief, **by_header("theirs")),
        document("written", stolen | {"credentials": {"oauth2": {"kind": "Secret", "name": "good"}}}),
        document("inlined", stolen | {"credentials": {"oauth2": {"kind": "ModelDeployment", "name": "inline"}}}),
        document("misled", stolen | {"credentials": elsewhere}),
        document(
            "default",
            {"id": "remote", "default": True, "host": "127.0.0.1", "port": thief.port, "weight": 100},
        ),
    )  # fmt: skip
    return tenants


@pytest.mark.parametrize("name", ["rightful", "inline", "keyed"])
def test_a_credential_is_used_where_it_may_be(credentials: Installation, owner: Witness, name: str) -> None:
    """A credential of a labeled Secret, or an inline one, is sent to the host that it is for."""
    url = credentials.gateway(f"/{OURS}/{name}")
    poll(lambda: credentials.ask(url, namespace=OURS).status == 200, "it is served")
    response = credentials.ask(url, namespace=OURS)
    assert (response.status, response.json) == (200, {"witness": "owner"})
    request = [text for text in owner.heard if not text.startswith("/token")][-1].lower()
    assert (f"x-api-key: good-{CANARY}" if name == "keyed" else f"authorization: bearer bought-{CANARY}") in request


@pytest.mark.parametrize(
    "name",
    [
        "without-label", "key-without-label", "other-host", "to-thief", "key-to-thief", "of-neighbor",
        "key-of-neighbor", "written", "inlined", "misled",
    ],
)  # fmt: skip
def test_a_credential_is_used_nowhere_else(
    credentials: Installation, owner: Witness, thief: Witness, name: str
) -> None:
    """A credential without label, or for another host, token URL, namespace or a document by hand, is sent to no
    server."""
    url = credentials.gateway(f"/{OURS}/{name}")
    poll(lambda: credentials.ask(url, namespace=OURS).status == 502, "it is known, and refused")
    response = credentials.ask(url, namespace=OURS)
    assert (response.status, response.json["error"]["code"]) == (502, "credentials_failed")
    assert CANARY not in response.body
    assert thief.heard == []
    assert not [text for text in owner.heard if "unlabeled" in text]


def test_the_credentials_of_the_installation_stay_its_own(credentials: Installation, thief: Witness) -> None:
    """A document that says `default` and also names a host is refused."""
    assert credentials.ask(credentials.gateway(f"/{OURS}/default"), namespace=OURS).status == 404
    assert "default" in _errors(credentials)
    assert thief.heard == []


def test_no_secret_is_told(credentials: Installation) -> None:
    """No secret and no token is in a log, a metric, an admin page, an event, a status or an object of the product."""
    for place, text in credentials.outputs().items():
        assert CANARY not in text, place
    for resource in ("configmaps", "services", "events"):
        assert CANARY not in credentials.plane.kubectl("get", resource, "-A", "-o", "yaml"), resource
    for item in credentials.plane.get("modeldeployments.deployment.beamlit.com", namespace=OURS)["items"]:
        assert CANARY not in json.dumps(item["status"])


# The last gate

ROGUE = """
import copy, sys
import hooks.reconcile.model_deployment as reconcile

made = reconcile.make_children
gate = reconcile.check_children

def wished(observation):
    return observation.parent.spec.get("environment", "")

def children(parts, observation):
    found = made(parts, observation)
    wish = wished(observation).removeprefix("ungated-")
    if wish not in ("kind", "group", "namespace", "name"):
        return found
    child = {"apiVersion": "v1", "kind": "ConfigMap",
             "metadata": {"name": "demo-route", "namespace": observation.parent.namespace}, "data": {"a": "b"}}
    child = copy.deepcopy(child)
    if wish == "kind":
        child["kind"] = "Secret"
    elif wish == "namespace":
        child["metadata"]["namespace"] = "kube-system"
    elif wish == "name":
        child["metadata"]["name"] = "foreign"
    elif wish == "group":
        child["apiVersion"], child["kind"] = "rbac.authorization.k8s.io/v1", "ClusterRoleBinding"
    return (*found, child)

def check(children, observation):
    if not wished(observation).startswith("ungated-"):
        gate(children, observation)

reconcile.make_children, reconcile.check_children = children, check
"""
"""Code of hooks whose responses a model can make reach too far, before their last gate or, with `ungated-`, past it."""


@pytest.fixture(scope="module")
def rogue(tenants: Installation) -> Iterator[Installation]:
    """The installation with hooks that have gone wrong, by the chart's own values."""
    metadata = {"name": "rogue", "namespace": NAMESPACE}
    script = "import hooks_rogue_loader\n"
    loader = (
        "import importlib.abc, sys\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'hooks.app':\n"
        "            sys.meta_path.remove(self)\n"
        "            import rogue\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    data = {"sitecustomize.py": script, "hooks_rogue_loader.py": loader, "rogue.py": ROGUE}
    tenants.plane.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    values = {
        "hooks.env": [{"name": "PYTHONPATH", "value": "/rogue"}],
        "hooks.extraVolumes": [{"name": "rogue", "configMap": {"name": "rogue"}}],
        "hooks.extraVolumeMounts": [{"name": "rogue", "mountPath": "/rogue", "readOnly": True}],
    }
    tenants.upgrade(*(f"--set-json={key}={json.dumps(value)}" for key, value in values.items()))
    tenants.plane.apply(adopted("demo", OURS))
    tenants.until("demo", OURS, LocalReady="True", Synced="True")
    yield tenants
    tenants.upgrade(*(f"--set-json={key}=[]" for key in values))


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ("kind", "a child is of a kind that is never created"),
        ("group", "a child is of a kind that is never created"),
        ("namespace", "is not in the namespace of its parent"),
        ("name", "has a name that is not derived from its parent"),
    ],
)
def test_the_last_gate(rogue: Installation, wish: str, sentence: str) -> None:
    """A response with a foreign kind, namespace or name becomes a short 500, and nothing of it is applied."""
    plane = rogue.plane
    before = {kind: version for kind, version in rogue.versions("demo", OURS).items() if "Model" not in kind}
    refused, log_start = rogue.syncs(500), len(_log(rogue))
    _wish(rogue, wish)
    try:
        poll(lambda: rogue.syncs(500) > refused, "hooks refuse their own response")
        poll(lambda: sentence in _log(rogue)[log_start:], "Metacontroller says why")
        after = {kind: version for kind, version in rogue.versions("demo", OURS).items() if "Model" not in kind}
        assert after == before
        assert not plane.get("secret", "demo-route", OURS)
        assert not plane.get("configmap", "foreign", OURS)
        assert not plane.get("configmap", "demo-route", "kube-system")
        assert not plane.get("clusterrolebinding", "demo-route")
    finally:
        _wish(rogue, None)
    rogue.until("demo", OURS, Synced="True")


def _wish(rogue: Installation, wish: str | None) -> None:
    """Write into the ModelDeployment what the rogue hooks shall return."""
    patch = json.dumps({"spec": {"environment": wish}})
    rogue.plane.kubectl("patch", "modeldeployment", "demo", "-n", OURS, "--type=merge", "-p", patch)


def _log(rogue: Installation) -> str:
    """Return the log of Metacontroller."""
    (pod,) = rogue.pods("-metacontroller")
    return pod.process.log.read_text()


@pytest.mark.parametrize(("wish", "kind"), [("kind", "secret"), ("group", "clusterrolebinding")])
def test_past_the_gate_the_api_server_refuses(rogue: Installation, wish: str, kind: str) -> None:
    """Even without the last gate, Metacontroller has no right to create children of other kinds."""
    plane, log_start = rogue.plane, len(_log(rogue))
    _wish(rogue, f"ungated-{wish}")
    try:
        poll(lambda: "forbidden" in _log(rogue)[log_start:], "it is forbidden")
        assert not plane.get(kind, "demo-route", OURS)
    finally:
        _wish(rogue, None)
    rogue.until("demo", OURS, Synced="True")


# Rights

HOOKS = f"{RELEASE}-hooks"
YES: dict[str, tuple[tuple[str, ...], ...]] = {
    METACONTROLLER: (
        ("list", "modeldeployments.deployment.beamlit.com"),
        ("watch", "modeldeployments.deployment.beamlit.com"),
        ("update", "modeldeployments.deployment.beamlit.com", "--subresource=status"),
        ("watch", "policies.authorization.beamlit.com"),
        *((verb, kind) for verb in ("get", "list", "watch", "create", "update", "delete")
          for kind in ("deployments.apps", "services", "configmaps")),
        *((verb, kind) for verb in ("list", "watch") for kind in
          ("statefulsets.apps", "daemonsets.apps", "replicasets.apps")),
        ("create", "events"),
    ),
    GATEWAY: (
        ("list", "configmaps"), ("watch", "configmaps"), ("get", "secrets"),
        ("get", "modeldeployments.deployment.beamlit.com"),
    ),
    HOOKS: (
        ("list", "pods"), ("list", "pods.metrics.k8s.io"), ("list", "queue_depth.external.metrics.k8s.io"),
        *(("get", f"{kind}.custom.metrics.k8s.io", "--subresource=requests") for kind in ("pods", "services")),
        # A metric of the namespace itself: …/namespaces/team-b/metrics/requests.
        ("get", "metrics.custom.metrics.k8s.io"),
    ),
}  # fmt: skip
"""Rights of each ServiceAccount in a namespace that is served."""
ASKED = tuple(
    (verb, kind, *subresource)
    for kind, *subresource in (
        ("secrets",), ("configmaps",), ("services",), ("pods",), ("pods", "--subresource=exec"),
        ("serviceaccounts", "--subresource=token"), ("deployments.apps",), ("statefulsets.apps",), ("daemonsets.apps",),
        ("replicasets.apps",), ("jobs.batch",), ("nodes",), ("namespaces",), ("events",),
        ("roles.rbac.authorization.k8s.io",), ("clusterroles.rbac.authorization.k8s.io",),
        ("clusterrolebindings.rbac.authorization.k8s.io",), ("customresourcedefinitions.apiextensions.k8s.io",),
        ("mutatingwebhookconfigurations.admissionregistration.k8s.io",),
        ("modeldeployments.deployment.beamlit.com",),
        ("modeldeployments.deployment.beamlit.com", "--subresource=status"),
        ("policies.authorization.beamlit.com",), ("compositecontrollers.metacontroller.k8s.io",),
        ("pods.metrics.k8s.io",), ("nodes.metrics.k8s.io",), ("queue_depth.external.metrics.k8s.io",),
        ("pods.custom.metrics.k8s.io", "--subresource=requests"), ("pods", "--subresource=log"),
        ("nodes", "--subresource=proxy"),
    )
    for verb in ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "impersonate",
                 "escalate", "bind")
)  # fmt: skip
"""Every verb on every kind that matters."""
TOLERATED: dict[str, frozenset[tuple[str, ...]]] = {
    # Objects that it has to read before it can start.
    METACONTROLLER: frozenset(
        (verb, kind)
        for verb in ("get", "list", "watch")
        for kind in (
            "compositecontrollers.metacontroller.k8s.io", "customresourcedefinitions.apiextensions.k8s.io",
            "namespaces", "modeldeployments.deployment.beamlit.com", "policies.authorization.beamlit.com",
            "statefulsets.apps", "daemonsets.apps", "replicasets.apps",
        )
    ) | {("get", "modeldeployments.deployment.beamlit.com", "--subresource=status"),
         ("update", "modeldeployments.deployment.beamlit.com"), ("update", "policies.authorization.beamlit.com"),
         ("patch", "events"), ("update", "events")},
    GATEWAY: frozenset(),
    HOOKS: frozenset(),
}  # fmt: skip


@pytest.mark.parametrize("account", [METACONTROLLER, GATEWAY, HOOKS])
def test_what_each_account_may_do(namespaces: Installation, account: str) -> None:
    """Each ServiceAccount has all rights that it needs, and of all others only the tolerated ones."""
    allowed = _allowed(namespaces, account, OURS)
    needed = set(YES[account])
    assert needed <= allowed, needed - allowed
    assert allowed - needed <= TOLERATED[account], allowed - needed - TOLERATED[account]


def _allowed(tenants: Installation, account: str, namespace: str) -> set[tuple[str, ...]]:
    """Return the rights that the API server grants, read with SubjectAccessReviews in one go, as `kubectl auth can-i`
    does."""
    questions = sorted({*ASKED, *YES[account]})
    reviews = [_review(account, namespace, question) for question in questions]
    output = tenants.plane.kubectl("create", "-o", "json", "-f", "-", stdin=yaml.safe_dump_all(reviews))
    decoder, at = json.JSONDecoder(), 0
    results: list[dict[str, Any]] = []
    while at < len(output.rstrip()):
        result, at = decoder.raw_decode(output, at)
        results += result["items"] if result["kind"] == "List" else [result]
        at += len(output[at:]) - len(output[at:].lstrip())
    return {question for question, result in zip(questions, results, strict=True) if result["status"]["allowed"]}


def _review(account: str, namespace: str, question: tuple[str, ...]) -> dict[str, Any]:
    verb, kind, *more = question
    resource, _, group = kind.partition(".")
    attributes = {"namespace": namespace, "verb": verb, "resource": resource, "group": group}
    if more:
        attributes["subresource"] = more[0].partition("=")[2]
    user = f"system:serviceaccount:{NAMESPACE}:{account}"
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"]
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "groups": groups, "resourceAttributes": attributes},
    }


@pytest.mark.parametrize(
    ("account", "question", "output"),
    [
        (GATEWAY, ("get", "secrets"), "yes"),
        (GATEWAY, ("list", "secrets"), "no"),
        (METACONTROLLER, ("get", "secrets"), "no"),
        (HOOKS, ("get", "configmaps"), "no"),
        (HOOKS, ("list", "pods"), "yes"),
        (HOOKS, ("watch", "pods"), "no"),
    ],
)
def test_kubectl_says_the_same(namespaces: Installation, account: str, question: tuple[str, ...], output: str) -> None:
    """`kubectl auth can-i` prints the same for a sample of rights."""
    user = f"--as=system:serviceaccount:{NAMESPACE}:{account}"
    assert (
        namespaces.plane.kubectl("auth", "can-i", *question, "-n", OURS, user, check=False).strip() or "no"
    ) == output


def test_writes_stay_in_the_allowed_namespaces(tenants: Installation) -> None:
    """With `allowedNamespaces` Metacontroller may write in those namespaces only, and needs no more."""
    tenants.upgrade(f"--set=allowedNamespaces={{{OURS}}}", f"--set=config.namespaces={OURS}")
    written = [question for question in YES[METACONTROLLER] if question[0] in ("create", "update", "delete")]
    assert set(written) <= _allowed(tenants, METACONTROLLER, OURS)
    assert not set(written) & _allowed(tenants, METACONTROLLER, THEIRS)
    for account in (GATEWAY, HOOKS):
        assert set(YES[account]) <= _allowed(tenants, account, OURS)
        assert not _allowed(tenants, account, THEIRS)
    (pod,) = tenants.pods("-metacontroller")
    log_start = len(pod.process.log.read_text())
    tenants.plane.apply(adopted("allowed", OURS))
    tenants.until("allowed", OURS, LocalReady="True", Synced="True")
    tenants.plane.kubectl("delete", "configmap", "allowed-route", "-n", OURS)
    poll(lambda: tenants.route("allowed", OURS), "it is created again")
    complaints = [line for line in pod.process.log.read_text()[log_start:].splitlines() if "forbidden" in line.lower()]
    assert [line for line in complaints if OURS in line] == []
    tenants.upgrade("--set=allowedNamespaces=null", "--set=config.namespaces=")
