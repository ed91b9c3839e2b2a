"""Settings of the gateway: the keys of the shared file that it uses, and the errors for mistakes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import gateway.__main__ as main
from gateway.credentials.cache import from_settings
from gateway.settings import CONTROLLER_KEYS, GatewaySettings, Settings, via_pseudonym
from program.settings import OAuth, SettingsError


def load(text: str, tmp_path: Path, **rest: Any) -> Settings:
    """Load settings from a file with this text."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return Settings.load(path, environment=rest.get("environment", {}), flags=rest.get("flags"))


def test_defaults_are_those_of_the_documentation() -> None:
    """Defaults are those of the documentation; only the admin port is on loopback."""
    settings = Settings.load(None, environment={})
    assert settings.served_namespaces == frozenset({"default"})
    assert (settings.gateway.listen, settings.gateway.admin) == ("[::]:8080", "127.0.0.1:8081")
    assert settings.gateway.limits.head_bytes == 32768
    assert settings.gateway.timeouts.first_byte_seconds == 600


def test_the_pseudonym_is_that_of_one_installation_in_one_cluster() -> None:
    """Replicas of an installation have one name in Via; other installations and clusters have others."""
    names = [
        via_pseudonym(GatewaySettings(install=install), authority)
        for authority in (b"", b"an authority", b"another")
        for install in ("", "a/b", "a/c")
    ]
    assert len(set(names)) == len(names)
    assert names[0] == "beamlit-gateway"
    assert all(re.fullmatch("beamlit-gateway-[0-9a-f]{12}", name) for name in names[1:])
    assert via_pseudonym(GatewaySettings(install="a/b"), b"another") == names[7]
    assert via_pseudonym(GatewaySettings(install="a/b", via_pseudonym="paris"), b"another") == "paris"


def test_the_authority_of_the_cluster_is_read_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The certificate authority of the cluster is that of the ServiceAccount, and empty outside of a cluster."""
    monkeypatch.setattr(main, "CLUSTER_AUTHORITY", tmp_path / "ca.crt")
    assert main.cluster_authority() == b""
    (tmp_path / "ca.crt").write_bytes(b"an authority")
    assert main.cluster_authority() == b"an authority"


@pytest.mark.parametrize("endpoint", ["ftp://x", "collector:4317", "http://user:password@x", "http://x/?key=1"])
def test_an_endpoint_for_traces_that_cannot_be_used(tmp_path: Path, endpoint: str) -> None:
    """An endpoint for traces is a URL without user, password and query."""
    with pytest.raises(SettingsError, match=r"gateway\.tracing\.endpoint: name an http or https URL") as caught:
        load(f'gateway: {{tracing: {{endpoint: "{endpoint}"}}}}', tmp_path)
    assert endpoint not in str(caught.value)


JWT = {"issuer": "https://login.example.com/realms/main", "audiences": ["beamlit"]}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"issuer": "login.example.com"}, "jwt.issuer is 'login.example.com', and must be an http or https URL"),
        ({"issuer": "https://user:password@login.example.com"}, "jwt.issuer is '***@login.example.com', and must be"),
        ({"issuer": "https://login.example.com/?a=b"}, "jwt.issuer"),
        ({"issuer": "https://login.example.com/#a"}, "jwt.issuer"),
        ({"jwksUrl": "file:///etc/passwd"}, "jwt.jwksUrl"),
        ({"audiences": []}, "jwt.audiences must be a list of 1 to 64 items"),
        ({"algorithms": ["HS256"]}, "jwt.algorithms[0] is 'HS256', and must be RS256"),
        ({"algorithms": ["none"]}, "jwt.algorithms[0] is 'none', and must be RS256"),
        ({"algorithms": []}, "jwt.algorithms"),
        ({"nameClaim": ""}, "jwt.nameClaim"),
        ({"groupsClaim": "a..b"}, "jwt.groupsClaim is 'a..b', and must be the name of a claim"),
        ({"clockSkewSeconds": 601}, "jwt.clockSkewSeconds"),
        ({"audience": "beamlit"}, "did you mean audiences?"),
    ],
)
def test_tokens_that_cannot_be_taken(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    """An issuer that is no URL, an audience that is missing, or an algorithm without a key pair is a mistake."""
    with pytest.raises(SettingsError) as refused:
        load(json.dumps({"gateway": {"access": {"jwt": JWT | values}}}), tmp_path)
    assert words in str(refused.value)
    assert "password" not in str(refused.value)


def test_access_is_on_with_keys_or_tokens(tmp_path: Path) -> None:
    """Requests need a credential where there are keys or an issuer; an address of keys may have a query."""
    assert not load("", tmp_path).gateway.access.is_on
    assert load("gateway: {access: {keysDirectory: keys}}", tmp_path).gateway.access.is_on
    jwt = JWT | {"jwksUrl": "https://b2c.example.com/keys?p=policy"}
    assert load(json.dumps({"gateway": {"access": {"jwt": jwt}}}), tmp_path).gateway.access.is_on


def test_keys_of_hooks_are_ignored(tmp_path: Path) -> None:
    """The gateway ignores the keys of hooks with any value; an unknown key in its own section is an error."""
    text = "".join(f"{key}: {{anything: 1}}\n" for key in CONTROLLER_KEYS) + "gateway: {lameDuckSeconds: 1}\n"
    assert load(text, tmp_path).gateway.lame_duck_seconds == 1
    with pytest.raises(SettingsError, match=r"gateway\.lameDuck is not a setting; did you mean lameDuckSeconds\?"):
        load("gateway: {lameDuck: 1}", tmp_path)


@pytest.mark.parametrize(
    "text", ["gateway:\n", "gateway:\n  timeouts:\n  limits: null\n", "defaultRemoteBackend:\ntls: ~\n", "gateway: {}"]
)
def test_a_blank_section_has_its_defaults(tmp_path: Path, text: str) -> None:
    """A section in which everything is commented out has its defaults."""
    assert load(text, tmp_path) == Settings.load(None, environment={})


def test_a_null_that_means_something_stays(tmp_path: Path) -> None:
    """`authConfig: null` is a remote backend without authentication, and no blank section."""
    text = "defaultRemoteBackend: {host: m.example, authConfig: null}"
    assert load(text, tmp_path).default_remote_backend.auth_config is None


def test_flags_and_variables(tmp_path: Path) -> None:
    """A flag wins over a variable, a variable over the file; variables contain lists as JSON."""
    environment = {
        "BEAMLIT_GATEWAY__LISTEN": "127.0.0.1:1",
        "BEAMLIT_GATEWAY__ADMIN": "127.0.0.1:2",
        "BEAMLIT_GATEWAY__CLUSTER_RANGES": '["10.0.0.0/8"]',
        "BEAMLIT_GATEWAY__TIMEOUTS__IDLE_SECONDS": "7",
        "BEAMLIT_PROXY_SERVICE__NAME": "of hooks",
    }
    text = "gateway: {listen: '127.0.0.1:9', drainSeconds: 3, timeouts: {headSeconds: 2}}"
    mine = load(text, tmp_path, environment=environment, flags={"admin": "127.0.0.1:3", "routes": None}).gateway
    assert (mine.listen, mine.admin, mine.drain_seconds) == ("127.0.0.1:1", "127.0.0.1:3", 3)
    assert mine.cluster_ranges == ("10.0.0.0/8",)
    assert (mine.timeouts.idle_seconds, mine.timeouts.head_seconds) == (7, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gateway: 1", ["gateway is 1, and must be an object with fields such as listen and admin."]),
        ("gateway: {listen: 8080}", ["gateway.listen is 8080, and must be a string: put it in quotes."]),
        ("gateway: {listen: 'a:99999'}", ["gateway.listen is 'a:99999'", "must be host:port"]),
        (
            "gateway: {timeouts: {idleSeconds: 0}}",
            ["gateway.timeouts.idleSeconds is 0, and must be a number above 0, at most 86400."],
        ),
        (
            "gateway: {clusterRanges: [10.0.0.1/8]}",
            ["gateway.clusterRanges must be ranges of addresses such as 10.0.0.0/8, not '10.0.0.1/8'."],
        ),
        (
            "gateway: {viaPseudonym: 'a b'}",
            ["gateway.viaPseudonym is 'a b', and must be a word of letters, digits and hyphens, such as"],
        ),
        ("defaultRemoteBackend: {forwarded: all}", ["defaultRemoteBackend.forwarded is 'all', and must be none or"]),
        ("gateway: {bareHostnames: all}", ["gateway.bareHostnames is 'all', and must be namespace or unique."]),
        ("gateway: {tls: {certFile: a}}", ["gateway.tls.keyFile is required: the path of a file."]),
        (
            "defaultRemoteBackend: {headersToAdd: {'a b': c}}",
            ["defaultRemoteBackend.headersToAdd has the key 'a b', which must be the name of a header field"],
        ),
        (
            "defaultRemoteBackend: {authConfig: {oauthConfig: {tokenAuth: basic}}}",
            ["oauthConfig.tokenAuth is 'basic', and must be client_secret_basic, client_secret_basic_raw or"],
        ),
        (
            "defaultRemoteBackend: {authConfig: {oauthConfig: {parameters: {scope: a}}}}",
            ["oauthConfig.parameters must not have scope: it has a key of its own"],
        ),
        ("hooks: {}\nhooks: {}\n", ["config.yaml has the key 'hooks' in line 1 and again in line 2"]),
        (
            "gateway:\n  listen: a:1\n  cors: {origins: ['*'], origins: []}\n",
            ["config.yaml has the key 'origins' in line 3 and again in line 3: leave one of them out."],
        ),
        ("namespaces:\n", ["namespaces is left blank: name the namespaces", "such as [team-a], or write [] for all."]),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, text: str, words: list[str]) -> None:
    """A mistake is one sentence with the key, the value and what is allowed."""
    with pytest.raises(SettingsError) as caught:
        load(text, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_credentials_of_the_default_remote(tmp_path: Path) -> None:
    """A file wins over a value and is read anew each time; neither is in a representation."""
    oauth = OAuth.model_validate({"clientId": "id", "clientSecret": "canary-1"})
    assert from_settings(oauth).client_secret == "canary-1"
    secret = tmp_path / "secret"
    secret.write_text("canary-2\n")
    oauth = OAuth.model_validate({"clientId": "id", "clientSecret": "canary-1", "clientSecretFile": str(secret)})
    assert from_settings(oauth).client_secret == "canary-2"
    secret.write_text("canary-3")
    assert from_settings(oauth).client_secret == "canary-3"
    assert "canary" not in repr(oauth) + repr(from_settings(oauth))
    secret.write_bytes(b"canary\xff")
    with pytest.raises(ValueError, match=r"secret is not UTF-8$"):
        from_settings(oauth)
    secret.unlink()
    with pytest.raises(OSError, match="No such file"):
        from_settings(oauth)
    with pytest.raises(ValueError, match="must not be empty"):
        from_settings(OAuth())
