"""What hooks decide, shown for manifests in files and without a cluster.

`render` prints what a manifest becomes, `explain` why a model is offloaded as it is. Both read a manifest as the API
server does: a field that it does not know is named and left out, a null counts as absent, defaults are set, and an
object with a number that is given as text is refused.
"""

import asyncio
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, TextIO

import orjson
import yaml

from hooks.api.common import MODEL_DEPLOYMENT_API_VERSION, POLICY_API_VERSION
from hooks.api.crds import structural_schema
from hooks.api.metrics import MetricSpec, MetricType
from hooks.api.model_deployment import ModelDeployment
from hooks.api.policy import Policy
from hooks.errors import HookError
from hooks.explain import Explanation, explain
from hooks.explain.document import as_document
from hooks.explain.text import as_text
from hooks.gatherer import gather
from hooks.kube import files as documents
from hooks.kube import structural
from hooks.kube.files import UnreadableFile
from hooks.kube.objects import Object
from hooks.kube.unstructured import mapping, objects, text
from hooks.metrics import Scrape, Sources
from hooks.metrics.recorded import DEFAULT_NAMESPACE, Recorded, Unrecognized
from hooks.metrics.recordings import Recordings
from hooks.observation.observation import InstallDefaults, Observation
from hooks.offloading.targets import metric_name
from hooks.protocol import PARENT_KIND, POLICY_KIND, SyncRequest
from hooks.reconcile import model_deployment
from hooks.settings import MetricInformer, Settings
from program.problems import allowed, listed, shown

Format = Literal["text", "json"]

_OF_A_CLUSTER: Final = ("OffloadReady", "Synced", "Ready", "Registered")
"""Conditions that depend on gateways, on whether the children exist, and on the platform."""
_BOOLEAN: Final = re.compile("true|false")
_NUMBER: Final = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")


class _Printer(yaml.SafeDumper):
    """YAML printer that writes every value in full, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Return that no value is written as an alias."""
        return True


@dataclass(frozen=True, slots=True)
class Streams:
    """Streams of a command."""

    output: TextIO
    """Stream for the result."""
    problems: TextIO
    """Stream for what is wrong with the manifests."""

    def complain(self, sentence: str) -> None:
        """Print a line about what is wrong."""
        print(sentence, file=self.problems)


def render(
    files: Sequence[Path],
    defaults: InstallDefaults,
    *,
    now: datetime,
    output: TextIO = sys.stdout,
    problems: TextIO = sys.stderr,
) -> int:
    """Print the children of every ModelDeployment in files as YAML.

    Other objects in the files are taken for observed: workloads, Services and Policies that a ModelDeployment refers
    to. No metric is read. Fields that the API server would not know, what it would refuse, and conditions that are
    False, are lines on `problems`; not so conditions that only a cluster could tell.

    Args:
        files: manifests.
        defaults: what the configuration says.
        now: present time.
        output: stream for the children.
        problems: stream for what is wrong.

    Returns:
        0 when all are accepted, 1 when one is not or there is none, 2 when a file cannot be read.
    """
    streams = Streams(output, problems)
    try:
        parents, others, accepted = read_manifests(files, streams)
    except UnreadableFile as exc:
        streams.complain(f"hooks: {exc}")
        return 2
    if not parents:
        if accepted:
            streams.complain(f"hooks: {no_parent(files)}")
        return 1
    is_rendered = False
    for parent in parents:
        name = name_of(parent)
        try:
            response = model_deployment.sync(Observation.of(_request(parent, others), defaults), now=now)
        except HookError as exc:
            streams.complain(f"{name}: {exc}")
            accepted = False
            continue
        is_rendered = True
        for child in response.children:
            document = yaml.dump(child, Dumper=_Printer, sort_keys=False, allow_unicode=True, width=120)
            output.write(f"---\n{document}")
        for condition in response.status.get("conditions", ()):
            if condition["status"] == "False" and condition["type"] not in _OF_A_CLUSTER:
                streams.complain(f"{name}: {condition['type']}=False/{condition['reason']}: {condition['message']}")
                accepted = accepted and condition["type"] != "Accepted"
    if is_rendered:
        streams.complain(f"hooks: no cluster was asked, so nothing is said of {listed(_OF_A_CLUSTER, 'and')}.")
    return 0 if accepted else 1


def explain_files(
    files: Sequence[Path],
    observed: Sequence[Path],
    settings: Settings,
    *,
    now: datetime,
    form: Format = "text",
    output: TextIO = sys.stdout,
    problems: TextIO = sys.stderr,
) -> int:
    """Print why every ModelDeployment in files is offloaded as it is, and what would change that.

    Args:
        files: manifests, as for `render`.
        observed: files, or folders of them, with what was observed: objects with their status, pods, responses of
            metrics APIs, and reports of gateways on their drills. Of an object that is in `files` too, only the status
            is taken.
        settings: configuration of the installation.
        now: present time, also the time of values that have none.
        form: text for people or JSON for programs.
        output: stream for the explanation.
        problems: stream for what is wrong.

    Returns:
        The exit status, as `render` does.
    """
    streams = Streams(output, problems)
    try:
        parents, others, accepted = read_manifests(files, streams)
        recorded = _recorded(observed)
    except UnreadableFile as exc:
        streams.complain(f"hooks: {exc}")
        return 2
    if not parents:
        if accepted:
            streams.complain(f"hooks: {no_parent(files)}")
        return 1
    sources = _sources(recorded, settings.metric_informer, now) if observed else None
    explanations: list[Explanation] = []
    for parent in parents:
        try:
            request = _request(*_completed(parent, others, recorded.objects))
            observation = asyncio.run(gather(request, settings.install_defaults, sources))
            route = (observation.parent.namespace, observation.parent.name)
            observation = replace(observation, drills=recorded.drills(route, now))
            explanations.append(explain(observation, now=now))
        except HookError as exc:
            streams.complain(f"{name_of(parent)}: {exc}")
            accepted = False
            continue
        accepted = accepted and explanations[-1].accepted
    if form == "json":
        document = orjson.dumps([as_document(one) for one in explanations], option=orjson.OPT_INDENT_2)
        output.write(f"{document.decode()}\n")
    else:
        output.write("\n".join(as_text(one) for one in explanations))
    return 0 if accepted else 1


def read_manifests(files: Sequence[Path], streams: Streams) -> tuple[list[Object], list[Object], bool]:
    """Return the ModelDeployments in files as the API server would store them, and what else is in the files.

    The third value is whether the API server would store every object; those that it would not are left out.

    Raises:
        UnreadableFile: one cannot be used.
    """
    schemas = {
        (MODEL_DEPLOYMENT_API_VERSION, PARENT_KIND): structural_schema(ModelDeployment),
        (POLICY_API_VERSION, POLICY_KIND): structural_schema(Policy),
    }
    parents: list[Object] = []
    others: list[Object] = []
    accepted = True
    for item in [item for path in files for item in _objects(path)]:
        schema = schemas.get((text(item, "apiVersion"), text(item, "kind")))
        stored = item if schema is None else _stored(schema, item, name_of(item), streams)
        if stored is None:
            accepted = False
        else:
            (parents if item.get("kind") == PARENT_KIND else others).append(stored)
    return parents, others, accepted


def stored_parent(item: Object, streams: Streams, name: str) -> Object | None:
    """Return a ModelDeployment as the API server would store it, or None where it has a field or a value that it would
    not take.

    Args:
        item: the ModelDeployment.
        streams: streams for lines on what is wrong.
        name: what these lines begin with.
    """
    schema = structural_schema(ModelDeployment)
    stored = _stored(schema, item, name, streams)
    return None if structural.unknown_fields(schema, item) else stored


def _stored(schema: structural.Schema, item: Object, name: str, streams: Streams) -> Object | None:
    """Return an object as the API server would store it, or None where it would refuse it."""
    for field in structural.unknown_fields(schema, item):
        streams.complain(f'{name}: unknown field "{field}"')
    stored = structural.stored(schema, item)
    wrong = list(structural.wrong_types(schema, {**stored, "metadata": {}}))
    for field, node, value in wrong:
        streams.complain(f"{name}: {field} must be {allowed(node)}, not {shown(value)}{_unquoted(node, value)}.")
    return None if wrong else stored


def _unquoted(node: structural.Schema, value: str | float) -> str:
    """Return what to write where a number or a boolean is text, and nothing where the text is no such value."""
    form = _BOOLEAN if node["type"] == "boolean" else _NUMBER
    return f": write {value} without quotes" if form.fullmatch(str(value)) else ""


def _objects(path: Path) -> Iterator[Object]:
    for item in documents.read(path):
        metadata = item.get("metadata") if isinstance(item, dict) else None
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            raise UnreadableFile(f"{path} holds something that is not a Kubernetes object with kind and metadata.name.")
        metadata.setdefault("namespace", DEFAULT_NAMESPACE)
        yield item


def _recorded(files: Sequence[Path]) -> Recorded:
    items: list[Any] = []
    for path in [one for file in files for one in (sorted(file.rglob("*.yaml")) if file.is_dir() else (file,))]:
        content = documents.read(path)
        try:
            Recorded.of(content)
        except Unrecognized as exc:
            raise UnreadableFile(f"{path} holds {exc}.") from exc
        items += content
    return Recorded.of(items)


def no_parent(files: Sequence[Path]) -> str:
    """Return a sentence that says that files have no ModelDeployment."""
    return f"there is no ModelDeployment in {', '.join(map(str, files))}."


def name_of(item: Object) -> str:
    """Return the namespace and the name of an object."""
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"


def _request(parent: Object, related: Iterable[Object], children: Iterable[Object] = ()) -> SyncRequest:
    """Return the request that Metacontroller would send."""
    groups = {
        part: {"observed": {str(number): item for number, item in enumerate(items)}}
        for part, items in (("related", related), ("children", children))
    }
    return SyncRequest.from_json({"parent": parent, **groups})


def _completed(
    parent: Object, others: Iterable[Object], observed: Iterable[Object]
) -> tuple[Object, list[Object], list[Object]]:
    """Return the parent, what is related to it, and its children: manifests with the status that was observed."""
    live = {_identity(item): item for item in observed}
    manifests = {_identity(item): item for item in others}
    merged = {key: _with_status(item, live.get(key)) for key, item in (live | manifests).items()}
    parent = _with_status(parent, live.get(_identity(parent)))
    children = [item for item in merged.values() if _belongs_to(item, parent)]
    return parent, [item for item in merged.values() if item not in children], children


def _identity(item: Object) -> tuple[str, str, str]:
    return text(item, "kind"), item["metadata"]["namespace"], item["metadata"]["name"]


def _with_status(item: Object, live: Object | None) -> Object:
    """Return a manifest with the status, and with the metadata it does not give, of the object that was observed."""
    if live is None or live is item:
        return item
    status = {"status": live["status"]} if "status" in live else {}
    return {**item, **status, "metadata": {**live["metadata"], **item["metadata"]}}


def _belongs_to(item: Object, parent: Object) -> bool:
    same = item["metadata"]["namespace"] == parent["metadata"]["namespace"]
    owners = objects(mapping(item, "metadata"), "ownerReferences")
    name = parent["metadata"]["name"]
    return same and any(text(one, "kind") == PARENT_KIND and text(one, "name") == name for one in owners)


def _sources(recorded: Recorded, informer: MetricInformer, now: datetime) -> Sources:
    prometheus = informer.prometheus
    of_prometheus = informer.type == "prometheus"

    def missing(metric: MetricSpec | None, namespace: str, scrape: Scrape | None) -> str:
        if metric is None:
            absent = f"the pods: add what `kubectl get pods -n {namespace} -o yaml` prints"
        elif scrape is not None:
            page = f"kubectl get --raw '/api/v1/namespaces/{namespace}/pods/POD:{scrape.port}/proxy{scrape.path}'"
            absent = f"{metric_name(metric)}: add a PodMetricsPage of each pod, with what `{page}` prints"
        elif of_prometheus:
            absent = f"{metric_name(metric)}: add a PrometheusAnswer"
        else:
            absent = f"{metric_name(metric)}: add what `{_command(metric, namespace)}` prints"
        return f"No observed file has {absent}."

    recordings = Recordings(
        lambda: recorded,
        missing,
        clock=lambda: now,
        scrape_interval=timedelta(seconds=prometheus.scrape_interval_seconds),
        **({"namespace_label": prometheus.namespace_label} if prometheus.namespace_label else {}),
    )
    return Sources(recordings, recordings, recordings, pages_by_default=informer.type == "pods")


_CUSTOM: Final = "/apis/custom.metrics.k8s.io/v1beta2/namespaces"


def _command(metric: MetricSpec, namespace: str) -> str:
    """Return the command that prints what the metrics API responds that serves a metric."""
    name = metric_name(metric)
    match metric.type:
        case MetricType.PODS:
            path = f"{_CUSTOM}/{namespace}/pods/*/{name}"
        case MetricType.OBJECT if metric.object is not None:
            described = metric.object.described_object
            path = f"{_CUSTOM}/{namespace}/{described.kind.lower()}s/{described.name}/{name}"
        case MetricType.EXTERNAL:
            path = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{name}"
        case _:
            path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods"
    return f"kubectl get --raw '{path}'"
