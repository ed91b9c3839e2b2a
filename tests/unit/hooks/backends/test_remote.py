"""The remote backend that a specification describes, and what of it is not accepted."""

from typing import Any
from unittest.mock import ANY

import pytest

from gateway.api.vocabulary import FORWARDED, NOT_SETTABLE
from hooks import reasons
from hooks.backends.remote import Credentials, Remote, SecretKey, Tls, find_remote
from hooks.errors import NotAccepted
from hooks.observation.observation import DefaultRemote, InstallDefaults, Unresolved
from tests import builders
from tests.builders import AUTHORITY, DEFAULTS, model_deployment

OAUTH = {"clientId": "i", "clientSecret": "s", "tokenUrl": "https://t.example.com"}


def find(
    *, defaults: InstallDefaults = DEFAULTS, status: builders.Json | None = None, model: str = "llama", **backend: Any
) -> Remote | Unresolved:
    """Return the remote backend with these fields; without any, the default one."""
    config = {"remoteBackend": {"host": "m.example.com"} | backend} if backend else {}
    seen = builders.observation(
        model_deployment(model=model, offloadingConfig=config, status=status), defaults=defaults
    )
    return find_remote(seen.read_spec(), seen)


def refused(**backend: Any) -> tuple[str, str]:
    """Return reason and message with which these fields are not accepted."""
    with pytest.raises(NotAccepted) as problem:
        find(**backend)
    return problem.value.reason, str(problem.value)


def prefix(template: str, **rest: Any) -> str:
    """Return the expanded path prefix."""
    remote = find(pathPrefix=template, **rest)
    assert isinstance(remote, Remote)
    return remote.path_prefix


def test_the_default_backend_is_a_marker_with_a_prefix() -> None:
    """For the default remote backend hooks know only the path prefix and the model's name."""
    assert find() == Remote(model="llama", path_prefix="/acme/llama")


def test_no_backend_at_all() -> None:
    """Without remoteBackend and a default remote backend there is nothing to offload to."""
    result = find(defaults=InstallDefaults())
    assert isinstance(result, Unresolved)
    assert result.reason == reasons.NO_REMOTE_BACKEND


@pytest.mark.parametrize(
    ("host", "scheme", "expected"),
    [
        ("m.example.com", "http", ("m.example.com", None)),
        ("m.example.com:8443", "https", ("m.example.com", 8443)),
        ("m.example.com:443", "https", ("m.example.com", None)),
        ("m.example.com:80", "https", ("m.example.com", 80)),
        ("m.example.com:80", "http", ("m.example.com", None)),
        ("10.0.0.1:9000", "http", ("10.0.0.1", 9000)),
        ("[fd00::1]:9000", "http", ("fd00::1", 9000)),
        ("[fd00::1]", "http", ("fd00::1", None)),
        ("fd00::1", "http", ("fd00::1", None)),
        ("m.example.com.", "http", ("m.example.com.", None)),
    ],
)
def test_host_and_port(host: str, scheme: str, expected: tuple[str, int | None]) -> None:
    """The default port of the scheme is left out, and brackets are no part of an address."""
    remote = find(host=host, scheme=scheme)
    assert isinstance(remote, Remote)
    assert (remote.host, remote.port) == expected


@pytest.mark.parametrize(
    "host",
    [
        "m:0",
        "m:65536",
        "m:",
        "m:x",
        "m..n",
        ":80",
        "[]:80",
        "[m]:80",
        "[fd00::1]x",
        "a:b:c",
        "-m",
        "[1.2.3.4]",
        "m..n.:1:2",
    ],
)
def test_not_a_host(host: str) -> None:
    """A text that is no host with an optional port is not accepted."""
    assert refused(host=host)[0] == reasons.INVALID_HOST


@pytest.mark.parametrize(
    ("template", "model", "expanded"),
    [
        ("", "llama", ""),
        ("/", "llama", ""),
        ("v1", "llama", "/v1"),
        ("/v1/", "llama", "/v1"),
        ("/$workspace/$model", "llama", "/acme/llama"),
        ("/$model", "meta/llama 3", "/meta%2Fllama%203"),
        ("/$model", "$workspace", "/%24workspace"),
        ("/a-$model-b", "x", "/a-x-b"),
        ("/$models", "x", "/xs"),
        ("/$other", "x", "/$other"),
        ("/a%2Fb", "x", "/a%2Fb"),
        ("/ü", "x", "/%C3%BC"),
        ("/$model", "100%", "/100%25"),
        ("/$model", "a?b#c", "/a%3Fb%23c"),
        ("/...", "x", "/..."),
    ],
)
def test_path_prefix(template: str, model: str, expanded: str) -> None:
    """A variable of the path prefix is replaced by its value, encoded and not expanded again."""
    assert prefix(template, model=model) == expanded


@pytest.mark.parametrize(
    ("template", "model"),
    [
        ("/../x", "m"),
        ("/.", "m"),
        ("/%2e%2E/x", "m"),
        ("/a/$model", ".."),
        ("/.$model", "."),
        ("/$model", "../x"),
        ("/$model", "a/../x"),
        ("/a//b", "m"),
        ("/a?b", "m"),
        ("/a#b", "m"),
        ("/a\\b", "m"),
        ("/a%", "m"),
        ("/a%zz", "m"),
    ],
)
def test_paths_that_lead_elsewhere(template: str, model: str) -> None:
    """Dot segments, also encoded or from a variable, empty segments and texts that are no path are not accepted."""
    assert refused(pathPrefix=template, model=model)[0] == reasons.INVALID_PATH_PREFIX


def test_whose_workspace() -> None:
    """The workspace is the backend's own, else the platform's, else the configured one."""
    status = {"workspace": "platform"}
    assert prefix("/$workspace", workspace="own", status=status) == "/own"
    assert prefix("/$workspace", status=status) == "/platform"
    assert prefix("/$workspace") == "/acme"
    default = find(status=status)
    assert isinstance(default, Remote)
    assert default.path_prefix == "/platform/llama"


@pytest.mark.parametrize(
    ("backend", "key"),
    [
        ({}, "defaultRemoteBackend.workspace"),
        ({"pathPrefix": "/$workspace"}, "spec.offloadingConfig.remoteBackend.workspace"),
    ],
)
def test_a_workspace_that_is_needed_and_unknown(backend: builders.Json, key: str) -> None:
    """When a workspace is needed and unknown, the message names the key to set."""
    without = InstallDefaults(default_remote=DefaultRemote("h", "https", "/$workspace/$model"))
    result = find(defaults=without, **backend)
    assert isinstance(result, Unresolved)
    assert (result.reason, key in result.message) == (reasons.WORKSPACE_UNKNOWN, True)


def test_a_workspace_without_any_default_backend() -> None:
    """A path prefix without $workspace needs no default remote backend."""
    assert prefix("/$model", defaults=InstallDefaults()) == "/llama"


def test_headers() -> None:
    """Fields of headersToAdd and of headers are merged, with names in lower case."""
    remote = find(
        headersToAdd={"X-Team": "search"},
        headers=[
            {"name": "X-Key", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "k"}}},
            {"name": "X-Empty", "value": ""},
        ],
    )
    assert isinstance(remote, Remote)
    assert remote.headers == {"x-team": "search", "x-empty": ""}
    assert remote.secret_headers == {"x-key": SecretKey("secret", "k")}


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ({"headersToAdd": {"X-A": "1", "x-a": "2"}}, reasons.INVALID_HEADER),
        ({"headersToAdd": {"X-A": "1"}, "headers": [{"name": "x-a", "value": "2"}]}, reasons.INVALID_HEADER),
        ({"headersToAdd": {"X-A": "a\r\nb"}}, reasons.INVALID_HEADER),
        ({"headersToAdd": {"X-A": "a\n"}}, reasons.INVALID_HEADER),
        ({"headersToAdd": {"X-A": "ü"}}, reasons.INVALID_HEADER),
        ({"headersToAdd": {"Host": "other"}}, reasons.INVALID_HEADER),
        ({"headersToAdd": {"Transfer-Encoding": "chunked"}}, reasons.INVALID_HEADER),
        ({"headers": [{"name": "x-a"}]}, reasons.INVALID_HEADER),
        (
            {"headers": [{"name": "x", "value": "v", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
            reasons.INVALID_HEADER,
        ),
        ({"headers": [{"name": "x", "valueFrom": {"secretKeyRef": {"name": "S_", "key": "k"}}}]}, reasons.INVALID_NAME),
        ({"authConfig": {"type": "oauth", "oauthConfig": {"clientSecretRef": {"name": "A"}}}}, reasons.INVALID_NAME),
        ({"authConfig": {"type": "oauth"}}, reasons.INVALID_CREDENTIALS),
        ({"authConfig": {"type": "oauth", "oauthConfig": {}}}, reasons.INVALID_CREDENTIALS),
        ({"authConfig": {"type": "oauth", "oauthConfig": {"clientId": "i"}}}, reasons.INVALID_CREDENTIALS),
        (
            {"authConfig": {"type": "oauth", "oauthConfig": OAUTH | {"clientSecretRef": {"name": "s"}}}},
            reasons.INVALID_CREDENTIALS,
        ),
        *(
            (
                {"authConfig": {"type": "oauth", "oauthConfig": {"clientSecretRef": {"name": "s"}} | further}},
                reasons.INVALID_CREDENTIALS,
            )
            for further in ({"audience": "a"}, {"resource": "urn:a"}, {"tokenAuth": "client_secret_post"})
        ),
    ],
)
def test_what_is_not_accepted(backend: builders.Json, reason: str) -> None:
    """Header fields that cannot be sent and contradictory credentials are refused with their reason."""
    assert refused(**backend)[0] == reason


def test_a_secret_is_never_in_a_message() -> None:
    """The message about credentials that are not accepted does not repeat them."""
    oauth = {"clientId": "i", "clientSecret": "very-secret"}
    assert "very-secret" not in refused(authConfig={"type": "oauth", "oauthConfig": oauth})[1]


@pytest.mark.parametrize("name", sorted(NOT_SETTABLE))
def test_headers_of_the_gateway(name: str) -> None:
    """A header field that the gateway writes itself is refused, in upper case too."""
    upper = name.upper()
    for fields in (
        {"headersToAdd": {upper: "x"}, "forwarded": "append"},
        {"headers": [{"name": upper, "value": "x"}], "forwarded": "append"},
        {"headersToRemove": [upper], "forwarded": "append"},
        {"forwardHeaders": [upper]},
        *(({"headersToAdd": {upper: "x"}}, {"headersToRemove": [upper]}) if name not in FORWARDED else ()),
    ):
        reason, message = refused(**fields)
        assert reason == reasons.INVALID_HEADER
        assert f"the header {name}, which only the gateway may set" in message


@pytest.mark.parametrize("name", sorted(FORWARDED))
def test_forwarding_fields_of_a_backend_that_gets_none(name: str) -> None:
    """A forwarding field can be set and removed where the gateway writes none, which is the default."""
    removed = ["X-Other", name.upper()]
    for remote in (
        find(headersToAdd={name.upper(): "x"}, headersToRemove=removed),
        find(headersToAdd={name.upper(): "x"}, headersToRemove=removed, forwarded="none"),
    ):
        assert isinstance(remote, Remote)
        assert (remote.headers, remote.removed_headers, remote.forwarded) == ({name: "x"}, ("x-other", name), None)


@pytest.mark.parametrize(
    ("oauth", "credentials"),
    [
        ({"clientSecretRef": {"name": "secret"}}, Credentials("Secret", "secret")),
        (OAUTH, Credentials("ModelDeployment", "demo")),
    ],
)
def test_credentials_by_reference(oauth: builders.Json, credentials: Credentials) -> None:
    """Credentials become a reference to the object that holds them: a Secret or the ModelDeployment itself."""
    remote = find(authConfig={"type": "oauth", "oauthConfig": oauth})
    assert isinstance(remote, Remote)
    assert remote.credentials == credentials


def test_tls() -> None:
    """Server name, authorities and the certificate's Secret are taken over as they are written."""
    remote = find(
        scheme="https", tls={"serverName": "fd00::1", "caBundle": AUTHORITY * 2, "clientCertificateRef": {"name": "s"}}
    )
    assert isinstance(remote, Remote)
    assert remote.tls == Tls("fd00::1", AUTHORITY * 2, "s")


@pytest.mark.parametrize(
    ("scheme", "tls", "reason", "part"),
    [
        ("http", {}, reasons.INVALID_TLS, "set spec.offloadingConfig.remoteBackend.scheme to https"),
        ("https", {"serverName": "a:1"}, reasons.INVALID_TLS, "tls.serverName must be a host name or address"),
        ("https", {"serverName": "-"}, reasons.INVALID_TLS, "not '-'"),
        ("https", {"caBundle": "text"}, reasons.INVALID_TLS, "tls.caBundle must be certificates in PEM"),
        ("https", {"caBundle": "é"}, reasons.INVALID_TLS, "tls.caBundle must be certificates in PEM"),
        ("https", {"caBundle": AUTHORITY.replace("M", "N")}, reasons.INVALID_TLS, "tls.caBundle must be"),
        ("https", {"caBundle": AUTHORITY[:200]}, reasons.INVALID_TLS, "tls.caBundle must be"),
        ("https", {"clientCertificateRef": {"name": "S_"}}, reasons.INVALID_NAME, "clientCertificateRef.name"),
    ],
)
def test_tls_that_cannot_work(scheme: str, tls: builders.Json, reason: str, part: str) -> None:
    """TLS settings that the gateway could not load are not accepted."""
    assert refused(scheme=scheme, tls=tls) == (reason, ANY)
    assert part in refused(scheme=scheme, tls=tls)[1]


def test_a_private_key_gets_into_no_config_map() -> None:
    """A private key in caBundle is refused, and the message does not repeat it."""
    pem = AUTHORITY + "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
    reason, sentence = refused(scheme="https", tls={"caBundle": pem})
    assert (reason, "c2VjcmV0" in sentence) == (reasons.INVALID_TLS, False)
    assert "holds a private key" in sentence
