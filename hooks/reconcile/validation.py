"""Checks of a specification that its schema cannot express. Each raises with a sentence that says what to change."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.api.vocabulary import CREDENTIALS_OF_ALL, FRAMING, HOP_BY_HOP, AffinityType, StatefulPaths
from hooks import names, reasons
from hooks.api.common import ObjectReference
from hooks.api.gateway import ACCESS_TO_NOBODY, GatewayModel
from hooks.api.model_deployment import ModelDeploymentSpec, Server
from hooks.api.remote_backend import Location
from hooks.backends import geography
from hooks.backends.remote import check_names
from hooks.errors import NotAccepted
from hooks.kube import pod_template
from hooks.kube.objects import Object
from hooks.kube.stored import canonical_json
from hooks.kube.unstructured import mapping, objects, text
from hooks.observation.observation import APPS, Observation

MAX_CHILD_BYTES: Final = 200 * 1024
"""Most bytes of a child, as JSON. Metacontroller keeps a copy of it in an annotation, and Kubernetes limits all
annotations of an object to 256 KiB together."""

_TEMPLATE: Final = "spec.server.template"
_LOCATION: Final = "spec.offloadingConfig.remoteBackend.location"


def check(spec: ModelDeploymentSpec, observation: Observation) -> None:
    """Check a specification.

    Raises:
        NotAccepted: for the first mistake that is found.
    """
    _check_namespaces(spec, observation.parent.namespace)
    _check_workload(spec)
    _check_service_names(spec, observation.parent.name)
    _check_gateway(spec)
    if spec.gateway is not None:
        _check_models(spec.gateway.models or (), observation.parent.namespace, observation.parent.name)
    if spec.server is not None:
        _check_template(spec.server)
    remote = None if spec.offloading_config is None else spec.offloading_config.remote_backend
    if remote is not None and remote.location is not None:
        _check_location(remote.location)


def check_size(children: tuple[Object, ...]) -> None:
    """Check that Kubernetes can store every child together with its last-applied annotation.

    Raises:
        NotAccepted: for the first child that is too large.
    """
    for child in children:
        if len(canonical_json(child)) > MAX_CHILD_BYTES:
            raise NotAccepted(
                reasons.TOO_LARGE,
                f"{child['kind']} {child['metadata']['name']} would be larger than {MAX_CHILD_BYTES // 1024} KiB:"
                f" make {'the template' if child['kind'] == 'Deployment' else 'headers and model names'} smaller.",
            )


def _references(spec: ModelDeploymentSpec) -> Iterator[tuple[str, ObjectReference | None]]:
    yield "modelSourceRef", spec.model_source_ref
    yield "serviceRef", spec.service_ref
    yield "metricServiceRef", spec.metric_service_ref
    for index, policy in enumerate(spec.policies):
        yield f"policies[{index}]", policy


def _check_namespaces(spec: ModelDeploymentSpec, namespace: str) -> None:
    for field, reference in _references(spec):
        if reference is not None and reference.namespace not in (None, "", namespace):
            raise NotAccepted(
                reasons.CROSS_NAMESPACE_REFERENCE,
                f"spec.{field} refers to namespace {reference.namespace}: only objects of namespace {namespace} can be"
                " referred to. Move the object, or this ModelDeployment.",
            )


def _check_workload(spec: ModelDeploymentSpec) -> None:
    source = spec.model_source_ref
    if source is not None and source.api_version not in (None, "", APPS):
        raise NotAccepted(
            reasons.UNSUPPORTED_WORKLOAD,
            f"spec.modelSourceRef.apiVersion must be {APPS} or left out, not {source.api_version}.",
        )
    for field, reference in _references(spec):
        if reference is not None and not reference.name:
            raise NotAccepted(reasons.INVALID_SPEC, f"spec.{field}.name is missing: name the object.")


def _check_service_names(spec: ModelDeploymentSpec, parent: str) -> None:
    own = names.local_service(parent)
    for field in ("serviceRef", "metricServiceRef"):
        reference = spec.service_ref if field == "serviceRef" else spec.metric_service_ref
        if reference is not None and reference.name == own:
            raise NotAccepted(
                reasons.INVALID_NAME,
                f"spec.{field} names {own}, which the controller creates for itself: name your own Service or none.",
            )
        if reference is not None and not names.is_service_name(reference.name or ""):
            raise NotAccepted(
                reasons.INVALID_NAME,
                f"spec.{field}.name must be the name of a Service, of lower-case letters, digits and dashes, not"
                f" {reference.name!r}.",
            )
    gateway_service = None if spec.gateway is None else spec.gateway.service_name
    if gateway_service is None:
        return
    if not names.is_service_name(gateway_service):
        raise NotAccepted(
            reasons.INVALID_NAME,
            f"spec.gateway.serviceName must be lower-case letters, digits and dashes, at most {names.MAX_LENGTH}, and"
            f" begin with a letter, not {gateway_service!r}.",
        )
    if gateway_service == own:
        raise NotAccepted(
            reasons.INVALID_NAME,
            f"spec.gateway.serviceName must not be {own}, which leads to the local replicas: choose another name.",
        )
    if spec.service_ref is not None and spec.service_ref.name == gateway_service:
        raise NotAccepted(
            reasons.INVALID_NAME,
            f"spec.gateway.serviceName must not be {gateway_service}, the Service of serviceRef: choose another name.",
        )


def _check_gateway(spec: ModelDeploymentSpec) -> None:
    gateway = spec.gateway
    if gateway is None:
        return
    offloading = spec.offloading_config
    if gateway.queue is not None and (offloading is None or offloading.behavior.overflow is None):
        raise NotAccepted(
            reasons.INVALID_SPEC,
            "spec.gateway.queue is for requests beyond a limit: set"
            " spec.offloadingConfig.behavior.overflow.inFlight, or leave the queue out.",
        )
    if gateway.retry.causes is not None and not gateway.retry.failover:
        raise NotAccepted(
            reasons.INVALID_SPEC,
            "spec.gateway.retry.causes say when there is failover: set spec.gateway.retry.failover to true, or leave"
            " causes out.",
        )
    if gateway.stateful_paths is StatefulPaths.REMOTE and (offloading is None or offloading.remote_backend is None):
        raise NotAccepted(
            reasons.INVALID_SPEC,
            "spec.gateway.statefulPaths must not be remote for the default remote backend, whose account all models"
            " share: set spec.offloadingConfig.remoteBackend to a backend of your own, or statefulPaths to local or"
            " refuse.",
        )
    affinity = gateway.affinity
    if affinity is not None and affinity.header is not None and affinity.type is AffinityType.NONE:
        raise NotAccepted(
            reasons.INVALID_SPEC,
            "spec.gateway.affinity.header says which requests belong together: set spec.gateway.affinity.type to"
            " conversation or prefix, or leave header out.",
        )
    if gateway.cors is not None and gateway.cors.credentials and "*" in gateway.cors.origins:
        raise NotAccepted(reasons.INVALID_SPEC, f"spec.gateway.cors {CREDENTIALS_OF_ALL}.")
    check_names(gateway.forward_headers, "spec.gateway.forwardHeaders")
    access = gateway.access
    if access is not None and access.secret_refs is None and access.jwt is None:
        raise NotAccepted(reasons.INVALID_SPEC, f"spec.gateway.{ACCESS_TO_NOBODY}.")
    for index, reference in enumerate(() if access is None else access.secret_refs or ()):
        if not names.is_object_name(reference.name):
            raise NotAccepted(
                reasons.INVALID_NAME,
                f"spec.gateway.access.secretRefs[{index}].name must be the name of a Secret, of lower-case letters,"
                f" digits, dashes and dots, not {reference.name!r}.",
            )
    if gateway.local_only is not None:
        _check_local_only(gateway.local_only.header.lower())


def _check_local_only(header: str) -> None:
    if header in HOP_BY_HOP or header in FRAMING or header == "host":
        raise NotAccepted(
            reasons.INVALID_HEADER,
            f"spec.gateway.localOnly.header names {header}, which says nothing about what is in a request: use a field"
            " of your own, such as x-data-class.",
        )


def _check_models(models: tuple[GatewayModel, ...], namespace: str, own: str) -> None:
    names_so_far = [own]
    for index, model in enumerate(models):
        field = f"spec.gateway.models[{index}].name"
        if model.name == own:
            raise NotAccepted(
                reasons.INVALID_NAME,
                f"{field} must not be {own}, the model's own name: spec.gateway.localModel and spec.model say by which"
                " names the backends know it.",
            )
        if model.name.startswith(f"{namespace}/"):
            raise NotAccepted(
                reasons.INVALID_NAME,
                f"{field} must not begin with {namespace}/, which clients may put in front of any name: leave it out.",
            )
        if model.name in names_so_far:
            raise NotAccepted(
                reasons.INVALID_NAME, f"{field} must be another name than {model.name}, which is there already."
            )
        names_so_far.append(model.name)


def _check_template(server: Server) -> None:
    template = server.template
    metadata = _object_at(template, "metadata", _TEMPLATE)
    for field in ("labels", "annotations"):
        for key, value in _object_at(metadata, field, f"{_TEMPLATE}.metadata").items():
            if not isinstance(value, str | None):
                raise _invalid(f"{_TEMPLATE}.metadata.{field}: the value of {key} must be a string: put it in quotes.")
    pod = _object_at(template, "spec", _TEMPLATE)
    if not objects(pod, "containers"):
        raise _invalid(f"{_TEMPLATE}.spec.containers must be a list with at least one container.")
    for field in ("containers", "initContainers"):
        _check_containers(pod, field)
    if pod.get("ephemeralContainers"):
        raise _invalid(f"{_TEMPLATE}.spec.ephemeralContainers must be left out: a pod template cannot have them.")
    for problem in pod_template.problems(template, _TEMPLATE):
        raise _invalid(problem)


def _check_containers(pod: Mapping[str, Any], field: str) -> None:
    """Check that the names by which Metacontroller merges lists differ: it would mix items of one name up."""
    path = f"{_TEMPLATE}.spec.{field}"
    containers = objects(pod, field)
    if not all(text(container, "name") for container in containers):
        raise _invalid(f"{path}: every container needs a name.")
    _check_distinct([text(container, "name") for container in containers], f"{path} has two containers named")
    for container in containers:
        where = f"Container {container['name']} in {path}"
        _check_distinct([entry.get("name") for entry in objects(container, "env")], f"{where} has two variables named")
        _check_distinct(
            [entry.get("containerPort") for entry in objects(container, "ports")], f"{where} has two ports numbered"
        )


def _check_distinct(values: list[Any], problem: str) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise _invalid(f"{problem} {value}: keep one of them.")


def _check_location(location: Location) -> None:
    """Check that country and continent exist. Policies would treat a location that does not exist as undeclared."""
    country, continent = location.country or "", location.continent or ""
    problems = (
        ("country", country, geography.country_problem(country)),
        ("continent", continent, geography.continent_problem(continent, country)),
    )
    for field, value, problem in problems:
        if problem:
            raise NotAccepted(reasons.INVALID_LOCATION, f"{_LOCATION}.{field} is {value!r}, and {problem}.")


def _object_at(parent: Mapping[str, Any], key: str, path: str) -> Mapping[str, Any]:
    if parent.get(key) is not None and not isinstance(parent[key], dict):
        raise _invalid(f"{path}.{key} must be an object.")
    return mapping(parent, key)


def _invalid(message: str) -> NotAccepted:
    return NotAccepted(reasons.INVALID_TEMPLATE, message)
