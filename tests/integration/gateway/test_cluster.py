"""Which cluster the gateway asks, and as whom: flags, environment and the pod's own identity."""

import shutil
import ssl
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.config import incluster_config

from gateway import cluster
from gateway.cluster import ApiError, Cluster
from program.cluster import ClusterError
from tests.integration.apiserver import ApiServer
from tests.processes import self_signed

PATH = "/api/v1/namespaces/default/secrets/s"


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in a cluster nor with a kubeconfig."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def api() -> Iterator[ApiServer]:
    """A scripted API server with one object."""
    api = ApiServer()
    api.objects[PATH] = {"data": {}}
    api.start()
    yield api
    api.stop()


def kubeconfig(folder: Path, port: int, token: str, **rest: Any) -> Path:
    """A kubeconfig with a token."""
    path = folder / f"{token}.kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{port}", **rest}}],
        "users": [{"name": "x", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_flag_wins_over_the_environment(api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--kubeconfig` first, then `KUBECONFIG`, then the pod's own cluster."""
    flag, variable = (kubeconfig(tmp_path, api.port, name) for name in ("flag", "variable"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBECONFIG", str(variable))
    assert Cluster.load(flag).get(PATH) == {"data": {}}
    assert Cluster.load(None).get(PATH) == {"data": {}}
    assert api.tokens == ["Bearer flag", "Bearer variable"]


def test_the_environment_names_no_proxy(api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment would see every Secret; one in the kubeconfig is meant."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert Cluster.load(kubeconfig(tmp_path, api.port, "direct")).get(PATH) == {"data": {}}
    proxied = Cluster.load(kubeconfig(tmp_path, api.port, "proxied", **{"proxy-url": "http://127.0.0.1:1"}))
    with pytest.raises(ApiError):
        proxied.get(PATH)


def test_no_cluster_at_all() -> None:
    """The sentence names what to set."""
    with pytest.raises(ClusterError, match="--routes to a directory, or --kubeconfig"):
        Cluster.load(None)


@pytest.mark.parametrize(
    "content",
    ["", "[", "- a", "x", "a: b", "current-context: x", "contexts: 1\nclusters: 1\nusers: 1\ncurrent-context: x"],
)
def test_a_kubeconfig_that_is_none(tmp_path: Path, content: str) -> None:
    """One sentence on one line that names the file."""
    path = tmp_path / "broken"
    path.write_text(content)
    with pytest.raises(ClusterError) as caught:
        Cluster.load(path)
    assert str(caught.value).startswith(f"--kubeconfig {path} cannot be used: ")
    assert "\n" not in str(caught.value)


def test_a_pod_without_a_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a cluster, and without a service account: said as such."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "none"))
    with pytest.raises(
        ClusterError, match=r"^the pod's service account cannot be used: .*token file does not exist\.$"
    ):
        Cluster.load(None)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_rotated_token_is_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The kubelet replaces the file; a moment in which it is empty or broken is one failed call, no more.

    No proxy of the environment comes between.
    """
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    token = tmp_path / "token"
    token.write_text("one")
    api = ApiServer(context)
    api.objects[PATH] = {"data": {}}
    api.start()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "localhost")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(certificate))
    start: Any = incluster_config.InClusterConfigLoader.__init__

    def impatient(self: Any, *words: Any, **rest: Any) -> None:
        start(self, *words, **rest)
        assert self._token_refresh_period == timedelta(minutes=1)
        self._token_refresh_period = timedelta(0)

    monkeypatch.setattr(incluster_config.InClusterConfigLoader, "__init__", impatient)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    try:
        cluster = Cluster.load(None)
        cluster.get(PATH)
        token.write_text("")
        with pytest.raises(ApiError, match="empty"):
            cluster.get(PATH)
        token.write_text("canary\nx: y")
        with pytest.raises(ApiError, match="the token cannot be sent") as caught:
            cluster.get(PATH)
        assert "canary" not in str(caught.value)
        token.write_text("two\n")
        cluster.get(PATH)
    finally:
        api.stop()
    assert [value.split()[1] for value in api.tokens] == ["one", "two"]


def test_a_busy_api_server_is_asked_once_more(api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """429 is what the first reader of a custom resource may get: it is waited out, once."""
    monkeypatch.setattr(cluster, "BUSY_SECONDS", 0.05)
    asked = Cluster.load(kubeconfig(tmp_path, api.port, "busy"))
    api.statuses = [429]
    assert asked.get(PATH) == {"data": {}}
    api.statuses = [429, 429, 200]
    with pytest.raises(ApiError, match="429") as caught:
        asked.get(PATH)
    assert (caught.value.status, api.statuses) == (429, [200])
