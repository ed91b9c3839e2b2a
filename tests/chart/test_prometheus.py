"""Sources of metrics in the chart: credentials and authorities are files, and secrets are in Secrets."""

from pathlib import Path

import pytest
import yaml

from hooks.settings import Settings
from tests.chart.helm import kind, pods, template
from tests.chart.test_chart import OWN_TLS, PRESETS, container

PROMETHEUS = "config.metricInformer.prometheus"
SERVER = ("--set=config.metricInformer.type=prometheus", f"--set={PROMETHEUS}.address=https://metrics.example")
FILES = "/etc/beamlit/prometheus"


@pytest.mark.parametrize(
    ("words", "secret", "data", "files"),
    [
        (("basicAuth.username=canary", "basicAuth.password=007"), "beamlit-beamlit-controller-prometheus",
         {"username": "canary", "password": "007"},
         {"usernameFile": f"{FILES}/username", "passwordFile": f"{FILES}/password"}),
        (("basicAuth.existingSecret=theirs",), "theirs", None,
         {"usernameFile": f"{FILES}/username", "passwordFile": f"{FILES}/password"}),
        (("bearer.token=canary",), "beamlit-beamlit-controller-prometheus", {"token": "canary"},
         {"bearerFile": f"{FILES}/token"}),
        (("bearer.existingSecret=theirs",), "theirs", None, {"bearerFile": f"{FILES}/token"}),
        ((), None, None, {}),
    ],
)  # fmt: skip
def test_credentials_of_prometheus(
    chart: Path, words: tuple[str, ...], secret: str | None, data: dict[str, str] | None, files: dict[str, str]
) -> None:
    """Credentials are mounted into hooks alone, from a Secret, which is the chart's own where values hold them."""
    objects = template(chart, *SERVER, *(f"--set-string={PROMETHEUS}.{word}" for word in words))
    config = kind(objects, "ConfigMap", "-config")["data"]["config.yaml"]
    server = yaml.safe_load(config)["metricInformer"]["prometheus"]
    assert {key: value for key, value in server.items() if key.endswith("File")} == files
    made = [one for one in objects if one["kind"] == "Secret" and one["metadata"]["name"].endswith("-prometheus")]
    assert [one["stringData"] for one in made] == ([] if data is None else [data])
    for one in objects:
        if one not in made:
            assert "canary" not in yaml.safe_dump(one), one["metadata"]["name"]
    volumes = {
        place: [volume["secret"] for volume in spec["volumes"] if volume["name"] == "prometheus"]
        for place, spec in pods(objects)
        if place.startswith("Deployment/")
    }
    items = [{"key": Path(path).name, "path": Path(path).name} for path in files.values()]
    (mounted,) = [secrets for place, secrets in volumes.items() if place.endswith("-hooks")]
    assert [one["secretName"] for one in mounted] == ([secret] if secret else [])
    for one in mounted:
        assert sorted(one["items"], key=str) == sorted(items, key=str)
    assert not any(secrets for place, secrets in volumes.items() if place.endswith("-gateway"))
    mounts = {one["mountPath"] for one in container(objects, "-hooks")["volumeMounts"]}
    assert (FILES in mounts) is bool(secret)


@pytest.mark.parametrize(("key", "source"), [("caConfigMap", "configMap"), ("caSecret", "secret")])
def test_the_authority_of_prometheus(chart: Path, key: str, source: str) -> None:
    """Only ca.crt of the named object is mounted, as a Secret may have the private key beside it."""
    objects = template(chart, *SERVER, f"--set={PROMETHEUS}.{key}=authority")
    config = yaml.safe_load(kind(objects, "ConfigMap", "-config")["data"]["config.yaml"])
    assert config["metricInformer"]["prometheus"]["caFile"] == "/etc/beamlit/prometheus-ca/ca.crt"
    spec = kind(objects, "Deployment", "-hooks")["spec"]["template"]["spec"]
    (volume,) = [one for one in spec["volumes"] if one["name"] == "prometheus-ca"]
    name = {"configMap": "name", "secret": "secretName"}[source]
    assert volume[source] == {name: "authority", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    mount = {"name": "prometheus-ca", "mountPath": "/etc/beamlit/prometheus-ca", "readOnly": True}
    assert mount in container(objects, "-hooks")["volumeMounts"]


AUTHENTICATION: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "nothing": ((), set()),
    "name and password": (("basicAuth.username=a", "basicAuth.password=b"), {"username", "password"}),
    "a Secret of both": (("basicAuth.existingSecret=theirs",), {"username", "password"}),
    "token": (("bearer.token=a",), {"token"}),
    "a Secret of a token": (("bearer.existingSecret=theirs",), {"token"}),
}
AUTHORITY: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "system": ((), set()),
    "ConfigMap": (("caConfigMap=ca",), {"ca.crt"}),
    "Secret": (("caSecret=ca",), {"ca.crt"}),
    "any": (("insecureSkipVerify=true",), set()),
}


@pytest.mark.parametrize("authority", AUTHORITY)
@pytest.mark.parametrize("authentication", AUTHENTICATION)
def test_every_source_of_metrics(chart: Path, authentication: str, authority: str, tmp_path: Path) -> None:
    """With every combination of values hooks accept the configuration, and the files that it names are mounted."""
    (words, files), (more, further) = AUTHENTICATION[authentication], AUTHORITY[authority]
    objects = template(chart, *SERVER, *(f"--set={PROMETHEUS}.{word}" for word in (*words, *more)))
    path = tmp_path / "config.yaml"
    path.write_text(kind(objects, "ConfigMap", "-config")["data"]["config.yaml"])
    server = Settings.load(path, environment={}).metric_informer.prometheus
    named = {file for file in (server.username_file, server.password_file, server.bearer_file, server.ca_file) if file}
    assert {file.name for file in named} == files | further
    assert server.insecure_skip_verify is (authority == "any")
    spec = kind(objects, "Deployment", "-hooks")["spec"]["template"]["spec"]
    folders = {one["name"]: Path(one["mountPath"]) for one in container(objects, "-hooks")["volumeMounts"]}
    assert {one["name"] for one in spec["volumes"]} == folders.keys()
    mounted = {
        folders[volume["name"]] / item["path"]
        for volume in spec["volumes"]
        for item in (volume.get("secret") or volume.get("configMap") or {}).get("items", ())
    }
    assert mounted == named


def test_a_rotated_password_starts_no_pod(chart: Path) -> None:
    """A new password changes the Secret and no Deployment, as hooks read the files again."""
    before, after = (
        template(chart, *OWN_TLS, *SERVER, f"--set={PROMETHEUS}.bearer.token={token}") for token in ("one", "two")
    )
    assert [one["metadata"]["name"] for one, other in zip(before, after, strict=True) if one != other] == [
        "beamlit-beamlit-controller-prometheus"
    ]


def test_a_prometheus_that_is_not_asked(chart: Path) -> None:
    """With type kubernetes nothing of Prometheus is rendered, and hooks outside the cluster have files of their own."""
    words = (f"--set={PROMETHEUS}.bearer.token=canary", f"--set={PROMETHEUS}.caSecret=authority")
    assert template(chart, *OWN_TLS, *words) == template(chart, *OWN_TLS)
    objects = template(chart, *SERVER, *words, *PRESETS["outside"])
    assert "canary" not in yaml.safe_dump_all(objects)
