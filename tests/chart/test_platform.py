"""The platform in the chart: a token turns it on, and nothing else does."""

from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from hooks.__main__ import parser
from hooks.settings import Settings
from hooks.uninstall import GRACE_SECONDS, OWN_SECONDS, PREFIX, WAIT_SECONDS
from tests.chart.helm import kind, pods, rules, template
from tests.chart.test_chart import TOKEN, container
from tests.chart.test_rbac import HOOKS, roles

MINE: Final = ("--set=beamlitApiTokenExistingSecret=theirs",)
GIVEN: Final = (f"--set=beamlitApiToken={TOKEN}",)
STEADY: Final = ("--set=hooks.tls.existingSecret=mine", "--set=hooks.tls.caBundle=PEM")
FILE: Final = "/etc/beamlit/platform/token"
HELD: Final = {
    ("deployment.beamlit.com", "modeldeployments", "patch"),
    ("authorization.beamlit.com", "policies", "patch"),
}
RELEASE: Final = {
    ("metacontroller.k8s.io", "compositecontrollers", "get"),
    ("metacontroller.k8s.io", "compositecontrollers", "patch"),
    ("deployment.beamlit.com", "modeldeployments", "list"),
    ("authorization.beamlit.com", "policies", "list"),
}
BUNDLE: Final = ("hooks.auth.bearer.enabled=true", "hooks.auth.bearer.existingSecret=bearer")


@pytest.mark.parametrize(("words", "secret"), [(MINE, "theirs"), (GIVEN, "beamlit-beamlit-controller-platform")])
def test_the_token_is_a_file_of_hooks(chart: Path, words: tuple[str, ...], secret: str, tmp_path: Path) -> None:
    """The token is mounted from a Secret into hooks alone, the chart's own where a value holds it, so that another one
    needs no restart."""
    objects = template(chart, *words, "--set=beamlitBaseUrl=https://api.example/v1")
    made = [one for one in objects if one["kind"] == "Secret" and one["metadata"]["name"].endswith("-platform")]
    assert [one["stringData"] for one in made] == ([] if words is MINE else [{"token": TOKEN}])
    for place, spec in pods(objects):
        mounted = [one["secret"] for one in spec.get("volumes", ()) if one["name"] == "platform"]
        expected = {"secretName": secret, "items": [{"key": "token", "path": "token"}]}
        assert mounted == ([expected] if place.endswith("-hooks") else []), place
    mount = {"name": "platform", "mountPath": str(Path(FILE).parent), "readOnly": True}
    assert mount in container(objects, "-hooks")["volumeMounts"]
    (tmp_path / "config.yaml").write_text(kind(objects, "ConfigMap", "-config")["data"]["config.yaml"])
    platform = Settings.load(tmp_path / "config.yaml", environment={}).platform
    assert (str(platform.token_file), platform.base_url) == (FILE, "https://api.example/v1")


def test_a_token_as_base64_prints_it(chart: Path) -> None:
    """A token may have the line breaks that `base64` puts into long output."""
    token = f"{TOKEN[:20]}\n{TOKEN[20:]}\n"
    objects = template(chart, f"--set=beamlitApiToken={token}")
    assert kind(objects, "Secret", "-platform")["stringData"] == {"token": token}


@pytest.mark.parametrize("word", ["beamlitApiToken=REPLACE_ME", "beamlitBaseUrl=https://other.example"])
def test_without_a_token_nothing_is_there(chart: Path, word: str) -> None:
    """Neither a placeholder nor a base URL turns anything on."""
    assert template(chart, *STEADY, f"--set={word}") == template(chart, *STEADY)


def test_a_token_changes_what_it_has_to(chart: Path) -> None:
    """A token adds the Job before a deletion with its rights, and changes only configuration, mounts, rights and
    webhooks."""
    before, after = ({_place(one): one for one in template(chart, *STEADY, *words)} for words in ((), MINE))
    name = "beamlit-beamlit-controller"
    assert set(after) - set(before) == {
        (kind, namespace, f"{name}-uninstall")
        for kind, namespace in (("Job", "sys"), ("ServiceAccount", "sys"), ("ClusterRole", ""),
                                ("ClusterRoleBinding", ""))
    }  # fmt: skip
    assert not set(before) - set(after)
    assert {place for place in before if before[place] != after[place]} == {
        ("ConfigMap", "sys", f"{name}-config"),
        ("Deployment", "sys", f"{name}-hooks"),
        ("Deployment", "sys", f"{name}-gateway"),  # the checksum of the configuration
        ("Role", "default", f"{name}-hooks"),
        ("CompositeController", "", name),
        ("CompositeController", "", f"{name}-policies"),
    }


def _place(one: dict[str, Any]) -> tuple[str, str, str]:
    return one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]


@pytest.mark.parametrize("words", [(), ("--set=config.namespaces=",)])
def test_hooks_may_read_what_they_are_asked_to_register(chart: Path, words: tuple[str, ...]) -> None:
    """With a token, and only then, hooks may get ModelDeployments and Policies where they are managed."""
    reads = {
        ("deployment.beamlit.com", "modeldeployments", "get"),
        ("authorization.beamlit.com", "policies", "get"),
    }
    (place,) = roles(template(chart, *words), "-hooks")
    assert roles(template(chart, *words, *MINE), "-hooks") == {place: HOOKS | reads}
    assert roles(template(chart, *words), "-hooks") == {place: HOOKS}


@pytest.mark.parametrize(
    "words", [(), ("--set=hooks.url=http://192.0.2.1:8082",), tuple(f"--set={one}" for one in BUNDLE)]
)
def test_finalize_hooks_with_a_token_alone(chart: Path, words: tuple[str, ...]) -> None:
    """Only with a token the CompositeControllers have a finalize hook, which is called as the sync hook is."""
    for suffix, path in (("-controller", "modeldeployments"), ("-policies", "policies")):
        without, with_ = (
            kind(template(chart, *STEADY, *words, *more), "CompositeController", suffix)["spec"]["hooks"]
            for more in ((), MINE)
        )
        assert "finalize" not in without
        finalize = with_.pop("finalize")
        assert with_ == without
        finalize["webhook"]["url"] = finalize["webhook"]["url"].replace("/finalize?", "/sync?")
        assert finalize == without["sync"]
        assert f"/{path}/sync?v=" in without["sync"]["webhook"]["url"]


@pytest.mark.parametrize("name", ["beamlit", "x" * 40, f"{'x' * 33}-y{'z' * 5}"])
def test_names_leave_room_for_the_finalizer(chart: Path, name: str) -> None:
    """The names of the two CompositeControllers differ and leave a finalizer at most 63 characters after its slash."""
    objects = template(chart, f"--set=fullnameOverride={name}")
    names = {one["metadata"]["name"] for one in objects if one["kind"] == "CompositeController"}
    assert len(names) == 2
    for one in names:
        assert len(f"{PREFIX}{one}".partition("/")[2]) <= 63
        assert not one.startswith("-")
        assert "--" not in one


def test_the_job_before_a_deletion(chart: Path) -> None:
    """helm runs the Job before a deletion, the Job ends before helm gives up, and its command can be parsed."""
    objects = template(chart, *MINE)
    job = kind(objects, "Job", "-uninstall")
    notes = job["metadata"]["annotations"]
    assert notes["helm.sh/hook"] == "pre-delete"
    assert notes["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    spec = job["spec"]["template"]["spec"]
    assert (spec["restartPolicy"], spec["serviceAccountName"]) == ("Never", job["metadata"]["name"])
    assert GRACE_SECONDS + WAIT_SECONDS + OWN_SECONDS < job["spec"]["activeDeadlineSeconds"] < 300
    (container,) = spec["containers"]
    assert container["args"][:3] == ["python", "-m", "hooks"]
    given = parser().parse_args(container["args"][3:])
    controllers = {one["metadata"]["name"] for one in objects if one["kind"] == "CompositeController"}
    assert set(given.controllers) == controllers
    assert (
        container["image"]
        == kind(objects, "Deployment", "-hooks")["spec"]["template"]["spec"]["containers"][0]["image"]
    )
    for one in objects:
        if one["kind"] == "NetworkPolicy":
            selected = one["spec"]["podSelector"]["matchLabels"].items()
            assert not selected <= job["spec"]["template"]["metadata"]["labels"].items()


def test_the_job_verifies_certificates_as_the_programs_do(chart: Path) -> None:
    """The value config.tls.strict reaches the Job before a deletion, too."""
    for words, expected in (((), None), (("--set=config.tls.strict=true",), True)):
        job = kind(template(chart, *MINE, *words), "Job", "-uninstall")
        (container,) = job["spec"]["template"]["spec"]["containers"]
        environment = {one["name"]: one["value"] for one in container.get("env", ())}
        assert bool(environment) is bool(expected)
        assert Settings.load(None, environment=environment).tls.strict is bool(expected)


def test_the_job_may_what_it_does(chart: Path) -> None:
    """The Job's account exists only while it runs, and may change two CompositeControllers and finalizers."""
    objects = template(chart, *MINE)
    role = kind(objects, "ClusterRole", "-uninstall")
    assert rules(role) == RELEASE | HELD
    named = [rule["resourceNames"] for rule in role["rules"] if "compositecontrollers" in rule["resources"]]
    assert named == [[f"beamlit-beamlit-controller{suffix}" for suffix in ("", "-policies")]]
    for one in objects:
        if one["metadata"]["name"].endswith("-uninstall") and one["kind"] != "Job":
            notes = one["metadata"]["annotations"]
            assert (notes["helm.sh/hook"], notes["helm.sh/hook-weight"]) == ("pre-delete", "-1")
            assert "hook-succeeded" in notes["helm.sh/hook-delete-policy"]


def test_the_job_keeps_to_allowed_namespaces(chart: Path) -> None:
    """With allowedNamespaces the Job, too, may write in those namespaces only."""
    words = ("--set=allowedNamespaces={a,b}", "--set=config.namespaces=a")
    assert roles(template(chart, *MINE, *words), "-uninstall") == {None: RELEASE, "a": HELD, "b": HELD}


def test_the_job_follows_hooks(chart: Path) -> None:
    """The Job runs on the nodes of hooks, with their priority and the pull secrets."""
    words = (
        *("--set=hooks.nodeSelector.pool=a", "--set=hooks.tolerations[0].operator=Exists"),
        *("--set=hooks.priorityClassName=high", "--set=imagePullSecrets[0].name=pull", "--set=commonLabels.team=x"),
    )
    job = kind(template(chart, *MINE, *words), "Job", "-uninstall")
    spec = job["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"pool": "a"}
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["priorityClassName"] == "high"
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    assert job["spec"]["template"]["metadata"]["labels"]["team"] == "x"


def test_every_binding_of_the_platform_is_of_a_role_that_is_there(chart: Path) -> None:
    """With a token each role has its binding, in one namespace and in several."""
    for words in ((), ("--set=allowedNamespaces={a,b}", "--set=config.namespaces=a")):
        objects = template(chart, *MINE, *words)
        made = {_place(one)[1:] for one in objects if one["kind"] in ("Role", "ClusterRole")}
        bound = {
            (one["metadata"].get("namespace", ""), one["roleRef"]["name"])
            for one in objects
            if one["kind"] in ("RoleBinding", "ClusterRoleBinding")
        }
        assert made == bound


def test_no_secret_in_the_notes(noted: Path) -> None:
    """The notes do not have the token."""
    text = yaml.safe_dump(kind(template(noted, *GIVEN), "ConfigMap", "notes"))
    assert TOKEN not in text
