"""Settings of hooks: their order of precedence, what is refused, and the messages about it."""

from pathlib import Path
from typing import Any

import pytest

from hooks.api.remote_backend import Flavor, Location
from hooks.observation.observation import DefaultRemote, GatewayService, InstallDefaults
from hooks.settings import Settings
from program.settings import SettingsError

SEED = """
enableHTTP2: false
secureMetrics: false
namespaces: default
defaultRemoteBackend:
  host: "run.beamlit.dev"
  pathPrefix: "/$workspace/$model"
  authConfig:
    type: oauth
    oauthConfig:
      clientId: "REPLACE_ME"
      clientSecret: "s3cr3t-canary"
      tokenUrl: "https://api.beamlit.dev/v0/oauth/token"
  scheme: https
"""


def load(text: str, tmp_path: Path, **rest: Any) -> Settings:
    """Return the settings from a file with this text."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return Settings.load(path, environment=rest.get("environment", {}), flags=rest.get("flags", {}))


def refused(text: str, tmp_path: Path, **rest: Any) -> str:
    """Return the message about settings that cannot be used."""
    with pytest.raises(SettingsError) as caught:
        load(text, tmp_path, **rest)
    message = str(caught.value)
    assert "\n" not in message
    assert "canary" not in message
    return message


def test_the_originals_file_works_as_it_stands(tmp_path: Path) -> None:
    """The original's example file gives the defaults for decisions, without a credential in them."""
    settings = load(SEED, tmp_path)
    assert settings.install_defaults == InstallDefaults(
        namespaces=frozenset({"default"}),
        default_remote=DefaultRemote("run.beamlit.dev", "https", "/$workspace/$model", ""),
        gateway_service=None,
        cluster_domain="cluster.local",
    )
    assert "canary" not in repr(settings)


def test_the_gateways_service(tmp_path: Path) -> None:
    """proxyService names the gateway's Service, and an empty host means that there is no default remote backend."""
    text = "proxyService: {namespace: a, name: b, port: 8080}\ndefaultRemoteBackend: {host: ''}\nnamespaces: ''\n"
    defaults = load(text, tmp_path).install_defaults
    assert defaults.gateway_service == GatewayService("a", "b", 8080)
    assert defaults.default_remote is None
    assert defaults.namespaces is None


def test_where_the_default_remote_is(tmp_path: Path) -> None:
    """Location and flavors of the default remote backend are read from the file and from the environment."""
    text = "defaultRemoteBackend: {location: {name: a, country: fr}, flavors: [{type: gpu, name: t4}]}\n"
    remote = load(text, tmp_path).install_defaults.default_remote
    assert remote is not None
    assert (remote.location, remote.flavors) == (Location(name="a", country="fr"), (Flavor(type="gpu", name="t4"),))
    variables = {
        "BEAMLIT_DEFAULT_REMOTE_BACKEND__LOCATION__CONTINENT": "Europe",
        "BEAMLIT_DEFAULT_REMOTE_BACKEND__FLAVORS": '[{"type": "cpu", "name": "x86"}]',
    }
    remote = load("", tmp_path, environment=variables).install_defaults.default_remote
    assert remote is not None
    assert (remote.location, remote.flavors) == (Location(continent="Europe"), (Flavor(type="cpu", name="x86"),))


@pytest.mark.parametrize("value", ["a, b,", ["a", "b"]])
def test_namespaces_in_both_forms(tmp_path: Path, value: object) -> None:
    """Namespaces may be one string with commas, as in the original, or a list."""
    assert load(f"namespaces: {value!r}", tmp_path).namespaces == ("a", "b")


def test_a_flag_wins_over_the_environment_over_the_file(tmp_path: Path) -> None:
    """A flag wins over the environment, which wins over the file; variables of others are ignored."""
    text = "clusterDomain: file\nnamespaces: file\nhooks: {logLevel: debug}\n"
    environment = {
        "BEAMLIT_CLUSTER_DOMAIN": "variable",
        "BEAMLIT_NAMESPACES": "variable",
        "BEAMLIT_ENABLE_HTTP2": "true",
        "BEAMLIT_GATEWAY__LISTEN": "not ours",
        "BEAMLIT_TOKEN": "not a setting",
    }
    settings = load(text, tmp_path, environment=environment, flags={"namespaces": "flag", "hooks.listen": "[::1]:1"})
    assert (settings.cluster_domain, settings.namespaces) == ("variable", ("flag",))
    assert (settings.hooks.listen, settings.hooks.log_level) == ("[::1]:1", "debug")
    assert settings.enable_http2 is True


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("namespace: x", ["namespace is not a setting", "did you mean namespaces?"]),
        ("zzz: 1", ["zzz is not a setting", "allowed are", "gateway"]),
        ("defaultRemoteBackend: {hots: x}", ["defaultRemoteBackend.hots is not a setting", "did you mean host?"]),
        ("defaultRemoteBackend: {scheme: ftp}", ["defaultRemoteBackend.scheme", "'ftp'", "must be http or https"]),
        (
            "defaultRemoteBackend: {location: {country: uk}}",
            ["defaultRemoteBackend.location.country is 'uk', and must be a code of ISO 3166-1, such as fr or FRA."],
        ),
        ("defaultRemoteBackend: {location: {continent: fr}}", ["location.continent is 'fr'", "EU (Europe)"]),
        ("defaultRemoteBackend: {location: {country: fr, continent: eu}}", ["continent", "must be left out"]),
        (
            "defaultRemoteBackend: {flavors: [{type: gpu, name: t4, nam: t4}]}",
            ["defaultRemoteBackend.flavors[0].nam is not a setting", "did you mean name?"],
        ),
        ("proxyService: {port: 0}", ["proxyService.port is 0, and must be a whole number from 1 to 65535."]),
        ("enableHTTP2: maybe", ["enableHTTP2 is 'maybe', and must be true or false."]),
        ("hooks: {listen: nowhere}", ["hooks.listen", "'nowhere'", "must be host:port"]),
        (
            "metricInformer: {type: graphite}",
            ["metricInformer.type", "'graphite'", "must be kubernetes, prometheus, pods or file"],
        ),
        (
            "metricInformer: {pods: {allowedAddresses: [10.0.0.1/8]}}",
            ["metricInformer.pods.allowedAddresses", "must be ranges of addresses such as 10.0.0.0/8"],
        ),
        ("defaultRemoteBackend: {authConfig: {oauthConfig: {clientSecret: [s3cr3t-canary]}}}", ["clientSecret"]),
        (
            "namespaces: a\nclusterDomain: b\nnamespaces: c\n",
            ["config.yaml has the key 'namespaces' in line 1 and again in line 3"],
        ),
        (
            "gateway:\n  admin: a\n  admin: b\n",
            ["the key 'admin' in line 2 and again in line 3: leave one of them out."],
        ),
        ("namespaces:\n", ["namespaces is left blank: name the namespaces", "such as [team-a], or write [] for all."]),
        ("namespaces: ~\n", ["namespaces is left blank"]),
        ("a: [", ["is not YAML in line"]),
        ("just text", ["must be a mapping"]),
        ("a: 2030-13-45", ["is not YAML: a date or a number in it does not exist"]),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, text: str, words: list[str]) -> None:
    """A mistake in the settings is one sentence with key, value and what is allowed, and without a secret."""
    message = refused(text, tmp_path)
    assert all(word in message for word in words), message
    assert message.endswith((".", "?"))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that cannot be read is reported with the reason."""
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        Settings.load(tmp_path / "none.yaml", environment={})
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(SettingsError, match="it is not UTF-8"):
        Settings.load(tmp_path / "latin.yaml", environment={})


def test_a_variable_with_a_key_twice(tmp_path: Path) -> None:
    """A variable in JSON with a key twice is refused with its name and the key."""
    name = "BEAMLIT_DEFAULT_REMOTE_BACKEND__HEADERS_TO_ADD"
    message = refused("", tmp_path, environment={name: '{"X-A": "s3cr3t-canary", "X-A": "b"}'})
    assert message.startswith(f"{name} has the key 'X-A' in line 1 and again in line 1: leave one of them out.")


@pytest.mark.parametrize("text", ["namespaces: []", "namespaces: ''"])
def test_all_namespaces(tmp_path: Path, text: str) -> None:
    """An empty list means all namespaces, also as a string."""
    assert load(text, tmp_path).served_namespaces is None


def test_a_variable_that_is_no_list(tmp_path: Path) -> None:
    """A variable that should be a list and is no JSON is named in the message."""
    message = refused("", tmp_path, environment={"BEAMLIT_NAMESPACES": "[a"})
    assert message.startswith("BEAMLIT_NAMESPACES is not JSON in line 1: close the list with ]")


def prometheus(text: str) -> str:
    """Return a configuration with this section for the Prometheus server."""
    return f"metricInformer:\n  type: prometheus\n  prometheus: {{{text}}}\n"


def test_the_originals_prometheus_server(tmp_path: Path) -> None:
    """The original's two keys are enough for a Prometheus server; the other settings have defaults."""
    informer = load(prometheus('address: "my-local-prom:9090"'), tmp_path).metric_informer
    assert (informer.type, informer.prometheus.address) == ("prometheus", "my-local-prom:9090")
    assert (informer.resolution_seconds, informer.prometheus.timeout_seconds) == (15, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "metricInformer: set prometheus.address, which type prometheus needs."),
        ("address: 'ftp://x'", "metricInformer.prometheus.address is 'ftp://x', and must be host:port or an http"),
        (
            "address: 'https://ada:canary@x:9090'",
            "metricInformer.prometheus.address is '***@x:9090', and must not",
        ),
        ("address: 'ada:canary/canary@x'", "metricInformer.prometheus.address is '***@x', and must"),
        (
            "address: x, usernameFile: /u",
            "metricInformer.prometheus: set both usernameFile and passwordFile, or neither.",
        ),
        (
            "address: x, passwordFile: /p",
            "metricInformer.prometheus: set both usernameFile and passwordFile, or neither.",
        ),
        (
            "address: x, usernameFile: /u, passwordFile: /p, bearerFile: /b",
            "metricInformer.prometheus: set either bearerFile, or usernameFile and passwordFile.",
        ),
        (
            "address: x, timeoutSeconds: 3",
            "metricInformer.prometheus.timeoutSeconds is 3, and must be a number from 0.1 to 2.5.",
        ),
        (
            "address: x, namespaceLabel: 'a b'",
            "metricInformer.prometheus.namespaceLabel is 'a b', and must be the name of a label, such as",
        ),
        (
            "address: x, scrapeIntervalSeconds: 0",
            "metricInformer.prometheus.scrapeIntervalSeconds is 0, and must be a whole number from 1 to 300.",
        ),
    ],
)
def test_a_mistake_in_the_settings_of_prometheus(text: str, words: str, tmp_path: Path) -> None:
    """A mistake in the section is one sentence that names the setting, without the credentials of an address."""
    message = refused(prometheus(text), tmp_path)
    assert message.startswith(words), message
