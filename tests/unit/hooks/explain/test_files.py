"""The command explain on files: manifests, observed objects, and messages about what is missing."""

import io
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from hooks import reasons
from hooks.cli import explain_files
from hooks.settings import Settings
from tests.builders import NOW, REMOTE, Json

SETTINGS = Settings.load(None, environment={})
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "demo", "generation": 2},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "demo"}},
        "template": {"spec": {"containers": [{"name": "server", "ports": [{"containerPort": 8000}]}]}},
    },
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "demo-1", "labels": {"app": "demo"}},
    "spec": {"containers": [{"name": "server", "resources": {"requests": {"cpu": "1"}}}]},
    "status": {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-03-01T10:00:00Z"}],
    },
}
USAGE = {
    "kind": "PodMetricsList",
    "apiVersion": "metrics.k8s.io/v1beta1",
    "items": [
        {
            "metadata": {"name": "demo-1", "namespace": "default"},
            "timestamp": "2026-03-01T11:59:50Z",
            "window": "15s",
            "containers": [{"name": "server", "usage": {"cpu": "700m"}}],
        }
    ],
}
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}


def manifest(*metrics: Json, **behavior: Any) -> Json:
    """Return a ModelDeployment as users write it."""
    return {
        "apiVersion": "deployment.beamlit.com/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "demo"},
        "spec": {
            "model": "llama",
            "modelSourceRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "demo"},
            "offloadingConfig": {
                "remoteBackend": REMOTE,
                "metrics": list(metrics),
                "behavior": {"percentage": 50, **behavior},
            },
        },
    }


def ready(replicas: int = 1, **metadata: Any) -> Json:
    """Return the Deployment as it is observed."""
    status = {"observedGeneration": 2, "readyReplicas": replicas}
    return DEPLOYMENT | {"metadata": {"name": "demo", "generation": 2, **metadata}, "status": status}


class Explained:
    """Output of explain for manifests and observed objects."""

    def __init__(
        self, tmp_path: Path, manifests: list[Json], observed: list[Json] | None, now: datetime = NOW, **settings: Any
    ) -> None:
        (tmp_path / "manifests.yaml").write_text(yaml.safe_dump_all(manifests))
        files = []
        for number, item in enumerate(observed or ()):
            files.append(tmp_path / f"observed-{number}")
            files[-1].write_text(json.dumps(item))
        output, problems = io.StringIO(), io.StringIO()
        self.code = explain_files(
            [tmp_path / "manifests.yaml"],
            files,
            SETTINGS if not settings else Settings.model_validate(settings),
            now=now,
            form="json",
            output=output,
            problems=problems,
        )
        self.problems = problems.getvalue()
        self.documents = json.loads(output.getvalue()) if output.getvalue() else []

    @property
    def split(self) -> tuple[int, str]:
        """Return percentage and reason of the only ModelDeployment."""
        (document,) = self.documents
        return document["answer"]["percentage"], document["answer"]["reason"]

    @property
    def metric(self) -> Json:
        """Return the only metric of the only ModelDeployment."""
        (document,) = self.documents
        metric: Json
        (metric,) = document["metrics"]
        return metric


def test_everything_that_kubectl_gives(tmp_path: Path) -> None:
    """From the workload, its pods and their usage, as kubectl prints them, explain shows the whole arithmetic."""
    explained = Explained(tmp_path, [manifest(CPU)], [ready(), POD, USAGE])
    assert (explained.code, explained.split) == (0, (0, reasons.LOCAL))
    assert explained.metric["arithmetic"] == "(700m) / (4/5 × 1) = 7/8"
    assert explained.metric["ageSeconds"] == 10
    (change,) = [one for one in explained.documents[0]["changes"] if one["metrics"]]
    assert change["metrics"] == [{"metric": 0, "name": "cpu", "atLeast": "800m", "present": "700m"}]
    assert (change["afterSeconds"], change["then"]["percentage"]) == (15, 50)


QUEUE = {
    "type": "Pods",
    "pods": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": 5}},
}


def from_pods(**source: Any) -> Json:
    """Return a ModelDeployment whose metric is read from its pods."""
    item = manifest(QUEUE)
    item["spec"]["offloadingConfig"]["metricSource"] = {"type": "pods", **source}
    return item


@pytest.mark.parametrize(
    ("source", "settings", "where"),
    [
        ({"path": "/m"}, {}, "port 8000, path /m of each ready pod"),
        ({"port": "http"}, {}, "port http, path /metrics of each ready pod"),
        (None, {"metricInformer": {"type": "pods"}}, "port 8000, path /metrics of each ready pod"),
    ],
)
def test_recorded_pages(tmp_path: Path, source: Json | None, settings: Json, where: str) -> None:
    """From the page of a pod explain shows the arithmetic, and where hooks would read it."""
    page = {"kind": "PodMetricsPage", "pod": "demo-1", "page": '# TYPE queue gauge\nqueue{a="1"} 3\nqueue{a="2"} 4\n'}
    foreign = {"kind": "PodMetricsPage", "pod": "demo-1", "namespace": "other", "page": "queue 99\n"}
    item = manifest(QUEUE) if source is None else from_pods(**source)
    explained = Explained(tmp_path, [item], [ready(), POD, page, foreign], **settings)
    assert explained.metric["arithmetic"] == "(7) / (5 × 1) = 7/5"
    assert explained.metric["pages"] == where


def test_a_recorded_value_instead_of_a_page(tmp_path: Path) -> None:
    """A recorded MetricValue of a pod stands for its page."""
    described = {"kind": "Pod", "name": "demo-1", "namespace": "default"}
    value = {"kind": "MetricValue", "describedObject": described, "metric": {"name": "queue"}, "value": "6"}
    assert Explained(tmp_path, [from_pods()], [ready(), POD, value]).metric["arithmetic"] == "(6) / (5 × 1) = 6/5"


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (
            None,
            (
                "No observed file has queue: add a PodMetricsPage of each pod, with what `kubectl get --raw"
                " '/api/v1/namespaces/default/pods/POD:8000/proxy/metrics'` prints."
            ),
        ),
        ("other 1\n", "The pods serve a page, and no queue is on it."),
    ],
)
def test_a_page_that_is_missing(tmp_path: Path, page: str | None, message: str) -> None:
    """Without a page, or without the metric on it, the message says what to add or that it is not there."""
    pages = [] if page is None else [{"kind": "PodMetricsPage", "pod": "demo-1", "page": page}]
    explained = Explained(tmp_path, [from_pods()], [ready(), POD, *pages])
    assert (explained.metric["reason"], explained.metric["message"]) == (reasons.NO_SAMPLE, message)


def test_the_value_that_is_named(tmp_path: Path) -> None:
    """A usage of the value that explain names reaches the target; a billionth less does not."""
    for used, state in (("800m", "Reached"), ("799999999n", "Below")):
        usage = json.loads(json.dumps(USAGE).replace("700m", used))
        assert Explained(tmp_path, [manifest(CPU)], [ready(), POD, usage]).metric["state"] == state


def test_status_comes_from_what_was_observed(tmp_path: Path) -> None:
    """The specification is taken from the manifest and the memory from the observed object, so that an edit can be
    tried."""
    state = {"percentage": 50, "reason": "MetricReached", "since": "2026-03-01T11:50:00Z", "step": 0}
    seen = manifest(CPU, percentage=50) | {"status": {"offloading": state}}
    explained = Explained(tmp_path, [manifest(CPU, percentage=30)], [seen, ready(), POD, USAGE])
    assert explained.split == (30, reasons.METRIC_REACHED)
    explained = Explained(tmp_path, [DEPLOYMENT, manifest(CPU, percentage=30)], [ready(), POD, USAGE])
    assert explained.split == (0, reasons.LOCAL)


def test_a_workload_of_spec_server(tmp_path: Path) -> None:
    """A workload that the ModelDeployment owns is its child, as Metacontroller would send it."""
    parent = manifest(CPU)
    del parent["spec"]["modelSourceRef"]
    parent["spec"]["server"] = {"port": 8000, "template": {"spec": {"containers": [{"name": "a", "image": "a"}]}}}
    owner = {"apiVersion": "deployment.beamlit.com/v1alpha1", "kind": "ModelDeployment", "name": "demo", "uid": "1"}
    explained = Explained(tmp_path, [parent], [ready(ownerReferences=[owner]), POD, USAGE])
    assert explained.metric["arithmetic"] == "(700m) / (4/5 × 1) = 7/8"
    assert Explained(tmp_path, [parent], [ready(), POD, USAGE]).split == (100, reasons.NO_READY_REPLICA)


@pytest.mark.parametrize(
    ("metric", "command"),
    [
        (CPU, "kubectl get --raw '/apis/metrics.k8s.io/v1beta1/namespaces/default/pods'"),
        (
            {"type": "Pods", "pods": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": 1}}},
            "kubectl get --raw '/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/q'",
        ),
        (
            {
                "type": "Object",
                "object": {
                    "metric": {"name": "q"},
                    "describedObject": {"kind": "Service", "name": "front"},
                    "target": {"type": "Value", "value": 1},
                },
            },
            "kubectl get --raw '/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/services/front/q'",
        ),
        (
            {"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": 1}}},
            "kubectl get --raw '/apis/external.metrics.k8s.io/v1beta1/namespaces/default/q'",
        ),
    ],
)
def test_a_metric_that_is_in_no_file(tmp_path: Path, metric: Json, command: str) -> None:
    """A metric that is in no file is missing, and its message has the command that prints it."""
    explained = Explained(tmp_path, [manifest(metric)], [ready(), POD])
    assert explained.split == (0, reasons.METRICS_MISSING)
    assert explained.metric["state"] == reasons.NO_SAMPLE
    assert command in explained.metric["message"]
    informer = {"type": "prometheus", "prometheus": {"address": "a:1", "namespaceLabel": "ns"}}
    explained = Explained(tmp_path, [manifest(metric)], [ready(), POD], metricInformer=informer)
    assert "add a PrometheusAnswer" in explained.metric["message"]


def test_pods_that_are_in_no_file(tmp_path: Path) -> None:
    """Pods that are in no file are missing, and the message has the command that prints them."""
    explained = Explained(tmp_path, [manifest(CPU)], [ready(), USAGE])
    assert "kubectl get pods -n default -o yaml" in explained.metric["message"]


def test_without_observed_objects(tmp_path: Path) -> None:
    """Without observed objects metrics are not evaluated, and the advice names the option to use."""
    explained = Explained(tmp_path, [manifest(CPU)], None)
    assert explained.metric["state"] == reasons.NOT_EVALUATED
    assert "--observed" in explained.metric["advice"]


def test_old_samples(tmp_path: Path) -> None:
    """Samples from long before now do not count, and the advice says how old they are."""
    explained = Explained(tmp_path, [manifest(CPU)], [ready(), POD, USAGE], now=NOW.replace(hour=14, minute=10))
    assert explained.metric["state"] == reasons.STALE
    assert explained.metric["advice"].startswith("The newest is of 2026-03-01T11:59:50Z, 2 h 10 min from now")


def test_several_model_deployments(tmp_path: Path) -> None:
    """Each ModelDeployment has a document; one that is not accepted makes the exit status 1."""
    other = manifest() | {"metadata": {"name": "other", "namespace": "elsewhere"}}
    explained = Explained(tmp_path, [manifest(), other], [ready()])
    assert [one["accepted"] for one in explained.documents] == [True, False]
    assert explained.code == 1


def test_an_error_of_hooks(tmp_path: Path) -> None:
    """A ModelDeployment that hooks would refuse with an error is reported, and the others are explained."""
    other = manifest() | {"metadata": {"name": "other"}, "apiVersion": "deployment.beamlit.com/v1"}
    explained = Explained(tmp_path, [other, manifest()], [ready()])
    assert (explained.code, len(explained.documents)) == (1, 1)
    assert explained.problems.startswith("default/other: ")


@pytest.mark.parametrize(
    ("manifests", "observed", "code", "words"),
    [
        ([DEPLOYMENT], [], 1, "there is no ModelDeployment in"),
        ([{"a": 1}], [], 2, "not a Kubernetes object with kind and metadata.name"),
        ([manifest()], [{"kind": "Status"}], 2, "observed-0 holds a Status that is neither"),
    ],
)
def test_files_that_cannot_be_used(
    tmp_path: Path, manifests: list[Json], observed: list[Json], code: int, words: str
) -> None:
    """Files that cannot be used are reported in one line."""
    explained = Explained(tmp_path, manifests, observed)
    assert explained.code == code
    assert words in explained.problems
    assert explained.problems.count("\n") == 1


def test_what_gateways_report_of_their_drills(tmp_path: Path) -> None:
    """From what gateways respond about their drills, explain says whether the remote backend would serve, at once."""
    drill = {"namespace": "default", "name": "demo", "reason": "TokenRefused", "message": "Correct the client secret."}
    reports = [{"gateway": name, "drills": [drill]} for name in ("g1", "g2")]
    explained = Explained(tmp_path, [manifest()], [ready(), *reports])
    (document,) = explained.documents
    assert (document["offloadReady"]["status"], document["offloadReady"]["reason"]) == ("False", "TokenRefused")
    assert [one["message"] for one in document["drills"]] == [drill["message"]] * 2
    others = Explained(tmp_path, [manifest()], [ready(), {"gateway": "g1", "drills": []}])
    assert others.documents[0]["offloadReady"]["reason"] == "NotTried"
    assert Explained(tmp_path, [manifest()], [ready()]).documents[0]["offloadReady"] is None
