"""Values of the chart: each has an effect, the schema is closed, and combinations that could not work are refused."""

import base64
import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.chart.helm import HelmFailed, kind, template, template_text
from tools.chart_reference import CHART, NONE_WHEN_BLANK, Setting, allowed, settings
from tools.repository import ROOT

TOKEN: Final = base64.b64encode(b"account:secret").decode()
SETTINGS: Final = {one.path: one for one in settings()}
STEADY: Final = ("--set=hooks.tls.existingSecret=mine", "--set=hooks.tls.caBundle=PEM")
"""Values without which a new certificate would be generated at each rendering."""
CREDENTIALS: Final = "config.defaultRemoteBackend.authConfig.oauthConfig"
GIVEN: Final = (f"--set={CREDENTIALS}.clientId=a", f"--set={CREDENTIALS}.clientSecret=b")
OUTSIDE: Final = ("--set=gateway.service.type=LoadBalancer",)
THEIRS: Final = ("--set=metacontroller.enabled=false",)
BEARER: Final = ("--set=hooks.auth.bearer.enabled=true", "--set=hooks.auth.bearer.existingSecret=token")

PROMETHEUS: Final = "config.metricInformer.prometheus"
SERVER: Final = ("--set=config.metricInformer.type=prometheus", f"--set={PROMETHEUS}.address=https://metrics.example")
BASIC: Final = (*SERVER, f"--set={PROMETHEUS}.basicAuth.username=a", f"--set={PROMETHEUS}.basicAuth.password=b")

CONTEXTS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys((path for path in SETTINGS if path.startswith(PROMETHEUS)), SERVER),
    f"{PROMETHEUS}.basicAuth.username": BASIC,
    f"{PROMETHEUS}.basicAuth.password": BASIC,
    f"{CREDENTIALS}.clientId": GIVEN,
    f"{CREDENTIALS}.clientSecret": GIVEN,
    **{
        f"{CREDENTIALS}.{key}": GIVEN
        for key in (
            *("scope", "audience", "resource", "parameters", "tokenAuth", "tokenUrl"),
            *("caConfigMap", "caSecret"),
        )
    },
    "config.metricInformer.type": (f"--set={PROMETHEUS}.address=p:9090",),
    "beamlitApiTokenExistingSecret": (f"--set=beamlitApiToken={TOKEN}",),
    "beamlitBaseUrl": (f"--set=beamlitApiToken={TOKEN}",),
    "config.proxyService.adminAddress": ("--set=installBeamlitGateway=false",),
    "config.proxyService.adminPort": ("--set=installBeamlitGateway=false",),
    "config.proxyService.name": ("--set=installBeamlitGateway=false",),
    "config.proxyService.namespace": ("--set=installBeamlitGateway=false",),
    "config.proxyService.port": ("--set=installBeamlitGateway=false",),
    "existingMetacontroller.namespace": THEIRS,
    "existingMetacontroller.podLabels": THEIRS,
    "existingMetacontroller.serviceAccount": THEIRS,
    "gateway.autoscaling.maxReplicas": ("--set=gateway.autoscaling.enabled=true",),
    "gateway.autoscaling.minReplicas": ("--set=gateway.autoscaling.enabled=true",),
    "gateway.autoscaling.targetCPUUtilizationPercentage": ("--set=gateway.autoscaling.enabled=true",),
    "gateway.service.externalTrafficPolicy": OUTSIDE,
    "gateway.service.loadBalancerClass": OUTSIDE,
    "gateway.service.loadBalancerSourceRanges": OUTSIDE,
    "gateway.service.nodePort": OUTSIDE,
    "gateway.access.jwtCaConfigMap": (
        "--set=config.gateway.access.jwt.issuer=https://issuer.example",
        "--set=config.gateway.access.jwt.audiences={a}",
    ),
    "hooks.auth.bearer.existingSecret": BEARER,
    "image.tag": (),
    **{
        path: (f"--set={'.'.join(path.split('.')[:2])}.enabled=true",)
        for path in SETTINGS
        if path.startswith(("monitoring.dashboard.", "monitoring.prometheusRule.", "monitoring.serviceMonitor."))
        and not path.endswith(".enabled")
    },
    "monitoring.podMonitor.interval": ("--set=monitoring.podMonitor.enabled=true",),
    "monitoring.podMonitor.labels": ("--set=monitoring.podMonitor.enabled=true",),
}
"""Further values that are set with a value that has no effect by itself."""

SAMPLES: Final[Mapping[str, Any]] = {
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
    "address": "http://other.example:9090",
    "config.proxyService.adminAddress": "gateways.example:8081",
    "allowedNamespaces": ["default"],
    "beamlitApiToken": TOKEN,
    "beamlitBaseUrl": "https://other.example",
    "config.defaultRemoteBackend.flavors": [{"type": "gpu", "name": "t4"}],
    "config.defaultRemoteBackend.forwardHeaders": ["x-partition-key"],
    "config.defaultRemoteBackend.headersToRemove": ["x-cost-center"],
    "config.defaultRemoteBackend.location.continent": "EU",
    "config.defaultRemoteBackend.location.country": "fr",
    "config.gateway": {"clusterRanges": ["10.0.0.0/8"]},
    "config.hooks": {"inFlight": 9},
    "config.metricInformer.pods.allowedAddresses": ["127.0.0.0/8"],
    "config.namespaces": "default,b",
    "containerSecurityContext": {"privileged": False},
    "controllerManager": {"replicas": 3},
    "env": [{"name": "A", "value": "b"}],
    "extraVolumeMounts": [{"name": "x", "mountPath": "/x"}],
    "extraVolumes": [{"name": "x", "emptyDir": {}}],
    "for": "7h",
    "from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
    "hooks.url": "https://192.0.2.1",
    "image.digest": "sha256:" + "ab" * 32,
    "imagePullSecrets": [{"name": "pull"}],
    "interval": "7s",
    "loadBalancerSourceRanges": ["192.0.2.0/24"],
    "metacontroller.commandArgs": ["--apply-strategy=server-side-apply"],
    "metricsService": {"type": "NodePort"},
    "beamlit-gateway": {"replicaCount": 3},
    "minAvailable": "50%",
    "podSecurityContext": {"fsGroup": 7},
    "resources": {"limits": {"memory": "7Gi"}},
    "runbooks": "https://runbooks.example",
    "timeoutSeconds": 1.5,
    "tokenUrl": "https://other.example/token",
    "tolerations": [{"operator": "Exists"}],
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
}
"""Another value, by path or its last part, where one cannot be made up from the type."""

WITHOUT_EFFECT: Final[Mapping[str, str]] = {
    "config.defaultRemoteBackend.authConfig.type": "there is one so far",
}
"""Values that change no manifest, each with the reason."""

OF_THE_DEPENDENCY: Final = frozenset(
    {
        "metacontroller.podSecurityContext",
        "metacontroller.rbac.create",
        "metacontroller.resources",
        "metacontroller.securityContext",
    }
)
"""Values that only Metacontroller's own chart obeys."""


def another(one: Setting) -> Any:
    """Return a value that the schema allows and that is not the default."""
    for key in (one.path, one.path.rpartition(".")[2]):
        if key in SAMPLES:
            return SAMPLES[key]
    schema = allowed(one)
    if "enum" in schema:
        return next(value for value in schema["enum"] if value not in (one.default, ""))
    if isinstance(one.default, bool):
        return not one.default
    if isinstance(one.default, int | float):
        return one.default + 1
    if isinstance(one.default, dict):
        return {**one.default, "added": "word"}
    return "another"


@functools.cache
def steady(chart: Path, words: tuple[str, ...]) -> str:
    """Return the rendered objects as text."""
    return yaml.safe_dump_all(template(chart, *STEADY, *words))


def does_something(chart: Path, path: str, folder: Path) -> bool:
    """Return whether another value changes a manifest or the notes."""
    return yaml.safe_dump_all(template(chart, *changed(path, folder))) != steady(chart, CONTEXTS.get(path, ()))


def changed(path: str, folder: Path) -> tuple[str, ...]:
    """Return flags that give a value another one, by a file in the folder, with the values that it needs to have an
    effect."""
    nested: Any = another(SETTINGS[path])
    for key in reversed(path.split(".")):
        nested = {key: nested}
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(nested))
    # helm prefers --set to a file, so the context's flag for the same path is left out.
    context = (*STEADY, *CONTEXTS.get(path, ()))
    return (*(word for word in context if not word.startswith(f"--set={path}=")), "--values", str(file))


@pytest.mark.parametrize("path", sorted(SETTINGS.keys() - WITHOUT_EFFECT.keys() - OF_THE_DEPENDENCY))
def test_every_value_does_something(noted: Path, path: str, tmp_path: Path) -> None:
    """Another value changes a manifest or the notes."""
    assert does_something(noted, path, tmp_path), f"{path} has no effect"


@pytest.mark.parametrize("path", sorted(OF_THE_DEPENDENCY))
def test_the_dependency_obeys_its_values(real: Path, path: str, tmp_path: Path) -> None:
    """Another value changes a manifest of Metacontroller's own chart."""
    assert does_something(real, path, tmp_path), f"{path} has no effect"


@pytest.mark.parametrize("path", WITHOUT_EFFECT)
def test_what_has_no_effect_has_none(noted: Path, path: str, tmp_path: Path) -> None:
    """A value in the list of exceptions has no other allowed value, or changes nothing."""
    schema = allowed(SETTINGS[path])
    assert len(schema.get("enum", ())) == 1 or not does_something(noted, path, tmp_path)


def test_contexts_are_of_values_that_there_are() -> None:
    """Every context belongs to a value of the chart."""
    assert CONTEXTS.keys() <= SETTINGS.keys()


def test_the_dependencys_values_are_its_own(real: Path) -> None:
    """Values below metacontroller reach its chart, and keys that this chart does not know are allowed there."""
    objects = template(real, "--set=metacontroller.image.tag=v9", "--set=metacontroller.resources.limits.memory=5Gi",
                       "--set=metrics-server.args={--x}", "--set=global.any=thing")  # fmt: skip
    (container,) = kind(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert container["image"].endswith(":v9")
    assert container["resources"]["limits"]["memory"] == "5Gi"
    flags = ("--workers=20", "--client-go-qps=100", "--client-go-burst=200")
    assert set(flags) <= set(container["args"])
    assert "--target-label-selector=app.kubernetes.io/part-of=beamlit-controller" in container["args"]
    labels = [one["metadata"]["labels"] for one in objects if one["kind"] == "CompositeController"]
    assert [one["app.kubernetes.io/part-of"] for one in labels] == ["beamlit-controller"] * 2


@pytest.mark.parametrize("given", ["true", "false"])
def test_c33_metrics_server_is_installed_on_request(chart: Path, given: str) -> None:
    """installMetricServer alone decides whether metrics-server is installed. The original's chart read another spelling
    than its values had, and always installed it."""
    names = [one["metadata"]["name"] for one in template(chart, f"--set=installMetricServer={given}")]
    assert ("metrics-server-is-here" in names) is (given == "true")
    assert "metrics-server-is-here" not in [one["metadata"]["name"] for one in template(chart)]


ORIGINAL: Final = """
controllerManager:
  manager: {image: {repository: example.com/controller, tag: latest}, resources: {limits: {cpu: 500m}}}
  replicas: 1
  serviceAccount: {annotations: {}}
kubernetesClusterDomain: cluster.local
metricsService: {type: ClusterIP, ports: [{name: https, port: 8443}]}
beamlitApiToken: REPLACE_ME
beamlitBaseUrl: https://api.beamlit.dev/v0
allowedNamespaces: [default]
config:
  enableHTTP2: false
  secureMetrics: false
  namespaces: default
  defaultRemoteBackend:
    host: run.beamlit.dev
    pathPrefix: /$workspace/$model
    authConfig:
      type: oauth
      oauthConfig: {clientId: REPLACE_ME, clientSecret: REPLACE_ME, tokenUrl: "https://api.beamlit.dev/v0/oauth/token"}
    scheme: https
  metricInformer: {type: prometheus, prometheus: {address: "prometheus:9090"}}
  proxyService: {namespace: beamlit, name: proxy-beamlit-proxy, port: 8080, adminPort: 8081}
installMetricServer: false
installBeamlitGateway: true
metrics-server: {args: [--kubelet-insecure-tls]}
beamlit-gateway: {replicaCount: 2, service: {proxyPort: 8080}}
"""


def test_a_values_file_of_the_original(noted: Path, tmp_path: Path) -> None:
    """The original's values file installs unchanged, its placeholders are no credentials, and the notes name values
    without effect."""
    file = tmp_path / "values.yaml"
    file.write_text(ORIGINAL)
    objects = template(noted, "--values", str(file))
    assert not [one for one in objects if one["kind"] == "Secret" and not one["metadata"]["name"].endswith("-tls")]
    config = yaml.safe_load(kind(objects, "ConfigMap", "-config")["data"]["config.yaml"])
    assert config["defaultRemoteBackend"]["authConfig"] is None
    assert config["proxyService"]["name"] == "beamlit-beamlit-controller-gateway"
    notes = kind(objects, "ConfigMap", "notes")["data"]["notes"]
    for key in ("controllerManager", "metricsService", "beamlit-gateway"):
        assert f"{key} is a value of the original controller and has no effect" in notes


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ("gatway: {replicas: 3}", "gatway"),
        ("installMetricsServer: true", "installMetricsServer"),
        ("config: {defaultRemoteBackend: {schema: http}}", "schema"),
        ("config: {defaultRemoteBackend: {scheme: ftp}}", "scheme"),
        ("config: {defaultRemoteBackend: {location: {country: France}}}", "country"),
        ("config: {defaultRemoteBackend: {flavors: [{type: gpu}]}}", "name"),
        ("config: {defaultRemoteBackend: {authConfig: {type: basic}}}", "type"),
        ("config: {gateway: {limits: {bodyByte: 1}}}", "bodyByte"),
        ("config: {gateway: {timeouts: {connectSeconds: 0}}}", "connectSeconds"),
        ("config: {gateway: {lameDuckSeconds: 9}}", "lameDuckSeconds"),
        ("config: {hooks: {listen: '0.0.0.0:1'}}", "listen"),
        ("config: {namespaces: [a, B]}", "namespaces"),
        ("config: {namespaces: 5}", "namespaces"),
        ("config: {metricInformer: {type: graphite}}", "type"),
        ("config: {metricInformer: {resolutionSeconds: 0}}", "resolutionSeconds"),
        ("config: {metricInformer: {pods: {allowedAddresses: 127.0.0.1}}}", "allowedAddresses"),
        ("config: {metricInformer: {pods: {addresses: [127.0.0.1]}}}", "addresses"),
        ("config: {metricInformer: {prometheus: {address: 'ftp://p'}}}", "address"),
        ("config: {metricInformer: {prometheus: {address: 'http://a:b@p'}}}", "address"),
        ("config: {metricInformer: {prometheus: {timeoutSeconds: 60}}}", "timeoutSeconds"),
        ("config: {metricInformer: {prometheus: {namespaceLabel: kubernetes-namespace}}}", "namespaceLabel"),
        ("config: {metricInformer: {prometheus: {bearerFile: /token}}}", "bearerFile"),
        ("config: {metricInformer: {prometheus: {basicAuth: {user: a}}}}", "user"),
        ("beamlitBaseUrl: api.beamlit.dev/v0", "beamlitBaseUrl"),
        ("beamlitBaseUrl: 'https://a:b@api.beamlit.dev/v0'", "beamlitBaseUrl"),
        ("beamlitApiToken: 7", "beamlitApiToken"),
        ("beamlitApiTokenExistingSecret: Upper_Case", "beamlitApiTokenExistingSecret"),
        ("allowedNamespaces: [a, a]", "allowedNamespaces"),
        ("allowedNamespaces: a", "allowedNamespaces"),
        ("gateway: {replicas: many}", "replicas"),
        ("gateway: {replicas: -1}", "replicas"),
        ("gateway: {service: {port: 70000}}", "port"),
        ("gateway: {service: {port: 0}}", "port"),
        ("gateway: {service: {type: ExternalName}}", "type"),
        ("gateway: {podDisruptionBudget: {maxUnavailable: half}}", "maxUnavailable"),
        ("gateway: {autoscaling: {minReplicas: 0}}", "minReplicas"),
        ("gateway: {drainSeconds: 1.5}", "drainSeconds"),
        ("gateway: {env: [{nam: A}]}", "nam"),
        ("gateway: {env: [{name: A, value: 1}]}", "value"),
        ("gateway: {tolerations: [{effect: Never}]}", "effect"),
        ("gateway: {podLabels: {a: 1}}", "podLabels"),
        ("gateway: {resources: {limit: {memory: 1Gi}}}", "limit"),
        ("gateway: {networkPolicy: {from: [{}]}}", "from"),
        ("monitoring: {from: [{pods: x}]}", "pods"),
        ("monitoring: {prometheusRule: {alerts: {hooksFail: {percentage: 101}}}}", "percentage"),
        ("monitoring: {prometheusRule: {alerts: {hooksFail: {for: 5}}}}", "for"),
        ("monitoring: {prometheusRule: {alerts: {hookFails: {for: 5m}}}}", "hookFails"),
        ("monitoring: {prometheusRule: {runbooks: docs/runbooks}}", "runbooks"),
        ("hooks: {url: 'ftp://x'}", "url"),
        ("hooks: {url: 'http://x/path'}", "url"),
        ("hooks: {tls: {existingSecret: Upper_Case}}", "existingSecret"),
        ("hooks: {extraVolumeMounts: [{name: x}]}", "mountPath"),
        ("image: {digest: 'sha256:abc'}", "digest"),
        ("image: {pullPolicy: Sometimes}", "pullPolicy"),
        ("imagePullSecrets: [pull]", "imagePullSecrets"),
        ("podSecurityContext: {runasuser: 1}", "runasuser"),
        ("metacontroller: {enabled: 'yes'}", "enabled"),
        ("metacontroller: {serviceAccount: {name: ''}}", "name"),
    ],
)
def test_the_schema_refuses(chart: Path, values: str, sentence: str, tmp_path: Path) -> None:
    """A value that is misspelled, of the wrong type or out of range is an error that names the key."""
    file = tmp_path / "values.yaml"
    file.write_text(values)
    with pytest.raises(HelmFailed, match=rf"schema.*[\s\S]*{sentence}"):
        template(chart, "--values", str(file))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((f"--set={CREDENTIALS}.clientId=x",), "belong together"),
        ((f"--set={CREDENTIALS}.clientSecret=x",), "belong together"),
        ((f"--set={CREDENTIALS}.caSecret=x,{CREDENTIALS}.caConfigMap=x",), "caSecret exclude each other"),
        (("--set=config.metricInformer.type=prometheus",), "address is empty"),
        ((*SERVER, f"--set={PROMETHEUS}.basicAuth.username=x"), "belong together"),
        ((*SERVER, f"--set={PROMETHEUS}.basicAuth.password=x"), "belong together"),
        ((*BASIC, f"--set={PROMETHEUS}.bearer.token=x"), "basicAuth and bearer exclude each other"),
        ((*BASIC, f"--set={PROMETHEUS}.bearer.existingSecret=x"), "basicAuth and bearer exclude each other"),
        ((*SERVER, f"--set={PROMETHEUS}.caSecret=x,{PROMETHEUS}.caConfigMap=x"), "caSecret exclude each other"),
        ((*SERVER, f"--set={PROMETHEUS}.caSecret=x,{PROMETHEUS}.insecureSkipVerify=true"), "would have no effect"),
        ((*SERVER, f"--set={PROMETHEUS}.caSecret=x,{PROMETHEUS}.address=p:9090"), "begin with https://"),
        ((*SERVER, f"--set={PROMETHEUS}.insecureSkipVerify=true,{PROMETHEUS}.address=http://p"), "begin with https://"),
        (("--set=beamlitApiToken=x",), "beamlitApiToken must be base64 of clientId:clientSecret"),
        (("--set=beamlitApiToken=Y2FuYXJ5",), "beamlitApiToken must be base64 of clientId:clientSecret"),
        (("--set=beamlitApiToken=OmNhbmFyeQ==",), "beamlitApiToken must be base64 of clientId:clientSecret"),
        (("--set=beamlitApiToken=Y2FuYXJ5Og==",), "beamlitApiToken must be base64 of clientId:clientSecret"),
        ((f"--set=beamlitApiToken={TOKEN}", "--set=beamlitBaseUrl="), "beamlitBaseUrl is empty"),
        (("--set=beamlitApiTokenExistingSecret=x", "--set=beamlitBaseUrl="), "beamlitBaseUrl is empty"),
        (("--set=hooks.env[0].name=BEAMLIT_TOKEN",), "a Secret that beamlitApiTokenExistingSecret names"),
        (("--set=hooks.env[0].name=BEAMLIT_PLATFORM__TOKEN_FILE",), "beamlitApiTokenExistingSecret names"),
        (("--set=hooks.tls.existingSecret=x",), "needs hooks.tls.caBundle or hooks.tls.caConfigMap"),
        (("--set=gateway.access.jwtCaConfigMap=x",), "belongs to config.gateway.access.jwt"),
        (("--set=hooks.tls.caBundle=x",), "belong to hooks.tls.existingSecret"),
        (("--set=hooks.tls.caConfigMap=x",), "belong to hooks.tls.existingSecret"),
        (("--set=allowedNamespaces={a}",), "config.namespaces names default, where Metacontroller may not write"),
        (("--set=allowedNamespaces={a}", "--set=config.namespaces="), "config.namespaces is empty"),
        (("--set=config.namespaces=null",), r"config.namespaces is left blank: .* or write \[\] for all"),
        (("--set=gateway.autoscaling.enabled=true,gateway.autoscaling.maxReplicas=1",), "minReplicas 2 is above"),
        (("--set=monitoring.podMonitor.enabled=true,monitoring.serviceMonitor.enabled=true",), "every metric twice"),
        (("--set=gateway.replicas=1,gateway.podDisruptionBudget.minAvailable=1",), "could ever be drained"),
        (("--set=hooks.podDisruptionBudget.minAvailable=2",), "could ever be drained"),
        (("--set=hooks.podDisruptionBudget.minAvailable=100%",), "could ever be drained"),
        (("--set=gateway.podDisruptionBudget.maxUnavailable=0",), "could ever be drained"),
    ],
)
def test_what_cannot_work_is_refused(chart: Path, words: tuple[str, ...], sentence: str) -> None:
    """A combination that would install and then not work is refused with a sentence that says what to set."""
    with pytest.raises(HelmFailed, match=sentence):
        template(chart, *words)


def below(path: tuple[str, ...], value: object) -> str:
    """Return a values file that has a value at a path."""
    nested = value
    for key in reversed(path):
        nested = {key: nested}
    return yaml.safe_dump(nested)


def mappings(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every value that is a mapping, at every depth."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield (*path, key)
            yield from mappings(value, (*path, key))


@functools.cache
def default_text(chart: Path) -> str:
    """Return what the chart renders to with its defaults."""
    return template_text(chart)


MAPPINGS: Final = tuple(mappings(yaml.safe_load((CHART / "values.yaml").read_text())))
OF_KUBERNETES: Final = ("resources", "podSecurityContext", "containerSecurityContext", "securityContext")
"""Mappings of Kubernetes. A null in them, or for them, takes away what the chart has there, as Helm has it."""


def refused(path: tuple[str, ...]) -> str:
    """Return a regular expression for the error about a value that must not be blank.

    Helm calls it missing where the dependency has a value of this name.
    """
    return rf"{'[./]'.join(path)}'?|{'/'.join(path[:-1])}'?: missing propert.*'{path[-1]}'"


@pytest.mark.parametrize("path", MAPPINGS, ids=".".join)
def test_an_emptied_section_has_its_defaults(chart: Path, path: tuple[str, ...], tmp_path: Path) -> None:
    """A mapping that is empty, or null because everything in it is commented out, has its defaults. A null means none
    for a remote backend and for mappings of Kubernetes, and is refused, by its name, in values of the dependency."""
    (tmp_path / "empty.yaml").write_text(below(path, {}))
    assert template_text(chart, "--values", str(tmp_path / "empty.yaml")) == default_text(chart)

    (tmp_path / "null.yaml").write_text(below(path, None))
    null = ("--values", str(tmp_path / "null.yaml"))
    if path[0] == "metacontroller" and not set(path[1:-1]) & {"podSecurityContext", "securityContext"}:
        with pytest.raises(HelmFailed, match=refused(path)):
            template_text(chart, *null)
        return
    if path == ("config", "defaultRemoteBackend"):
        config = yaml.safe_load(kind(template(chart, *null), "ConfigMap", "-config")["data"]["config.yaml"])
        assert not config["defaultRemoteBackend"]["host"]
    is_default = path != ("config", "defaultRemoteBackend") and not set(path) & set(OF_KUBERNETES)
    assert (template_text(chart, *null) == default_text(chart)) is is_default


@pytest.mark.parametrize("path", sorted(SETTINGS))
def test_a_blank_value_has_its_default(chart: Path, path: str, tmp_path: Path) -> None:
    """A single value that is left blank has its default, or is refused by its name where that would be a guess."""
    file = tmp_path / "values.yaml"
    file.write_text(below(tuple(path.split(".")), None))
    if path.startswith("metacontroller.") or path in ("config.namespaces", "installMetricServer"):
        with pytest.raises(HelmFailed, match=refused(tuple(path.split(".")))):
            template_text(chart, "--values", str(file))
        return
    # Without credentials there is no authentication in the default rendering either.
    is_default = path not in NONE_WHEN_BLANK - {"config.defaultRemoteBackend.authConfig"}
    assert (template_text(chart, "--values", str(file)) == default_text(chart)) is is_default


@pytest.mark.parametrize("path", sorted((CHART / "templates").rglob("*.yaml")), ids=lambda path: path.name)
def test_every_template_puts_the_defaults_in_first(path: Path) -> None:
    """Each template begins by putting in the defaults of what is left blank, for any may be rendered first."""
    assert path.read_text().startswith('{{- include "beamlit.fill" . -}}\n')


def test_the_schema_has_every_default() -> None:
    """Each described value has a type of its own in the schema."""
    schema = json.loads((ROOT / "charts/beamlit-controller/values.schema.json").read_text())
    for path in SETTINGS:
        place = schema
        for key in path.split("."):
            place = place["properties"][key]
        assert place.keys() & {"type", "enum", "anyOf"}, path
