"""The text that helm prints after an installation: commands that fit the values, and warnings."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.chart.helm import kind, template


def notes(chart: Path, *words: str) -> str:
    """Return the notes for these values."""
    text: str = kind(template(chart, *words), "ConfigMap", "notes")["data"]["notes"]
    return text


def commands(text: str) -> list[list[str]]:
    """Return the words of each command in the notes."""
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith("  ")]


def test_the_next_three_commands(noted: Path) -> None:
    """The notes apply a model, wait for it and send a request, in a served namespace and at the gateway's Service."""
    apply, wait, ask, delete = commands(notes(noted))
    assert apply == ["kubectl", "apply", "--namespace", "default", "-f", "my-model.yaml"]
    assert wait[:5] == ["kubectl", "wait", "--namespace", "default", "--for=condition=Ready"]
    assert wait[-2:] == ["modeldeployments", "--all"]
    path = "/api/v1/namespaces/sys/services/beamlit-beamlit-controller-gateway:80/proxy/v1/models"
    assert ask == ["kubectl", "get", "--raw", path]
    assert delete == ["kubectl", "delete", "modeldeployments.deployment.beamlit.com", "-A", "--all"]


@pytest.mark.parametrize(
    ("word", "namespace"), [("--set=config.namespaces=b\\,a", "b"), ("--set=config.namespaces=", "default")]
)
def test_commands_are_for_a_namespace_that_is_served(noted: Path, word: str, namespace: str) -> None:
    """The commands name a served namespace, as a ModelDeployment elsewhere would be refused."""
    for command in commands(notes(noted, word))[:2]:
        assert command[command.index("--namespace") + 1] == namespace


def test_where_clients_ask(noted: Path) -> None:
    """The gateway's address has the port unless that is 80, and https when the gateway has a certificate."""
    assert "http://beamlit-beamlit-controller-gateway.sys." in notes(noted)
    assert "http://beamlit-beamlit-controller-gateway.sys:8000." in notes(noted, "--set=gateway.service.port=8000")
    tls = ("--set=config.gateway.tls.certFile=/c", "--set=config.gateway.tls.keyFile=/k")
    text = notes(noted, *tls, "--set=gateway.service.port=443")
    assert "https://beamlit-beamlit-controller-gateway.sys:443." in text
    assert "/services/https:beamlit-beamlit-controller-gateway:443/proxy/v1/models" in text
    ask: Any = kind(template(noted, *tls), "Pod", "-test")["spec"]["containers"][0]["args"][-1]
    assert '"https://beamlit-beamlit-controller-gateway:80/v1/models"' in ask


def test_the_page_of_a_gateway(noted: Path) -> None:
    """The notes say how to see the page of a gateway, in the namespace of the release, where there is one."""
    forward = "kubectl port-forward --namespace sys deploy/beamlit-beamlit-controller-gateway 8081"
    assert forward in notes(noted).splitlines()
    assert "port-forward" not in notes(noted, "--set=installBeamlitGateway=false")


POLICIES = ("--api-versions=admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy",)
WORKSPACE = "--set=config.defaultRemoteBackend.workspace=w"
PROMETHEUS = ("--set=config.metricInformer.type=prometheus", "--set=config.metricInformer.prometheus.address=p:9090")
PLATFORM = ("--set=beamlitApiTokenExistingSecret=api",)
JWT = ("--set=config.gateway.access.jwt.issuer=https://issuer.example,config.gateway.access.jwt.audiences={a}",)
OAUTH = "--set=config.defaultRemoteBackend.authConfig.oauthConfig.existingSecret=s"


@pytest.mark.parametrize(
    ("without", "with_", "words"),
    [
        ((), (WORKSPACE,), "config.defaultRemoteBackend.workspace"),
        ((), ("--set=config.defaultRemoteBackend.host=",), "config.defaultRemoteBackend.workspace"),
        ((), (OAUTH,), "no credentials"),
        ((), ("--set=config.gateway.clusterRanges={10.0.0.0/8}",), "clusterRanges is empty"),
        ((), ("--set=gateway.access.existingSecret=keys",), "Everyone who can reach the gateway may use every model"),
        ((), JWT, "Everyone who can reach the gateway may use every model"),
        (JWT, (), "Requests need a token of https://issuer.example: `Authorization: Bearer <token>`"),
        ((*JWT, "--set=gateway.access.existingSecret=keys"), JWT, "A token of https://issuer.example does, too."),
        ((), ("--set=installBeamlitGateway=false",), "Everyone who can reach the gateway may use every model"),
        (
            ("--set=gateway.access.existingSecret=keys",),
            (),
            "a value of the Secret keys: `Authorization: Bearer <key>`",
        ),
        ((), ("--set=installMetricServer=true",), "serves no metrics.k8s.io"),
        ((), ("--api-versions=metrics.k8s.io/v1beta1",), "serves no metrics.k8s.io"),
        ((), PROMETHEUS, "serves no metrics.k8s.io"),
        ((), ("--set=hooks.url=http://x",), "serves no metrics.k8s.io"),
        ((*PROMETHEUS, "--set=config.namespaces="), PROMETHEUS, "namespaceLabel is empty"),
        ((*PROMETHEUS, "--set=config.namespaces="), (), "namespaceLabel is empty"),
        (
            (*PROMETHEUS, "--set=config.namespaces={a,b}"),
            (*PROMETHEUS, "--set=config.namespaces={a,b}", "--set=config.metricInformer.prometheus.namespaceLabel=ns"),
            "namespaceLabel is empty",
        ),
        (("--set=hooks.auth.bearer.enabled=true",), (), "lists and watches all Secrets"),
        (("--set=allowedNamespaces={default}",), (), "may write in default only"),
        (("--set=hooks.url=http://x",), (), "Nothing of hooks was deployed"),
        ((), PLATFORM, "There is no token of the Beamlit platform"),
        (PLATFORM, (), "registered with the platform at https://api.beamlit.dev/v0, and removed"),
        (PLATFORM, (), "kubectl delete policies.authorization.beamlit.com -A --all"),
        ((*PLATFORM, "--set=hooks.url=http://x"), PLATFORM, "need the token themselves, in BEAMLIT_TOKEN"),
        (("--set=metacontroller.enabled=false",), (), "ServiceAccount metacontroller got its rights"),
        ((), POLICIES, "this cluster serves no ValidatingAdmissionPolicy"),
        ((*POLICIES, "--set=admissionPolicy.enabled=false"), POLICIES, "admissionPolicy.enabled is false"),
    ],
)
def test_warnings(noted: Path, without: tuple[str, ...], with_: tuple[str, ...], words: str) -> None:
    """Each warning is in the notes for the values that need it, and not for others."""
    assert words in notes(noted, *without)
    assert words not in notes(noted, *with_)
