"""What is wrong where kubectl fails, in words for whoever typed the command."""

import os
from pathlib import Path

import pytest

from hooks.kubectl.cluster import ClusterFailed, Kubectl, Refused, failure, parsed, path
from hooks.kubectl.live import service_path

FORBIDDEN = "Error from server (Forbidden): x is forbidden: "


@pytest.mark.parametrize(
    ("printed", "sentence"),
    [
        (
            f'{FORBIDDEN}User "ann" cannot list resource "pods" in API group "" in the namespace "a"',
            (
                "ann lacks the right to list pods in namespace a: `kubectl auth can-i list pods -n a` says so. Ask an"
                " administrator for it."
            ),
        ),
        (
            (
                f'{FORBIDDEN}User "system:serviceaccount:a:b" cannot'
                ' list resource "modeldeployments" in API group "deployment.beamlit.com" at the cluster scope'
            ),
            (
                "system:serviceaccount:a:b lacks the right to list modeldeployments.deployment.beamlit.com in all"
                " namespaces: `kubectl auth can-i list modeldeployments.deployment.beamlit.com --all-namespaces` says"
                " so. Ask an administrator for it."
            ),
        ),
        (
            (
                f'{FORBIDDEN}User "ann" cannot get resource "pods/proxy" in API group "" in the'
                ' namespace "beamlit-system": RBAC: no role'
            ),
            (
                "ann lacks the right to get pods/proxy in namespace beamlit-system: `kubectl auth can-i get pods"
                " --subresource=proxy -n beamlit-system` says so. Ask an administrator for it."
            ),
        ),
        (
            'Error from server (Forbidden): admission webhook "x" denied the request: not today.\n',
            'The API server refuses: admission webhook "x" denied the request: not today.',
        ),
        (
            'Error from server (NotFound): modeldeployments "x" not found',
            'The API server refuses: modeldeployments "x" not found.',
        ),
        (
            "Error from server (NotFound): the server could not find the requested resource",
            (
                "This cluster does not know the kind that it was asked for: install the chart, or see that the context"
                " is the right one (`kubectl config current-context`)."
            ),
        ),
        ("Error from server: etcd is away", "The API server refuses: etcd is away."),
        ('error: context "x" does not exist', 'kubectl: context "x" does not exist.'),
        ("W0301 a warning\nUnable to connect to the server: EOF\n", "kubectl: Unable to connect to the server: EOF."),
        (
            "The connection to the server localhost:8080 was refused - did you specify the right host or port?\n",
            (
                "kubectl: The connection to the server localhost:8080 was refused - did you specify the right host or"
                " port? This is what kubectl asks where it has no cluster: set KUBECONFIG, or give --kubeconfig or"
                " --context."
            ),
        ),
        (
            "The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?\n",
            "kubectl: The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?",
        ),
        ("", "kubectl: it failed."),
    ],
)
def test_a_failure(printed: str, sentence: str) -> None:
    """A missing right is named with the command that checks it; other failures are told in kubectl's words."""
    assert str(failure(printed)) == sentence
    assert isinstance(failure(printed), Refused) is printed.startswith("Error from server")


def test_paths_are_encoded() -> None:
    """A segment of a path cannot lead to another object."""
    assert path("api", "a/../b?c", "demo:80") == "/api/a%2F..%2Fb%3Fc/demo:80"


@pytest.mark.parametrize("content", [b"", b"[1]", b"nothing"])
def test_a_response_that_is_no_object(content: bytes) -> None:
    """Anything but a JSON object is an error, not a crash."""
    with pytest.raises(ClusterFailed, match="no JSON object"):
        parsed(content)


@pytest.mark.parametrize(
    ("address", "where"),
    [
        ("prometheus.monitoring:9090", "monitoring/services/prometheus:9090/proxy"),
        ("http://prometheus.monitoring.svc.cluster.local", "monitoring/services/prometheus:80/proxy"),
        ("https://prometheus.monitoring.svc/base/", "monitoring/services/https:prometheus:443/proxy/base"),
        ("localhost:9090", None),
        ("prometheus.example.com", None),
        ("192.0.2.7:9090", None),
    ],
)
def test_a_prometheus_in_the_cluster(address: str, where: str | None) -> None:
    """A Prometheus that is a Service is asked through the API server; any other address is none of its."""
    assert service_path(address) == (None if where is None else f"/api/v1/namespaces/{where}")


def kubectl(folder: Path, script: str) -> Kubectl:
    """Return a cluster whose kubectl is a shell script that writes its words to a file first."""
    program = folder / "kubectl"
    program.write_text(f'#!/bin/sh\necho "$@" > {folder}/words\n{script}\n')
    program.chmod(0o755)
    return Kubectl(str(program), ["--context=prod"])


async def test_a_port_is_forwarded(tmp_path: Path) -> None:
    """The port that kubectl forwards is given, and kubectl ends with the block."""
    forwarding = f"echo $$ > {tmp_path}/pid\necho a warning >&2\necho 'Forwarding from 127.0.0.1:4321 -> 8080'\n"
    async with kubectl(tmp_path, f"{forwarding}exec sleep 600").forward("system", "g1", 8080) as port:
        assert port == 4321
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    words = (tmp_path / "words").read_text()
    assert words == "--context=prod port-forward --namespace=system --address=127.0.0.1 pod/g1 :8080\n"


async def test_a_port_that_is_not_forwarded(tmp_path: Path) -> None:
    """A missing right to forward a port is named."""
    words = 'User "ann" cannot create resource "pods/portforward" in API group "" in the namespace "system"'
    cluster = kubectl(tmp_path, f"echo 'Error from server (Forbidden): pods is forbidden: {words}' >&2; exit 1")
    with pytest.raises(Refused, match="ann lacks the right to create pods/portforward in namespace system"):
        async with cluster.forward("system", "g1", 8080):
            pass
