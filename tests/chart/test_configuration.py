"""Values and settings: values reach the programs, and every setting of the programs can be set in the chart."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from gateway.settings import Settings as GatewaySettings
from hooks.settings import Settings as HooksSettings
from tests.chart.helm import kind, template
from tests.chart.test_values import CONTEXTS, SETTINGS, STEADY, WITHOUT_EFFECT, changed
from tests.contract.test_configuration_docs import leaves
from tests.contract.test_settings import NOT_OBEYED
from tools.chart_reference import is_value

CONFIGURATION: Final = sorted(
    (SETTINGS.keys() - WITHOUT_EFFECT.keys())
    & {"kubernetesClusterDomain", *(path for path in SETTINGS if path.startswith("config."))}
)
ACCEPTED: Final = frozenset(f"config.{key}" for key in NOT_OBEYED)
"""Values of the original that reach settings which no program obeys."""


@pytest.mark.parametrize("path", CONFIGURATION)
def test_a_value_of_the_configuration_reaches_a_setting_that_counts(chart: Path, path: str, tmp_path: Path) -> None:
    """Another value becomes another setting of a program that obeys it (tests/contract/test_settings.py)."""
    before = settings(chart, tmp_path, *STEADY, *CONTEXTS.get(path, ()))
    after = settings(chart, tmp_path, *changed(path, tmp_path))
    reached = {setting for setting in before if before[setting] != after[setting]}
    assert reached, f"{path} reaches no setting"
    assert (path in ACCEPTED) is (reached <= NOT_OBEYED.keys()), reached


BY_THE_CHART: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("hooks.listen", "hooks.operations", "hooks.tls.certFile", "hooks.tls.keyFile", "hooks.bearerFile"),
        "a flag that the chart gives",
    ),
    **dict.fromkeys(("gateway.listen", "gateway.admin"), "a flag that the chart gives"),
    **dict.fromkeys(("gateway.lameDuckSeconds", "gateway.drainSeconds"), "a value of the section gateway"),
    "gateway.install": "namespace and name of the release",
    **dict.fromkeys(("gateway.routes", "gateway.kubeconfig"), "in a cluster there is one source of routes"),
    **{
        f"defaultRemoteBackend.authConfig.oauthConfig.{key}File": "mounted from the Secret of the value without File"
        for key in ("clientId", "clientSecret")
    },
    "defaultRemoteBackend.authConfig.oauthConfig.caFile": "mounted from the ConfigMap or Secret that values name",
    "metricInformer.file.path": "a source for one machine",
    "metricInformer.file.podsPath": "a source for one machine",
    "platform.baseUrl": "the value beamlitBaseUrl, with a token",
    "platform.tokenFile": "mounted from the Secret of the token",
    **{
        f"metricInformer.prometheus.{key}": "mounted from the Secret or ConfigMap that values name"
        for key in ("usernameFile", "passwordFile", "bearerFile", "caFile")
    },
}
"""Settings that no value of the same name sets, each with the reason."""


def test_every_setting_has_a_value() -> None:
    """Every setting of the programs has a value of the chart, or is set by the chart itself."""
    for program in (HooksSettings, GatewaySettings):
        for _, key, _ in leaves(program):
            assert is_value(f"config.{key}") is (key not in BY_THE_CHART), key


def settings(chart: Path, folder: Path, *words: str) -> dict[str, Any]:
    """Return every setting of both programs under the configuration that the chart writes; one that is mounted as a
    file counts with the Secret it comes from."""
    objects = template(chart, *words)
    (folder / "config.yaml").write_text(kind(objects, "ConfigMap", "-config")["data"]["config.yaml"])
    result: dict[str, Any] = {}
    for program in (HooksSettings, GatewaySettings):
        read = program.load(folder / "config.yaml", environment={})
        for path, key, _ in leaves(program):
            value: Any = read
            for name in path:
                value = getattr(value, name, None)
            result.setdefault(key, []).append(value)
    files = yaml.safe_dump_all(one for one in objects if one["kind"] in ("Secret", "Deployment"))
    for key, value in result.items():
        if key.endswith("File") and any(value):
            value.append(files)
    return result


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), 268435456),
        (("gateway.resources.limits.memory=2G",), 500000000),
        (("gateway.resources.limits.memory=512Mi",), 134217728),
        (("gateway.resources.limits.memory=1073741824",), 268435456),
        (("gateway.resources.limits.memory=1.5Gi",), 268435456),
        (("gateway.resources.limits=null",), 268435456),
        (("config.gateway.limits.memoryBytes=99999999",), 99999999),
    ],
)
def test_the_memory_budget_fits_the_memory_limit(
    chart: Path, words: tuple[str, ...], expected: int, tmp_path: Path
) -> None:
    """The gateway's budget is a quarter of its memory limit, unless a value says otherwise; in doubt the default."""
    given = [part for word in words for part in ("--set", word)]
    text = kind(template(chart, *given), "ConfigMap", "-config")["data"]["config.yaml"]
    (tmp_path / "config.yaml").write_text(text)
    assert GatewaySettings.load(tmp_path / "config.yaml", environment={}).gateway.limits.memory_bytes == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("gateway.replicas=3",), 3),
        (("gateway.replicas=0",), 1),
        (("gateway.autoscaling.enabled=true", "gateway.autoscaling.maxReplicas=7"), 7),
        (("config.gateway.drill.replicas=5", "config.gateway.drill.intervalSeconds=60"), 5),
    ],
)
def test_gateways_share_completions_by_their_number(
    chart: Path, words: tuple[str, ...], expected: int, tmp_path: Path
) -> None:
    """Drills know how many gateways there are, or may be, unless a value says otherwise, and their name."""
    given = [part for word in words for part in ("--set", word)]
    text = kind(template(chart, *given), "ConfigMap", "-config")["data"]["config.yaml"]
    (tmp_path / "config.yaml").write_text(text)
    drill = GatewaySettings.load(tmp_path / "config.yaml", environment={}).gateway.drill
    assert drill.replicas == expected
    assert drill.peers == "beamlit-beamlit-controller-gateway-admin.sys.svc.cluster.local"
    assert drill.interval_seconds == (60 if "config.gateway.drill.intervalSeconds=60" in words else 300)
