"""The objects that the chart renders to, for every kind of installation."""

import base64
import http.server
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from gateway.__main__ import parser as gateway_parser
from gateway.settings import Settings as GatewaySettings
from hooks.__main__ import parser as hooks_parser
from hooks.settings import Settings as HooksSettings
from tests.chart.helm import helm, kind, pods, template
from tests.deadlines import SECONDS
from tools.repository import ROOT

TOKEN = base64.b64encode(b"canary-account:canary-of-the-secret").decode()
SEED = (
    "--set=installMetricServer=true",
    f"--set=beamlitApiToken={TOKEN}",
    "--set=config.defaultRemoteBackend.authConfig.oauthConfig.clientId=canary-id",
    "--set=config.defaultRemoteBackend.authConfig.oauthConfig.clientSecret=canary-secret",
)
OWN_TLS = ("--set=hooks.tls.existingSecret=mine", "--set=hooks.tls.caConfigMap=bundle")
PRESETS: dict[str, tuple[str, ...]] = {
    "default": (),
    "seed": SEED,
    "outside": ("--set=hooks.url=http://192.0.2.1:8082",),
    "restricted": ("--set=allowedNamespaces={a,b}", "--set=config.namespaces=a\\,b"),
    "everywhere": ("--set=config.namespaces=",),
    "null": ("--set=config.metricInformer=null",),
    "bearer": ("--set=hooks.auth.bearer.enabled=true",),
    "own secrets": (
        *OWN_TLS,
        "--set=config.defaultRemoteBackend.authConfig.oauthConfig.existingSecret=theirs",
        "--set=beamlitApiTokenExistingSecret=api",
        "--set=hooks.auth.bearer.enabled=true",
        "--set=hooks.auth.bearer.existingSecret=token",
    ),
    "prometheus": (
        "--set=config.metricInformer.type=prometheus",
        "--set=config.metricInformer.prometheus.address=https://metrics.example:9090",
        "--set=config.metricInformer.prometheus.basicAuth.username=canary-reader",
        "--set=config.metricInformer.prometheus.basicAuth.password=canary-password",
        "--set=config.metricInformer.prometheus.caConfigMap=authority",
        "--set=config.metricInformer.prometheus.namespaceLabel=namespace",
    ),
    "no remote": ("--set=config.defaultRemoteBackend=null", "--set=config.namespaces={a,b}"),
    "no authentication": ("--set=config.defaultRemoteBackend.authConfig=null",),
    "scaled": ("--set=gateway.autoscaling.enabled=true", f"--set=image.digest=sha256:{'ab' * 32}"),
    "bare": (
        "--set=gateway.podDisruptionBudget.enabled=false",
        "--set=hooks.podDisruptionBudget.enabled=false",
        "--set=gateway.networkPolicy.enabled=false",
        "--set=hooks.networkPolicy.enabled=false",
        "--set=metacontroller.enabled=false",
        "--set=gateway.spreadOverNodes=false",
    ),
    "labeled": (
        "--set=commonLabels.team=x",
        "--set=commonLabels.app\\.kubernetes\\.io/name=taken",
        "--set=commonAnnotations.owner=y",
        "--set=gateway.service.annotations.lb=z",
        "--set=hooks.podLabels.tier=a",
        "--set=hooks.podAnnotations.scrape=b",
        "--set=hooks.priorityClassName=high",
        "--set=gateway.nodeSelector.gpu=no",
        "--set=imagePullSecrets[0].name=pull",
        "--set=userRoles.aggregate=true",
        "--api-versions=admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy",
        "--set=monitoring.podMonitor.enabled=true",
    ),
    "monitored": (
        "--set=monitoring.serviceMonitor.enabled=true",
        "--set=monitoring.prometheusRule.enabled=true",
        "--set=monitoring.dashboard.enabled=true",
    ),
    "no gateway": (
        "--set=installBeamlitGateway=false",
        "--set=config.proxyService.namespace=edge",
        "--set=config.proxyService.name=door",
    ),
}
preset = pytest.mark.parametrize("words", PRESETS.values(), ids=PRESETS.keys())


def container(objects: list[dict[str, Any]], suffix: str) -> dict[str, Any]:
    """Return the one container of a Deployment."""
    (single,) = kind(objects, "Deployment", suffix)["spec"]["template"]["spec"]["containers"]
    return dict(single)


def test_lint(chart: Path) -> None:
    """`helm lint --strict` has no complaint about the chart."""
    assert "0 chart(s) failed" in helm("lint", "--strict", str(chart))


@preset
def test_pods(chart: Path, words: tuple[str, ...]) -> None:
    """The chart's own pods have a read-only root file system, no service links, bounded memory and probes; that of
    `helm test` has no token."""
    for place, spec in pods(template(chart, *words)):
        if place.startswith("StatefulSet/"):
            continue  # the pod of Metacontroller's own chart
        assert spec["enableServiceLinks"] is False
        assert spec["automountServiceAccountToken"] is place.startswith(("Deployment/", "Job/"))
        for one in spec["containers"]:
            assert one["securityContext"]["readOnlyRootFilesystem"] is True
            assert "memory" in one["resources"]["limits"]
            assert {"cpu", "memory"} <= one["resources"]["requests"].keys()
            if spec.get("restartPolicy") != "Never":
                assert one["livenessProbe"]
                assert one["readinessProbe"]
                startup = one["startupProbe"]
                assert startup["httpGet"] == one["livenessProbe"]["httpGet"]
                # Seconds that a start may take before the container is started again.
                assert startup["periodSeconds"] * startup["failureThreshold"] >= 300


@preset
def test_names_and_selectors(chart: Path, words: tuple[str, ...]) -> None:
    """No two objects of a kind have the same name, and each selector finds the pods of its own component only."""
    objects = template(chart, *words)
    names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects]
    assert len(set(names)) == len(names)
    templates = {
        one["metadata"]["name"].rpartition("-")[2]: one["spec"]["template"]["metadata"]["labels"]
        for one in objects
        if one["kind"] == "Deployment"
    }
    for one in objects:
        component = one["metadata"]["name"].rpartition("-")[2]
        if component not in templates:
            continue
        spec = one.get("spec", {})
        selector = {
            "Deployment": lambda spec: spec["selector"]["matchLabels"],
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
            "Service": lambda spec: spec["selector"],
        }.get(one["kind"])
        if selector is not None:
            selected = [name for name, labels in templates.items() if selector(spec).items() <= labels.items()]
            assert selected == [component]


def test_labels_and_annotations(chart: Path) -> None:
    """Labels and annotations of users are on every object of this chart, and never replace the chart's own."""
    objects = template(chart, *PRESETS["labeled"])
    ours = [one for one in objects if not one["metadata"]["name"].startswith("beamlit-metacontroller")]
    assert len(ours) > 15
    for one in ours:
        assert one["metadata"]["labels"]["team"] == "x", one["metadata"]["name"]
        assert one["metadata"]["labels"]["app.kubernetes.io/name"] == "beamlit-controller"
        assert one["metadata"]["annotations"]["owner"] == "y", one["metadata"]["name"]
    assert kind(objects, "Service", "-gateway")["metadata"]["annotations"] == {"lb": "z", "owner": "y"}
    assert kind(objects, "Pod", "-test")["metadata"]["annotations"] == {
        "helm.sh/hook": "test",
        "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
        "owner": "y",
    }
    pod = kind(objects, "Deployment", "-hooks")["spec"]["template"]["metadata"]
    assert {"team": "x", "tier": "a", "app.kubernetes.io/component": "hooks"}.items() <= pod["labels"].items()
    assert pod["annotations"].keys() == {"checksum/config", "checksum/tls", "scrape"}
    for place, spec in pods(objects):
        assert spec.get("imagePullSecrets") == (None if place.startswith("StatefulSet/") else [{"name": "pull"}])


def test_the_seeds_command_line(chart: Path) -> None:
    """The original's flags work unchanged, and none of their secrets is in an object that is no Secret."""
    objects = template(chart, *SEED)
    for one in objects:
        if one["kind"] != "Secret":
            assert "canary" not in yaml.safe_dump(one), one["metadata"]["name"]
            assert TOKEN not in yaml.safe_dump(one), one["metadata"]["name"]
    assert kind(objects, "Secret", "-remote")["stringData"] == {
        "clientId": "canary-id",
        "clientSecret": "canary-secret",
    }
    assert kind(objects, "Secret", "-platform")["stringData"] == {"token": TOKEN}
    config = yaml.safe_load(kind(objects, "ConfigMap", "-config")["data"]["config.yaml"])
    oauth = config["defaultRemoteBackend"]["authConfig"]["oauthConfig"]
    assert oauth["clientSecretFile"] == "/etc/beamlit/credentials/clientSecret"
    mounts = container(objects, "-gateway")["volumeMounts"]
    assert {"name": "credentials", "mountPath": "/etc/beamlit/credentials", "readOnly": True} in mounts


@pytest.mark.parametrize(("key", "source"), [("caConfigMap", "configMap"), ("caSecret", "secret")])
def test_the_authority_of_the_token_endpoint(chart: Path, key: str, source: str) -> None:
    """The gateway mounts ca.crt of the named object, and no other key of it."""
    objects = template(chart, *SEED, f"--set=config.defaultRemoteBackend.authConfig.oauthConfig.{key}=authority")
    config = yaml.safe_load(kind(objects, "ConfigMap", "-config")["data"]["config.yaml"])
    oauth = config["defaultRemoteBackend"]["authConfig"]["oauthConfig"]
    assert oauth["caFile"] == "/etc/beamlit/credentials-ca/ca.crt"
    assert not oauth.keys() & {"caConfigMap", "caSecret", "audience", "resource", "parameters", "tokenAuth"}
    spec = kind(objects, "Deployment", "-gateway")["spec"]["template"]["spec"]
    (volume,) = [one for one in spec["volumes"] if one["name"] == "credentials-ca"]
    name = {"configMap": "name", "secret": "secretName"}[source]
    assert volume[source] == {name: "authority", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    mount = {"name": "credentials-ca", "mountPath": "/etc/beamlit/credentials-ca", "readOnly": True}
    assert mount in container(objects, "-gateway")["volumeMounts"]


def test_secrets_of_ones_own(chart: Path) -> None:
    """With existing Secrets the chart creates none, and mounts the existing ones in the same places."""
    objects = template(chart, *PRESETS["own secrets"])
    assert not [one for one in objects if one["kind"] == "Secret"]
    mounted = {
        (volume["name"], volume["secret"]["secretName"])
        for _, spec in pods(objects)
        for volume in spec.get("volumes", ())
        if "secret" in volume
    }
    assert mounted == {("tls", "mine"), ("bearer", "token"), ("credentials", "theirs"), ("platform", "api")}


@preset
def test_the_configuration_is_one_that_both_programs_take(chart: Path, words: tuple[str, ...], tmp_path: Path) -> None:
    """hooks and gateway can read the configuration that the chart writes."""
    path = tmp_path / "config.yaml"
    path.write_text(kind(template(chart, *words), "ConfigMap", "-config")["data"]["config.yaml"])
    hooks = HooksSettings.load(path, environment={})
    gateway = GatewaySettings.load(path, environment={})
    service = hooks.install_defaults.gateway_service
    assert service is not None
    outside = words == PRESETS["no gateway"]
    expected = ("edge", "door", 80) if outside else ("sys", "beamlit-beamlit-controller-gateway", 80)
    assert (service.namespace, service.name, service.port) == expected
    assert gateway.gateway.lame_duck_seconds == 5
    informer = hooks.metric_informer
    assert (informer.type, informer.resolution_seconds) == (
        "prometheus" if words == PRESETS["prometheus"] else "kubernetes",
        15,
    )
    assert gateway.cluster_domain == hooks.cluster_domain == "cluster.local"
    remote = gateway.default_remote_backend
    assert bool(remote.host) is (words != PRESETS["no remote"])
    assert (remote.auth_config is not None) is (words in (SEED, PRESETS["own secrets"]))
    if words in (PRESETS["restricted"], PRESETS["no remote"]):
        assert hooks.namespaces == gateway.namespaces == ("a", "b")
    if words == PRESETS["everywhere"]:
        assert hooks.namespaces == gateway.namespaces == ()


def test_the_flags_are_those_of_the_programs(chart: Path) -> None:
    """The programs can parse the commands of their containers."""
    objects = template(chart, *PRESETS["bearer"])
    for suffix, parser in (("-hooks", hooks_parser()), ("-gateway", gateway_parser())):
        args = container(objects, suffix)["args"]
        assert args[:3] == ["python", "-m", suffix[1:]]
        parser.parse_args(args[3:])
        listening = [arg for arg in args if arg.startswith(("--listen=", "--admin=", "--operations="))]
        assert len(listening) == 2
        assert all("=[::]:" in arg for arg in listening)  # pods can be reached over IPv4, IPv6, or both


def test_a_pod_outlives_its_requests(chart: Path) -> None:
    """The gateway's grace period is longer than its lame-duck and drain times together."""
    spec = kind(template(chart, "--set=gateway.lameDuckSeconds=10", "--set=gateway.drainSeconds=300"), "Deployment",
                "-gateway")["spec"]["template"]["spec"]  # fmt: skip
    assert spec["terminationGracePeriodSeconds"] > 310


def test_further_volumes(chart: Path) -> None:
    """Volumes of the administrator are added to the chart's own."""
    words = [
        f"--set={component}.extra{where}"
        for component in ("hooks", "gateway")
        for where in ("Volumes[0].name=ca", "Volumes[0].configMap.name=root", "VolumeMounts[0].name=ca",
                      "VolumeMounts[0].mountPath=/ca")
    ]  # fmt: skip
    objects = template(chart, *words)
    for suffix in ("-hooks", "-gateway"):
        spec = kind(objects, "Deployment", suffix)["spec"]["template"]["spec"]
        assert {"name": "ca", "configMap": {"name": "root"}} in spec["volumes"]
        assert {"name": "ca", "mountPath": "/ca"} in spec["containers"][0]["volumeMounts"]
        assert len(spec["volumes"]) > 2


def test_topology(chart: Path) -> None:
    """Pods are spread over nodes, or as the administrator says, and each constraint counts the component's own pods."""
    objects = template(
        chart,
        "--set=gateway.topologySpreadConstraints[0].maxSkew=2",
        "--set=gateway.topologySpreadConstraints[0].topologyKey=zone",
        "--set=gateway.topologySpreadConstraints[0].whenUnsatisfiable=DoNotSchedule",
    )
    spread = {}
    for suffix in ("hooks", "gateway"):
        (spread[suffix],) = kind(objects, "Deployment", suffix)["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert spread[suffix]["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == suffix
    assert (spread["gateway"]["maxSkew"], spread["gateway"]["topologyKey"]) == (2, "zone")
    assert spread["hooks"]["topologyKey"] == "kubernetes.io/hostname"


def test_disruption_budgets(chart: Path) -> None:
    """One replica may always be evicted, so that a node with the only one can be drained, unless a minimum is set."""
    for suffix in ("-hooks", "-gateway"):
        spec = kind(template(chart, "--set=hooks.replicas=1,gateway.replicas=1"), "PodDisruptionBudget", suffix)["spec"]
        assert spec["maxUnavailable"] == 1
        assert "minAvailable" not in spec
    spec = kind(template(chart, "--set=gateway.podDisruptionBudget.minAvailable=1"), "PodDisruptionBudget", "-gateway")
    assert spec["spec"]["minAvailable"] == 1
    assert "maxUnavailable" not in spec["spec"]


def test_the_port_for_administrators_is_inside(chart: Path) -> None:
    """A Service that is reached from outside the cluster has only the port for clients."""
    for service, ports in (("ClusterIP", {"http", "admin"}), ("NodePort", {"http"}), ("LoadBalancer", {"http"})):
        spec = kind(template(chart, f"--set=gateway.service.type={service}"), "Service", "-gateway")["spec"]
        assert {one["name"] for one in spec["ports"]} == ports


def peers(policy: dict[str, Any], port: int) -> list[Any]:
    """Return the peers that a NetworkPolicy allows at a port; an empty list when it allows all."""
    (rule,) = [one for one in policy["spec"]["ingress"] if one["ports"] == [{"port": port}]]
    allowed: list[Any] = rule.get("from", [])
    return allowed


def test_who_may_ask_hooks(chart: Path) -> None:
    """This release's Metacontroller may send requests to hooks; this namespace and Prometheus may read health and
    metrics."""
    monitoring = "--set=monitoring.from[0].namespaceSelector.matchLabels.team=watch"
    policy = kind(template(chart, monitoring), "NetworkPolicy", "-hooks")
    assert peers(policy, 8443) == [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "sys"}},
            "podSelector": {
                "matchLabels": {
                    "app.kubernetes.io/name": "metacontroller",
                    "app.kubernetes.io/instance": "beamlit",
                }
            },
        }
    ]
    assert peers(policy, 8083) == [{"podSelector": {}}, {"namespaceSelector": {"matchLabels": {"team": "watch"}}}]
    words = (
        "--set=metacontroller.enabled=false",
        "--set=existingMetacontroller.namespace=elsewhere",
        "--set=existingMetacontroller.podLabels.role=controller",
    )
    (peer,) = peers(kind(template(chart, *words), "NetworkPolicy", "-hooks"), 8443)
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "elsewhere"}
    assert peer["podSelector"]["matchLabels"]["role"] == "controller"
    assert "app.kubernetes.io/instance" not in peer["podSelector"]["matchLabels"]


def test_hooks_ask_every_gateway(chart: Path) -> None:
    """Hooks have the name of a headless Service that selects the gateways' pods, and may reach its port there."""
    objects = template(chart, "--set=config.clusterDomain=example.org")
    service = kind(objects, "Service", "-gateway-admin")
    address = f"{service['metadata']['name']}.sys.svc.example.org:8081"
    config = yaml.safe_load(kind(objects, "ConfigMap", "-config")["data"]["config.yaml"])
    assert config["proxyService"]["adminAddress"] == address
    assert (service["spec"]["clusterIP"], service["spec"]["ports"][0]["port"]) == ("None", 8081)
    gateways = kind(objects, "Deployment", "-gateway")["spec"]["selector"]["matchLabels"]
    assert service["spec"]["selector"] == gateways
    # The policy's own namespace is that of hooks.
    assert {"podSelector": {}} in peers(kind(objects, "NetworkPolicy", "-gateway"), 8081)
    assert kind(objects, "Deployment", "-hooks")["metadata"]["namespace"] == "sys"


@preset
def test_no_network_policy_holds_back_what_is_asked_for(chart: Path, words: tuple[str, ...]) -> None:
    """No NetworkPolicy restricts egress, so that hooks and the gateway reach the API server, Prometheus and remote
    backends."""
    for one in template(chart, *words):
        if one["kind"] == "NetworkPolicy":
            assert one["spec"]["policyTypes"] == ["Ingress"]
            assert "egress" not in one["spec"]


def test_the_policy_names_the_pods_of_metacontroller(real: Path) -> None:
    """The NetworkPolicy of hooks selects the namespace and the labels of the pods that Metacontroller's own chart
    renders."""
    for words in ((), ("--set=metacontroller.nameOverride=other", "--set=metacontroller.namespaceOverride=there")):
        objects = template(real, *words)
        (peer,) = peers(kind(objects, "NetworkPolicy", "-hooks"), 8443)
        controller = kind(objects, "StatefulSet")
        labels = controller["spec"]["template"]["metadata"]["labels"]
        assert peer["podSelector"]["matchLabels"].items() <= labels.items()
        namespace = controller["metadata"]["namespace"]
        assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": namespace}


def test_who_may_ask_the_gateway(chart: Path) -> None:
    """All clients may send requests unless values restrict it; this namespace and Prometheus may use the port for
    administrators."""
    policy = kind(template(chart), "NetworkPolicy", "-gateway")
    assert peers(policy, 8080) == []
    assert peers(policy, 8081) == [{"podSelector": {}}]
    words = ("--set=gateway.networkPolicy.from[0].podSelector.matchLabels.client=yes",
             "--set=monitoring.from[0].ipBlock.cidr=192.0.2.0/24")  # fmt: skip
    policy = kind(template(chart, *words), "NetworkPolicy", "-gateway")
    assert peers(policy, 8080) == [{"podSelector": {"matchLabels": {"client": "yes"}}}]
    assert peers(policy, 8081) == [{"podSelector": {}}, {"ipBlock": {"cidr": "192.0.2.0/24"}}]


def test_the_generated_certificate(chart: Path) -> None:
    """The certificate is for the names by which hooks is called, is signed by the authority that Metacontroller gets,
    and lasts ten years."""
    objects = template(chart, "--set=kubernetesClusterDomain=corp.example")
    data = kind(objects, "Secret", "-hooks-tls")["data"]
    certificate = x509.load_pem_x509_certificate(base64.b64decode(data["tls.crt"]))
    authority = x509.load_pem_x509_certificate(base64.b64decode(data["ca.crt"]))
    certificate.verify_directly_issued_by(authority)
    assert certificate.subject != authority.subject, "OpenSSL would take it for self-signed"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    host = "beamlit-beamlit-controller-hooks.sys.svc"
    assert {host, f"{host}.corp.example"} <= set(names.get_values_for_type(x509.DNSName))
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc >= timedelta(days=3650)
    webhook = kind(objects, "CompositeController", "-controller")["spec"]["hooks"]["sync"]["webhook"]
    assert webhook["url"].startswith(f"https://{host}:8443/")
    assert x509.load_pem_x509_certificate(webhook["caBundle"]["inline"].encode()) == authority


def test_openssl_takes_the_generated_certificate(chart: Path, tmp_path: Path) -> None:
    """A client that verifies with OpenSSL finishes the handshake under the name of the Service."""
    objects = template(chart)
    data = kind(objects, "Secret", "-hooks-tls")["data"]
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).write_bytes(base64.b64decode(data[name]))
    here = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    here.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    there = ssl.create_default_context(cadata=base64.b64decode(data["ca.crt"]).decode())
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = here.wrap_bio(incoming, outgoing, server_side=True)
    client = there.wrap_bio(outgoing, incoming, server_hostname="beamlit-beamlit-controller-hooks.sys.svc")
    waiting = [client, server] * 4
    while waiting:
        side = waiting.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            assert waiting, "the handshake does not end"
    assert client.version() == "TLSv1.3"


def test_a_new_certificate_changes_the_url(chart: Path) -> None:
    """A new certificate changes the URL of the webhook, so that Metacontroller reads the CA again, and restarts
    hooks."""
    first = kind(template(chart), "CompositeController", "-controller")["spec"]["hooks"]
    second = kind(template(chart, "--set=nameOverride="), "CompositeController", "-controller")["spec"]["hooks"]
    assert first["sync"]["webhook"]["url"] != second["sync"]["webhook"]["url"]  # generated anew without a cluster

    def shown(*words: str) -> tuple[Any, str, str]:
        objects = template(chart, *OWN_TLS, *words)
        webhook = kind(objects, "CompositeController", "-controller")["spec"]["hooks"]["sync"]["webhook"]
        pod = kind(objects, "Deployment", "-hooks")["spec"]["template"]["metadata"]
        return webhook["caBundle"], webhook["url"], pod["annotations"]["checksum/tls"]

    before, after = shown(), shown("--set=hooks.tls.generation=2")
    assert before[0] == {"configMapRef": {"name": "bundle", "namespace": "sys", "key": "ca.crt"}}
    assert before[1] != after[1]
    assert before[2] != after[2]


def test_hooks_outside_the_cluster(chart: Path) -> None:
    """With hooks.url no hooks are deployed, and Metacontroller calls those at the URL."""
    objects = template(chart, *PRESETS["outside"])
    assert not [one for one in objects if one["metadata"]["name"].endswith("-hooks")]
    webhook = kind(objects, "CompositeController", "-controller")["spec"]["hooks"]["sync"]["webhook"]
    assert webhook["url"].startswith("http://192.0.2.1:8082/modeldeployments/sync?v=")
    assert "caBundle" not in webhook


def test_a_gateway_of_ones_own(chart: Path) -> None:
    """Without the gateway no object of it is rendered."""
    objects = template(chart, *PRESETS["no gateway"])
    assert not [one for one in objects if one["metadata"]["name"].endswith("-gateway")]


@pytest.mark.parametrize(("file", "suffix"), [("compositecontroller", "-controller"), ("policies", "-policies")])
def test_the_composite_controllers_are_those_of_the_repository(chart: Path, file: str, suffix: str) -> None:
    """Except for names, address and certificate, the CompositeControllers are those in metacontroller/."""
    ours = yaml.safe_load((ROOT / f"metacontroller/{file}.yaml").read_text())["spec"]
    theirs = kind(template(chart, *PRESETS["outside"]), "CompositeController", suffix)["spec"]
    for spec in (ours, theirs):
        for hook in spec["hooks"].values():
            hook["webhook"]["url"] = re.sub(r"^http://[^/]+|\?.*", "", hook["webhook"]["url"])
    assert theirs == ours


class Responder(http.server.BaseHTTPRequestHandler):
    """Handler that responds 200 to everything but /unready."""

    def do_GET(self) -> None:
        """Respond with 200, or with 503 at /unready."""
        self.send_response(503 if self.path == "/unready" else 200)
        self.end_headers()
        self.wfile.write(b"yes")

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of a server on loopback."""
    with http.server.HTTPServer(("127.0.0.1", 0), Responder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_release_with_a_dot(chart: Path) -> None:
    """Names of Services have no dot, although the name of the release has one."""
    objects = list(yaml.safe_load_all(helm("template", "team.models", str(chart), "--kube-version", "1.36.0")))
    names = [one["metadata"]["name"] for one in objects if one and one["kind"] == "Service"]
    assert sorted(names) == [f"team-models-beamlit-controller-{part}" for part in ("gateway", "gateway-admin", "hooks")]


def test_helm_test(chart: Path, server: str) -> None:
    """The Pod of `helm test` sends requests to hooks and the gateway, and fails when one of them does not respond with
    200."""
    pod = kind(template(chart), "Pod", "-test")
    (ask,) = pod["spec"]["containers"]
    assert (pod["metadata"]["name"], ask["name"]) == ("beamlit-beamlit-controller-test", "ask")
    interpreter, flag, script = ask["args"]
    assert interpreter == "python"
    hooks, gateway = re.findall(r'"(http.*)"', script)
    assert hooks == "http://beamlit-beamlit-controller-hooks:8083/readyz"
    assert gateway == "http://beamlit-beamlit-controller-gateway:80/v1/models"

    def run(*urls: str) -> subprocess.CompletedProcess[str]:
        here = script.replace(hooks, urls[0]).replace(gateway, urls[1])
        return subprocess.run([sys.executable, flag, here], capture_output=True, text=True, timeout=SECONDS)

    good = run(f"{server}/a", f"{server}/b")
    assert (good.returncode, good.stdout.count("yes")) == (0, 2), good.stderr
    for urls in ((f"{server}/unready", f"{server}/b"), (f"{server}/a", f"{server}/unready")):
        bad = run(*urls)
        assert bad.returncode != 0
        assert "503" in bad.stderr


def test_api_keys(chart: Path) -> None:
    """The gateway gets the Secret with API keys as a folder that it reads; hooks and `helm test` get none of it."""
    objects = template(chart, "--set=gateway.access.existingSecret=keys")
    config = yaml.safe_load(kind(objects, "ConfigMap", "-config")["data"]["config.yaml"])
    assert config["gateway"]["access"] == {"keysDirectory": "/etc/beamlit/access"}
    spec = kind(objects, "Deployment", "-gateway")["spec"]["template"]["spec"]
    assert {"name": "access", "secret": {"secretName": "keys"}} in spec["volumes"]
    mount = {"name": "access", "mountPath": "/etc/beamlit/access", "readOnly": True}
    assert mount in spec["containers"][0]["volumeMounts"]
    hooks = kind(objects, "Deployment", "-hooks")["spec"]["template"]["spec"]
    assert all(one["name"] != "access" for one in hooks["volumes"])
    (script,) = kind(objects, "Pod", "-test")["spec"]["containers"][0]["args"][2:]
    assert "/health" in script
    assert "/v1/models" not in script
    off = yaml.safe_load(kind(template(chart), "ConfigMap", "-config")["data"]["config.yaml"])
    assert "access" not in off["gateway"]


def test_tokens_of_an_issuer(chart: Path) -> None:
    """The gateway gets the issuer in its configuration, and the authorities of its certificate as a file."""
    jwt = "config.gateway.access.jwt"
    words = (f"--set={jwt}.issuer=https://issuer.example", f"--set={jwt}.audiences={{beamlit}}")
    objects = template(chart, *words, "--set=gateway.access.jwtCaConfigMap=bundle")
    config = yaml.safe_load(kind(objects, "ConfigMap", "-config")["data"]["config.yaml"])
    assert config["gateway"]["access"] == {
        "jwt": {
            "issuer": "https://issuer.example",
            "audiences": ["beamlit"],
            "caFile": "/etc/beamlit/access-ca/ca.crt",
        }
    }
    spec = kind(objects, "Deployment", "-gateway")["spec"]["template"]["spec"]
    items = [{"key": "ca.crt", "path": "ca.crt"}]
    assert {"name": "access-ca", "configMap": {"name": "bundle", "items": items}} in spec["volumes"]
    mount = {"name": "access-ca", "mountPath": "/etc/beamlit/access-ca", "readOnly": True}
    assert mount in spec["containers"][0]["volumeMounts"]
    (script,) = kind(objects, "Pod", "-test")["spec"]["containers"][0]["args"][2:]
    assert "/health" in script


def test_rules_for_callers(chart: Path) -> None:
    """The ConfigMap with rules for callers is a folder of the gateway, and its key callers.yaml is what it reads."""
    objects = template(chart, "--set=gateway.access.rulesConfigMap=rules", "--set=gateway.access.existingSecret=keys")
    config = yaml.safe_load(kind(objects, "ConfigMap", "-config")["data"]["config.yaml"])
    assert config["gateway"]["access"] == {
        "keysDirectory": "/etc/beamlit/access",
        "rulesFile": "/etc/beamlit/access-rules/callers.yaml",
    }
    spec = kind(objects, "Deployment", "-gateway")["spec"]["template"]["spec"]
    assert {"name": "access-rules", "configMap": {"name": "rules"}} in spec["volumes"]
    mount = {"name": "access-rules", "mountPath": "/etc/beamlit/access-rules", "readOnly": True}
    assert mount in spec["containers"][0]["volumeMounts"]


def test_traces(chart: Path) -> None:
    """With a collector the gateway's spans say which pod they are from; its credential comes from a Secret."""

    def environment(*words: str) -> dict[str, Any]:
        (container,) = kind(template(chart, *words), "Deployment", "-gateway")["spec"]["template"]["spec"]["containers"]
        return {one["name"]: one for one in container.get("env", ())}

    assert environment() == {}
    words = ("--set=config.gateway.tracing.endpoint=http://collector:4318", "--set=gateway.tracing.headersSecret=keys")
    found = environment(*words)
    assert found["OTEL_RESOURCE_ATTRIBUTES"]["value"].endswith(",k8s.pod.name=$(POD_NAME)")
    assert list(found) == ["POD_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPORTER_OTLP_HEADERS"]
    assert found["OTEL_EXPORTER_OTLP_HEADERS"]["valueFrom"] == {"secretKeyRef": {"name": "keys", "key": "headers"}}
    ours = environment(*words, "--set=gateway.env[0].name=OTEL_SERVICE_NAME,gateway.env[0].value=edge")
    assert list(ours)[-1] == "OTEL_SERVICE_NAME"
    config = yaml.safe_load(kind(template(chart, *words), "ConfigMap", "-config")["data"]["config.yaml"])
    assert config["gateway"]["tracing"] == {"endpoint": "http://collector:4318"}


def test_helm_test_asks_what_is_there(chart: Path) -> None:
    """`helm test` sends no request to hooks outside the cluster, nor to a gateway of another installation."""
    for words in (PRESETS["outside"], PRESETS["no gateway"]):
        (script,) = kind(template(chart, *words), "Pod", "-test")["spec"]["containers"][0]["args"][2:]
        compile(script, "script", "exec")
        assert ("-hooks" in script) is (words != PRESETS["outside"])
        assert ("-gateway" in script) is (words != PRESETS["no gateway"])


@pytest.mark.parametrize("words", PRESETS.values(), ids=PRESETS)
def test_a_template_has_objects_of_one_kind(chart: Path, words: tuple[str, ...]) -> None:
    """A template of the chart renders objects of one kind only, so the file of an object is found by its kind."""
    output = helm("template", "beamlit", str(chart), "--kube-version", "1.36.0", "--namespace", "sys", *words)
    kinds: dict[str, set[str]] = {}
    for text in output.split("\n---\n"):
        item, source = yaml.safe_load(text), re.search(r"# Source: beamlit-controller-chart/templates/(\S+)", text)
        if item and source:
            kinds.setdefault(source[1], set()).add(item["kind"])
    # A Role becomes a ClusterRole where no namespace is named.
    assert {file: kinds_of_file for file, kinds_of_file in kinds.items() if len(kinds_of_file) > 1} == {}
    assert len(kinds) > 5
