"""Cluster and credentials of a program: flags, environment, credential plugins and the pod's own identity."""

import asyncio
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.config import incluster_config

from program.kubernetes import configuration, exec_plugin
from program.kubernetes.client import KubernetesClient
from program.kubernetes.connection import connect
from program.kubernetes.errors import ApiCredentialsError, ApiUnreachable, ClusterError
from tests.integration.apiserver import ApiServer, kubeconfig
from tests.processes import self_signed
from tools.repository import ROOT

PATH = "/api/v1/namespaces/default/secrets/s"
CANARY = "canary-of-the-token"


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables that name a cluster or a kubeconfig."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def api() -> Iterator[ApiServer]:
    """Yield an API server with one object."""
    api = ApiServer()
    api.objects[PATH] = {"data": {}}
    api.start()
    yield api
    api.stop()


async def connected(path: Path | None) -> KubernetesClient:
    """Return a client for the cluster that is configured."""
    client = await connect(path)
    assert client is not None
    return client


async def get(client: KubernetesClient) -> dict[str, Any]:
    """Read the object and return it."""
    return await client.get(PATH, read_seconds=10)


def test_a_user_without_a_home() -> None:
    """The client can be imported by a user who has no home directory, as in a container."""
    lines = (
        "import os, pwd",
        "def unknown(_): raise KeyError",
        "pwd.getpwuid = unknown",
        "os.environ.pop('HOME', None)",
        "import program.kubernetes.client",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=ROOT, check=True)


async def test_the_flag_wins_over_the_environment(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--kubeconfig` counts first, then `KUBECONFIG`, then the pod's own cluster."""
    flag, variable = (kubeconfig(tmp_path, api.port, name) for name in ("flag", "variable"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBECONFIG", str(variable))
    for path in (flag, None):
        async with await connected(path) as client:
            assert await get(client) == {"data": {}}
    assert api.tokens == ["Bearer flag", "Bearer variable"]


async def test_the_environment_names_no_proxy(api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment, which would see every Secret, is not used; one in the kubeconfig is."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with await connected(kubeconfig(tmp_path, api.port, "direct")) as client:
        assert await get(client) == {"data": {}}
    proxy: dict[str, Any] = {"proxy-url": "http://127.0.0.1:1"}
    proxied = kubeconfig(tmp_path, api.port, "proxied", **proxy)
    async with await connected(proxied) as client:
        with pytest.raises(ApiUnreachable):
            await get(client)


async def test_the_environment_names_no_credentials(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A netrc file of the environment gives a user without a token no password."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with await connected(kubeconfig(tmp_path, api.port, "anonymous", user={})) as client:
        assert await get(client) == {"data": {}}
    assert api.tokens == [""]


async def test_no_cluster_at_all() -> None:
    """Without flag, environment and pod that name a cluster there is no client."""
    assert await connect(None) is None


ENTRY = "an entry in it is missing or of the wrong type; `kubectl config view` shows what kubectl reads."


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", ENTRY),
        ("[", "it is not YAML in line 1: write a value, or close the list with ] or the map with }."),
        ("- a", ENTRY),
        ("x", ENTRY),
        ("a: b", "PATH has no key current-context."),
        ("current-context: x", "PATH/contexts has no entry named x."),
        ("contexts: 1\nclusters: 1\nusers: 1\ncurrent-context: x", ENTRY),
        ("contexts: [1]\ncurrent-context: x", ENTRY),
        ("contexts: [{context: {}}]\ncurrent-context: x", "an entry of PATH/contexts has no name."),
    ],
)
async def test_a_file_that_is_no_kubeconfig(tmp_path: Path, content: str, problem: str) -> None:
    """A file that is no kubeconfig gives one sentence that names the file and says what is wrong."""
    path = tmp_path / "broken"
    path.write_text(content)
    with pytest.raises(ClusterError) as caught:
        await connect(path)
    assert str(caught.value) == f"--kubeconfig {path} cannot be used: {problem.replace('PATH', str(path))}"


async def test_a_kubeconfig_that_is_not_there(tmp_path: Path) -> None:
    """A kubeconfig that does not exist gives an error that names the file."""
    with pytest.raises(ClusterError, match=r"none cannot be used: it is not there, or empty\.$"):
        await connect(tmp_path / "none")


@pytest.mark.parametrize("server", ["ftp://127.0.0.1", "127.0.0.1:6443", "http://", "http://[", "http://a:b"])
async def test_an_address_that_is_no_url(tmp_path: Path, server: str) -> None:
    """An address that is no URL of a server is refused at the start, not at each call."""
    with pytest.raises(ClusterError, match=r"address of the API server cannot be used: it is no http or https URL\.$"):
        await connect(kubeconfig(tmp_path, 1, "x", server=server))


async def test_an_authority_without_a_certificate(tmp_path: Path) -> None:
    """A certificate authority without a certificate is refused at the start."""
    (tmp_path / "ca.pem").write_text("none")
    authority: dict[str, Any] = {"certificate-authority": str(tmp_path / "ca.pem")}
    path = kubeconfig(tmp_path, 1, "x", server="https://127.0.0.1:1", **authority)
    with pytest.raises(ClusterError, match="certificate authority of the API server holds no certificates"):
        await connect(path)


async def test_a_pod_without_a_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a pod without a service account the error says that the token is missing."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "none"))
    with pytest.raises(
        ClusterError, match=r"^the pod's service account cannot be used: .*token file does not exist\.$"
    ):
        await connect(None)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_a_rotated_token_is_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A token that the kubelet replaces is sent with the next call, and a call while its file is broken fails alone.

    The line feed at its end is not sent, no proxy of the environment is used, and no error repeats a token.
    """
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    token = tmp_path / "token"
    token.write_text("one\n")
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
        async with await connected(None) as client:
            await get(client)
            token.write_text("")
            with pytest.raises(ApiCredentialsError, match="empty"):
                await get(client)
            for broken in (f"{CANARY}\nx: y", f"{CANARY}\r", f"{CANARY}\0", f"{CANARY} ä"):
                token.write_text(broken + "x")
                with pytest.raises(ApiCredentialsError, match="the token cannot be sent") as caught:
                    await get(client)
                assert CANARY not in str(caught.value)
            token.write_text("two\n")
            await get(client)
    finally:
        api.stop()
    assert [value.split()[1] for value in api.tokens] == ["one", "two"]


async def test_a_token_file_of_a_kubeconfig_is_read_again(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token file of a kubeconfig is read again at intervals, and the line feed at its end is not sent."""
    monkeypatch.setattr(configuration, "REREAD_SECONDS", 0.0)
    file = tmp_path / "token"
    file.write_text("one\n")
    async with await connected(kubeconfig(tmp_path, api.port, "file", user={"tokenFile": str(file)})) as client:
        await get(client)
        file.write_text("two\n")
        await get(client)
        file.unlink()
        with pytest.raises(ApiCredentialsError):
            await get(client)
    assert api.tokens == ["Bearer one", "Bearer two"]


def plugin(folder: Path, script: str, **fields: Any) -> dict[str, Any]:
    """Return a user whose credential plugin is a Python script in `folder`, named by its relative path."""
    path = folder / "plugin"
    path.write_text(f"#!{sys.executable}\nimport datetime, json, os, pathlib, sys, time\n{script}")
    path.chmod(0o755)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin", **fields}}


PRINT = """
runs = pathlib.Path("runs")
runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
expiry = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=float(sys.argv[1]))
status = {"token": os.environ["PREFIX"] + str(len(runs.read_text())), "expirationTimestamp": expiry.isoformat()}
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert info["kind"] == "ExecCredential" and "server" in info["spec"]["cluster"]
print("not for logs", file=sys.stderr)
print(json.dumps({"apiVersion": info["apiVersion"], "kind": "ExecCredential", "status": status}))
"""


@pytest.mark.parametrize(("lifetime", "tokens"), [(3600, ["t1", "t1", "t1"]), (60, ["t1", "t2", "t3"])])
async def test_a_credential_plugin(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lifetime: int, tokens: list[str]
) -> None:
    """A plugin gets its arguments, environment and cluster, runs beside the kubeconfig, and again before the expiry."""
    monkeypatch.setattr(configuration, "REREAD_SECONDS", 0.0)
    user = plugin(
        tmp_path, PRINT, args=[str(lifetime)], env=[{"name": "PREFIX", "value": "t"}], provideClusterInfo=True
    )
    async with await connected(kubeconfig(tmp_path, api.port, "plugin", user=user)) as client:
        api.tokens.clear()
        first = (tmp_path / "runs").read_text()
        assert first == "x"
        for _ in tokens[1:]:
            await get(client)
    # The first token was of the start; a token that expires soon is replaced before each call here.
    assert [value.removeprefix("Bearer ") for value in api.tokens] == tokens[1:]


async def test_calls_that_wait_run_a_plugin_once(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plugin runs once for twenty calls at the same time whose token expires."""
    user = plugin(tmp_path, PRINT, args=["60"], env=[{"name": "PREFIX", "value": "t"}], provideClusterInfo=True)
    monkeypatch.setattr(configuration, "REREAD_SECONDS", 0.0)
    async with await connected(kubeconfig(tmp_path, api.port, "plugin", user=user)) as client:
        monkeypatch.setattr(configuration, "REREAD_SECONDS", 60.0)
        await asyncio.gather(*(get(client) for _ in range(20)))
    assert set(api.tokens) == {"Bearer t2"}


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (f"print('{CANARY}'); sys.exit(3)", "ends with exit code 3"),
        (f"print('{CANARY}')", "prints something that is not JSON"),
        (f"print(json.dumps(['{CANARY}']))", "prints no ExecCredential"),
        (f"print(json.dumps({{'kind': 'ExecCredential', 'status': '{CANARY}'}}))", "prints no ExecCredential"),
        (f"print(json.dumps({{'kind': 'ExecCredential', 'status': {{'token': '{CANARY}'}}}}))", "does not speak"),
        (
            """print('{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {}}')""",
            "neither a token nor a certificate",
        ),
        ("time.sleep(60)", "does not end within 0.5 s"),
    ],
)
async def test_a_credential_plugin_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    """The error of a plugin that fails says how, and repeats nothing that the plugin prints."""
    monkeypatch.setattr(exec_plugin, "RUN_SECONDS", 0.5 if "sleep" in script else 60.0)
    with pytest.raises(ClusterError) as caught:
        await connect(kubeconfig(tmp_path, 1, "plugin", user=plugin(tmp_path, script)))
    assert words in str(caught.value)
    assert CANARY not in str(caught.value)


async def test_a_credential_plugin_that_is_not_there(tmp_path: Path) -> None:
    """A credential plugin that does not exist gives an error that says so."""
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./none"}}
    with pytest.raises(ClusterError, match="No such file"):
        await connect(kubeconfig(tmp_path, 1, "plugin", user=user))


async def test_an_expired_token_of_an_issuer(tmp_path: Path) -> None:
    """A token of an OpenID issuer, whose renewal would verify no certificate, is an error that says what to do."""
    user = {"auth-provider": {"name": "oidc", "config": {"refresh-token": CANARY}}}
    with pytest.raises(ClusterError, match="use a credential plugin") as caught:
        await connect(kubeconfig(tmp_path, 1, "oidc", user=user))
    assert CANARY not in str(caught.value)
