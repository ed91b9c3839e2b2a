"""The commands of `kubectl beamlit`: arguments, output and exit status, on a cluster that is recorded."""

from collections.abc import Sequence

import orjson
import pytest

from hooks.kube.objects import Object
from hooks.kubectl.cluster import Kubectl, Query
from hooks.kubectl.command import main
from tests import builders

MODELS = f"/apis/deployment.beamlit.com/v1alpha1/namespaces/{builders.NAMESPACE}/modeldeployments"


class Recorded(Kubectl):
    """A cluster with one model, which keeps what is changed in it."""

    def __init__(self, model: Object) -> None:
        super().__init__("kubectl")
        self.model = model
        self.changes: list[Object] = []
        self.flags: list[str] = []
        """Flags for each call of kubectl."""

    async def raw(self, path: str, query: Query = ()) -> bytes:
        """Return the model, or the list of it."""
        assert not query
        return orjson.dumps(self.model if path == f"{MODELS}/demo" else {"items": [self.model]})

    async def patch(self, resource: str, name: str, namespace: str, change: Object) -> None:
        """Keep a change."""
        assert (resource, name, namespace) == ("modeldeployments.deployment.beamlit.com", "demo", builders.NAMESPACE)
        self.changes.append(change)

    async def namespace(self) -> str:
        """Return the namespace of the model."""
        return builders.NAMESPACE


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """The cluster that commands find, with the flags that they give to kubectl."""
    recorded = Recorded(builders.model_deployment())

    def found(flags: Sequence[str] = ()) -> Recorded:
        recorded.flags = list(flags)
        return recorded

    monkeypatch.setattr(Kubectl, "found", found)
    return recorded


def test_flags_go_to_kubectl(cluster: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    """Context, kubeconfig and user are given to each call of kubectl."""
    assert main(["status", "--context", "prod", "--as=ann"]) == 0
    assert cluster.flags == ["--context=prod", "--as=ann"]
    assert capsys.readouterr().out.splitlines()[1].split()[0] == "demo"


def test_the_status_as_json(cluster: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    """`-o json` prints a list, also of one model."""
    assert main(["status", "demo", "-o", "json"]) == 0
    (shown,) = orjson.loads(capsys.readouterr().out)
    assert (shown["name"], shown["percentage"]) == ("demo", None)


def test_a_split_is_set_and_cleared(cluster: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    """`split` patches the override alone, and `--clear` takes it away where there is one."""
    assert main(["split", "demo", "30", "--for", "10m"]) == 0
    assert capsys.readouterr().out.startswith("team-a/demo: 30 % of the requests go to the remote backend until ")
    (change,) = cluster.changes
    override = change["spec"]["offloadingConfig"]["behavior"]["override"]
    assert (override["percentage"], override["mode"]) == (30, "Normal")
    assert main(["split", "demo", "--clear"]) == 0
    assert capsys.readouterr().err == "kubectl beamlit: team-a/demo has no override.\n"
    cluster.model = builders.model_deployment(offloadingConfig=builders.override(30))
    assert main(["split", "demo", "--clear"]) == 0
    assert cluster.changes[1:] == [{"spec": {"offloadingConfig": {"behavior": {"override": None}}}}]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "COMMAND"),
        (("split", "demo"), "give a percentage and --for"),
        (("split", "demo", "30"), "give a percentage and --for"),
        (("split", "demo", "--for", "10m"), "give a percentage and --for"),
        (("split", "demo", "101", "--for", "10m"), "must be a whole number from 0 to 100"),
        (("split", "demo", "00030", "--for", "10m"), "must be a whole number from 0 to 100"),
        (("split", "demo", "30", "--for", "soon"), "--for 'soon' is not a time such as 90s"),
        (("split", "demo", "--clear", "--for", "10m"), "leave the percentage, --for and --force out"),
        (("decisions", "demo", "--limit", "0"), "must be a whole number from 1 to 1000"),
        (("explain", "demo", "--prometheus", "ftp://x"), "must be host:port or an http or https URL"),
        (("drill", "demo", "--percentage", "20"), "give --for too"),
        (("drill", "demo", "--percentage", "0", "--for", "2m"), "must be from 1 to 100"),
        (("drill", "demo", "--probe", "--for", "2m"), "leave --probe out"),
        (("drill", "demo", "--for", "0s"), "--for '0s' is not a time between one second and 366 days"),
    ],
)
def test_arguments_that_cannot_be_used(
    words: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Arguments that cannot be used, or do not belong together, end with status 2 and say what to write."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert problem in capsys.readouterr().err


def test_without_kubectl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without kubectl on the search path the command says so."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["status"]) == 1
    assert capsys.readouterr().err.startswith("kubectl beamlit: kubectl is not on the search path (PATH):")
