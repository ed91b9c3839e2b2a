"""What the chart renders to, in every shape it has."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.helm import HelmFailed, helm, template, with_dependencies
from tests.e2e.binaries import find

SEED = (
    "--set=installMetricServer=true",
    "--set=beamlitApiToken=canary-token",
    "--set=config.defaultRemoteBackend.authConfig.oauthConfig.clientId=canary-id",
    "--set=config.defaultRemoteBackend.authConfig.oauthConfig.clientSecret=canary-secret",
)
PRESETS: dict[str, tuple[str, ...]] = {
    "default": (),
    "seed": SEED,
    "outside": ("--set=hooks.url=http://192.0.2.1:8082",),
    "restricted": ("--set=allowedNamespaces={a,b}", "--set=config.namespaces=a\\,b"),
    "everywhere": ("--set=config.namespaces=",),
    "bearer": ("--set=hooks.auth.bearer.enabled=true",),
    "own secrets": (
        "--set=hooks.tls.existingSecret=mine",
        "--set=hooks.tls.caConfigMap=bundle",
        "--set=config.defaultRemoteBackend.authConfig.oauthConfig.existingSecret=theirs",
        "--set=hooks.auth.bearer.enabled=true",
        "--set=hooks.auth.bearer.existingSecret=token",
    ),
    "scaled": ("--set=gateway.autoscaling.enabled=true", "--set=image.digest=sha256:abc"),
    "bare": (
        "--set=gateway.podDisruptionBudget.enabled=false",
        "--set=gateway.networkPolicy.enabled=false",
        "--set=hooks.networkPolicy.enabled=false",
        "--set=metacontroller.enabled=false",
        "--set=gateway.spreadOverNodes=false",
    ),
    "labeled": (
        "--set=commonLabels.team=x",
        "--set=commonAnnotations.owner=y",
        "--set=gateway.service.annotations.lb=z",
        "--set=hooks.priorityClassName=high",
        "--set=gateway.nodeSelector.gpu=no",
        "--set=imagePullSecrets[0].name=pull",
    ),
}
preset = pytest.mark.parametrize("words", PRESETS.values(), ids=PRESETS.keys())


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart with its dependencies. Skipped by name without helm; in CI that is a failure."""
    if find("helm") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("helm is missing: `make e2e` builds it")
        pytest.skip("helm is missing: `make e2e` builds it")
    return with_dependencies(tmp_path_factory.mktemp("chart"))


def kind(objects: list[dict[str, Any]], wanted: str, suffix: str = "") -> dict[str, Any]:
    """The one object of a kind whose name ends so."""
    (found,) = [one for one in objects if one["kind"] == wanted and one["metadata"]["name"].endswith(suffix)]
    return found


def pods(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every pod specification of ours."""
    for one in objects:
        if one["kind"] == "Deployment":
            yield one["spec"]["template"]["spec"]
        elif one["kind"] == "Pod":
            yield one["spec"]


def test_lint(chart: Path) -> None:
    """helm has nothing to complain about."""
    assert "0 chart(s) failed" in helm("lint", "--strict", str(chart))


@preset
def test_pods_are_restricted(chart: Path, words: tuple[str, ...]) -> None:
    """The restricted Pod Security Standard, a read-only root, no service links, limits and probes."""
    for spec in pods(template(chart, *words)):
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]
            if spec.get("restartPolicy") != "Never":
                assert container["livenessProbe"]
                assert container["readinessProbe"]


@preset
def test_everything_is_ours_by_label(chart: Path, words: tuple[str, ...]) -> None:
    """Every object says which release it belongs to, and selectors find the pods."""
    objects = template(chart, *words)
    names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects]
    assert len(set(names)) == len(names)
    for one in objects:
        if one["kind"] == "Deployment":
            labels = one["spec"]["template"]["metadata"]["labels"]
            assert one["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_the_seeds_command_line(chart: Path) -> None:
    """The original's flags work word for word, and no secret of theirs is in a ConfigMap, an argument or a note."""
    objects = template(chart, *SEED)
    for one in objects:
        if one["kind"] != "Secret":
            assert "canary" not in yaml.safe_dump(one), one["metadata"]["name"]
    assert kind(objects, "Secret", "-remote")["stringData"] == {
        "clientId": "canary-id",
        "clientSecret": "canary-secret",
    }
    assert kind(objects, "Secret", "-platform")["stringData"] == {"token": "canary-token"}
    config = yaml.safe_load(kind(objects, "ConfigMap", "-config")["data"]["config.yaml"])
    oauth = config["defaultRemoteBackend"]["authConfig"]["oauthConfig"]
    assert oauth["clientSecretFile"] == "/etc/beamlit/credentials/clientSecret"
    mounts = kind(objects, "Deployment", "-gateway")["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert {"name": "credentials", "mountPath": "/etc/beamlit/credentials", "readOnly": True} in mounts


@preset
def test_the_configuration_is_one_that_both_programs_take(chart: Path, words: tuple[str, ...], tmp_path: Path) -> None:
    """What the chart writes, hooks and gateway read."""
    from gateway.settings import Settings as GatewaySettings
    from hooks.settings import Settings as HooksSettings

    path = tmp_path / "config.yaml"
    path.write_text(kind(template(chart, *words), "ConfigMap", "-config")["data"]["config.yaml"])
    hooks = HooksSettings.load(path, environment={})
    gateway = GatewaySettings.load(path, environment={})
    service = hooks.install_defaults.gateway_service
    assert service is not None
    assert (service.namespace, service.name, service.port) == ("sys", "beamlit-beamlit-controller-gateway", 80)
    assert gateway.gateway.lame_duck_seconds == 5


def test_the_flags_are_those_of_the_programs(chart: Path) -> None:
    """The commands of the containers parse."""
    from gateway.__main__ import parser as gateway_parser
    from hooks.__main__ import parser as hooks_parser

    objects = template(chart, *PRESETS["bearer"])
    for suffix, parser in (("-hooks", hooks_parser()), ("-gateway", gateway_parser())):
        args = kind(objects, "Deployment", suffix)["spec"]["template"]["spec"]["containers"][0]["args"]
        assert args[:3] == ["python", "-m", suffix[1:]]
        parser.parse_args(args[3:])


def rules(one: dict[str, Any]) -> set[tuple[str, str, str]]:
    """Group, resource and verb of every rule."""
    return {
        (group, resource, verb)
        for rule in one["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_rbac_is_what_is_used(chart: Path) -> None:
    """No wildcard; Secrets are read by name by the gateway alone, and listed by nobody."""
    objects = template(chart)
    roles = [one for one in objects if one["kind"] in ("Role", "ClusterRole")]
    every = set().union(*map(rules, roles))
    assert not any("*" in part for rule in every for part in rule)
    assert {rule for rule in every if rule[1] == "secrets"} == {("", "secrets", "get")}
    gateway = rules(kind(roles, "Role", "-gateway"))
    assert gateway == {
        ("", "configmaps", "list"),
        ("", "configmaps", "watch"),
        ("", "secrets", "get"),
        ("deployment.beamlit.com", "modeldeployments", "get"),
    }


def test_writes_stay_in_the_allowed_namespaces(chart: Path) -> None:
    """With allowedNamespaces the write verbs are in Roles, and the ClusterRole only reads children."""
    objects = template(chart, *PRESETS["restricted"])
    cluster = rules(kind(objects, "ClusterRole", "-metacontroller"))
    assert not {rule for rule in cluster if rule[1] in ("deployments", "services", "configmaps")} & {
        (group, resource, verb)
        for group, resource in (("apps", "deployments"), ("", "services"), ("", "configmaps"))
        for verb in ("create", "update", "patch", "delete")
    }
    written = {one["metadata"]["namespace"] for one in objects if one["kind"] == "Role"
               and one["metadata"]["name"].endswith("-metacontroller")}  # fmt: skip
    assert written == {"a", "b"}


def test_the_bearer_has_its_price(chart: Path) -> None:
    """Only with the token switched on may Metacontroller list Secrets."""
    listed = ("", "secrets", "list")
    assert listed in rules(kind(template(chart, *PRESETS["bearer"]), "ClusterRole", "-metacontroller"))
    assert listed not in rules(kind(template(chart), "ClusterRole", "-metacontroller"))


def test_a_new_certificate_changes_the_url(chart: Path) -> None:
    """Metacontroller reads a CA only when its own object changes, so the query carries it."""
    first, second = (kind(template(chart), "CompositeController")["spec"]["hooks"] for _ in range(2))
    assert first["sync"]["webhook"]["url"] != second["sync"]["webhook"]["url"]  # generated anew without a cluster
    assert "BEGIN CERTIFICATE" in first["sync"]["webhook"]["caBundle"]["inline"]
    own = ("--set=hooks.tls.existingSecret=mine", "--set=hooks.tls.caConfigMap=bundle")
    before = kind(template(chart, *own), "CompositeController")["spec"]["hooks"]["sync"]["webhook"]
    after = kind(template(chart, *own, "--set-string=hooks.tls.generation=2"), "CompositeController")["spec"]["hooks"]
    assert before["caBundle"] == {"configMapRef": {"name": "bundle", "namespace": "sys", "key": "ca.crt"}}
    assert before["url"] != after["sync"]["webhook"]["url"]


def test_hooks_outside_the_cluster(chart: Path) -> None:
    """With hooks.url nothing of hooks is deployed, and Metacontroller asks there."""
    objects = template(chart, *PRESETS["outside"])
    assert not [one for one in objects if one["kind"] == "Deployment" and one["metadata"]["name"].endswith("-hooks")]
    webhook = kind(objects, "CompositeController")["spec"]["hooks"]["sync"]["webhook"]
    assert webhook["url"].startswith("http://192.0.2.1:8082/modeldeployments/sync?v=")
    assert "caBundle" not in webhook


def test_the_composite_controller_is_the_one_of_the_repository(chart: Path) -> None:
    """But for names, address and certificate it is metacontroller/compositecontroller.yaml."""
    ours = yaml.safe_load((Path(__file__).parents[2] / "metacontroller/compositecontroller.yaml").read_text())["spec"]
    theirs = kind(template(chart, *PRESETS["outside"]), "CompositeController")["spec"]
    for spec in (ours, theirs):
        for hook in spec["hooks"].values():
            del hook["webhook"]["url"]
    assert theirs == ours


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("--set=gatway.replicas=3", "gatway"),
        ("--set=config.defaultRemoteBackend.schema=http", "schema"),
        ("--set=config.defaultRemoteBackend.scheme=ftp", "scheme"),
        ("--set=gateway.replicas=many", "replicas"),
    ],
)
def test_the_schema_refuses_what_is_misspelled(chart: Path, word: str, sentence: str) -> None:
    """A key that nobody obeys is an error that names it."""
    with pytest.raises(HelmFailed, match=sentence):
        template(chart, word)
