"""The children that shall exist, as full objects in stored form with only the fields we own.

Whatever of a child a user or Kubernetes adds besides stays theirs, for nothing here repeats what is observed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from gateway.api import v1alpha1 as routes
from hooks import names, reasons
from hooks.api.gateway import Gateway, GatewayBreaker, GatewayQueue, GatewayRetry
from hooks.api.model_deployment import ModelDeploymentSpec, Server
from hooks.api.remote_backend import HealthCheck
from hooks.backends.local import Local, cluster_ips, pod_labels, workload_name
from hooks.backends.readiness import MESSAGES, Readiness
from hooks.backends.remote import Remote, Tls
from hooks.errors import NotAccepted
from hooks.kube.objects import Object
from hooks.kube.stored import canonical
from hooks.kube.unstructured import text
from hooks.observation.observation import APPS, CORE, Observation
from hooks.offloading.rules import Split

KINDS: Final = frozenset({(APPS, "Deployment"), (CORE, "Service"), (CORE, "ConfigMap")})
"""What may be a child at all, by API version and kind."""
LOCAL_PORT: Final = 80
"""Port of the local Service. The pods' own port is behind it."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a specification came down to."""

    spec: ModelDeploymentSpec
    local: Local | Object | None
    """The pods behind the local backend; the local Service as it was decided last where they are not known now; None
    when there is none."""
    remote: Remote | None
    split: Split
    gateway_service: Object | None
    """The Service that leads to the gateway as it was decided last, for when it is not known where the gateway is."""

    @property
    def has_local(self) -> bool:
        """Whether some request may ever reach the local backend."""
        return self.local is not None and self.split.local

    @property
    def has_remote(self) -> bool:
        """Whether some request may ever reach the remote backend."""
        return self.remote is not None and self.split.remote


def make_children(parts: Parts, observation: Observation) -> tuple[Object, ...]:
    """All children, in the order in which Metacontroller applies kinds.

    Raises:
        NotAccepted: a value of the specification cannot be in a route document.
    """
    children = [make_route_config_map(parts, observation)]
    if isinstance(parts.local, Local):
        children.append(make_local_service(parts.spec, parts.local, observation))
    elif parts.local is not None:
        children.append(parts.local)
    gateway_service = make_gateway_service(parts, observation)
    if gateway_service is not None:
        children.append(gateway_service)
    if parts.spec.server is not None:
        children.append(make_deployment(parts.spec.server, observation))
    return tuple(children)


def make_deployment(server: Server, observation: Observation) -> Object:
    """The Deployment of spec.server. Without replicas, whoever scales it keeps its number."""
    labels = pod_labels(observation)
    template = dict(server.template)
    metadata = dict(template.get("metadata") or {})
    template["metadata"] = {**metadata, "labels": {**(metadata.get("labels") or {}), **labels}}
    spec: dict[str, Any] = {"selector": {"matchLabels": labels}, "template": canonical(template)}
    if server.replicas is not None:
        spec["replicas"] = server.replicas
    return _child(APPS, "Deployment", names.deployment(observation.parent.name), observation, {"spec": spec})


def make_local_service(spec: ModelDeploymentSpec, local: Local, observation: Observation) -> Object:
    """The Service in front of the local replicas. The gateway's only way to them: whatever a user does with a Service
    of his own, the gateway is never sent to itself."""
    body = {
        "spec": {
            "selector": dict(local.selector),
            "ports": [{"name": "http", "port": LOCAL_PORT, "targetPort": local.target_port}],
        }
    }
    child = _child(CORE, "Service", names.local_service(observation.parent.name), observation, body)
    child["metadata"]["annotations"] = {names.WORKLOAD_ANNOTATION: "/".join(workload_name(spec, observation))}
    return child


def make_gateway_service(parts: Parts, observation: Observation) -> Object | None:
    """The Service through which clients in this namespace reach the gateway; None when none is wanted."""
    name = None if parts.spec.gateway is None else parts.spec.gateway.service_name
    gateway = observation.defaults.gateway_service
    if name is None:
        return None
    if gateway is None:
        return parts.gateway_service
    target = f"{gateway.name}.{gateway.namespace}.svc.{observation.defaults.cluster_domain}"
    return _child(CORE, "Service", name, observation, {"spec": {"type": "ExternalName", "externalName": target}})


def make_route_config_map(parts: Parts, observation: Observation) -> Object:
    """The ConfigMap with the route document.

    Raises:
        NotAccepted: a value of the specification cannot be in a route document.
    """
    try:
        document = _document(parts, observation)
    except ValidationError as exc:
        raise NotAccepted(
            reasons.INVALID_SPEC,
            f"The specification gives a route that cannot be served: in its document {routes.problem_in(exc)}.",
        ) from None
    return _config_map(document.canonical_json(), observation)


def route_of(config_map: Mapping[str, Any]) -> str:
    """The text of the route document in a ConfigMap; empty when there is none."""
    data = config_map.get("data")
    return text(data, routes.KEY) if isinstance(data, dict) else ""


def read_route(config_map: Mapping[str, Any]) -> routes.RouteDocument | None:
    """The route document in a ConfigMap; None when it cannot be read."""
    try:
        return routes.read(route_of(config_map))[0]
    except routes.DocumentError:
        return None


def kept_split(config_map: Mapping[str, Any]) -> Split | None:
    """The split that a route decided earlier holds; None when it cannot be read."""
    document = read_route(config_map)
    if document is None:
        return None
    ids = {backend.id for backend in document.backends}
    reason = document.split.reason
    message = MESSAGES.get(reason, "As decided before the specification was changed to what is not accepted.")
    return Split(document.split.percentage, reason, message, local="local" in ids, remote="remote" in ids)


def with_readiness(config_map: Object, readiness: Readiness | None, *, overdue: bool, override_over: bool) -> Object:
    """A route decided earlier, in which the replicas still set the weights: all to the remote while none is ready and
    `overdue` says that it has been so for long enough, back when one is. An override in it ends when it must. Without
    readiness nothing is known of the replicas, and they change nothing."""
    document = read_route(config_map)
    if document is None or {backend.id for backend in document.backends} != {"local", "remote"}:
        return config_map
    split = document.split
    if override_over and split.reason in (reasons.OVERRIDE, reasons.OVERRIDE_FORCED):
        split = routes.Split(percentage=0, reason=reasons.LOCAL)
    if readiness is not None and not readiness.is_ready and overdue and split.reason != reasons.OVERRIDE_FORCED:
        split = routes.Split(percentage=100, reason=readiness.reason)
    elif readiness is not None and readiness.is_ready and split.reason in reasons.READINESS:
        split = routes.Split(percentage=0, reason=reasons.LOCAL)
    if split == document.split:
        return config_map
    weights = {"local": 100 - split.percentage, "remote": split.percentage}
    backends = tuple(backend.model_copy(update={"weight": weights[backend.id]}) for backend in document.backends)
    changed = document.model_copy(update={"backends": backends, "split": split})
    return {**config_map, "data": {**config_map["data"], routes.KEY: changed.canonical_json()}}


def _document(parts: Parts, observation: Observation) -> routes.RouteDocument:
    spec, gateway = parts.spec, parts.spec.gateway or Gateway()
    wanted = [spec.service_ref and spec.service_ref.name, gateway.service_name]
    timeouts = gateway.timeouts
    return routes.RouteDocument(
        name=observation.parent.name,
        service_names=tuple(name for name in wanted if name),
        cluster_ips=_cluster_ips(parts, observation),
        backends=_backends(parts, observation),
        timeouts=routes.Timeouts()
        if timeouts is None
        else routes.Timeouts(
            connect=timeouts.connect_seconds,
            first_byte=timeouts.first_byte_seconds,
            idle=timeouts.idle_seconds,
        ),
        limits=routes.Limits(body_bytes=gateway.body_limit_bytes),
        retry=_retry(gateway.retry),
        breaker=routes.Breaker() if gateway.breaker is None else _breaker(gateway.breaker),
        queue=routes.Queue() if gateway.queue is None else _queue(gateway.queue),
        split=routes.Split(percentage=parts.split.percentage, reason=parts.split.reason),
    )


def _cluster_ips(parts: Parts, observation: Observation) -> tuple[str, ...]:
    """Addresses of the Service of serviceRef; those known last while it is not there."""
    known = cluster_ips(parts.spec, observation)
    if known is not None:
        return known
    key = observation.key(CORE, "ConfigMap", names.route(observation.parent.name))
    before = read_route(observation.children.get(key, {}))
    return () if before is None else before.cluster_ips


def _backends(parts: Parts, observation: Observation) -> tuple[routes.Backend, ...]:
    """Those that some request may ever reach, in the order in which failover tries them."""
    gateway, remote, percentage = parts.spec.gateway or Gateway(), parts.remote, parts.split.percentage
    offloading = parts.spec.offloading_config
    overflow = None if offloading is None else offloading.behavior.overflow
    use = (routes.Use.WEIGHTED, routes.Use.FAILOVER) if gateway.retry.failover else (routes.Use.WEIGHTED,)
    backends = []
    if parts.has_local:
        backends.append(
            routes.Backend(
                id="local",
                weight=100 - percentage,
                use=use,
                service=names.local_service(observation.parent.name),
                port=LOCAL_PORT,
                model=gateway.local_model or None,
                in_flight=None if overflow is None else overflow.in_flight,
                health=_health(gateway.health_check),
            )
        )
    if remote is not None and parts.has_remote:
        backends.append(
            routes.Backend(
                id="remote",
                weight=percentage,
                # Without a local backend nothing flows over.
                use=use if overflow is None or not parts.has_local else (*use, routes.Use.OVERFLOW),
                host=remote.host or None,
                default=not remote.host,
                port=remote.port,
                scheme=remote.scheme,
                path_prefix=remote.path_prefix,
                headers=_headers(remote),
                credentials=None
                if remote.credentials is None
                else routes.Credentials(
                    oauth2=routes.OAuth2(kind=remote.credentials.kind, name=remote.credentials.name)
                ),
                model=remote.model,
                tls=_tls(remote.tls),
                health=_health(remote.health_check),
            )
        )
    return tuple(backends)


def _retry(retry: GatewayRetry) -> routes.Retry:
    given = {} if retry.causes is None else {"on": tuple(routes.FailureCause(cause) for cause in retry.causes)}
    return routes.Retry(**given, body_bytes=retry.body_bytes)


def _breaker(breaker: GatewayBreaker) -> routes.Breaker:
    return routes.Breaker(
        consecutive_failures=breaker.consecutive_failures,
        error_percentage=breaker.error_percentage,
        minimum=breaker.minimum_requests,
        window=breaker.window_seconds,
        open=breaker.open_seconds,
    )


def _queue(queue: GatewayQueue) -> routes.Queue:
    return routes.Queue(size=queue.size, wait=queue.wait_seconds)


def _health(check: HealthCheck | None) -> routes.HealthCheck | None:
    if check is None:
        return None
    return routes.HealthCheck(
        path=check.path,
        interval=check.interval_seconds,
        timeout=check.timeout_seconds,
        unhealthy=check.unhealthy_threshold,
        healthy=check.healthy_threshold,
    )


def _tls(tls: Tls | None) -> routes.Tls:
    if tls is None:
        return routes.Tls()
    return routes.Tls(server_name=tls.server_name, ca_bundle=tls.ca_bundle, client_certificate=tls.client_certificate)


def _headers(remote: Remote) -> routes.Headers:
    return routes.Headers(
        set=dict(remote.headers),
        set_from={
            name: routes.SecretKey(name=secret.name, key=secret.key) for name, secret in remote.secret_headers.items()
        },
    )


def _config_map(document: str, observation: Observation) -> Object:
    name = names.route(observation.parent.name)
    child = _child(CORE, "ConfigMap", name, observation, {"data": {routes.KEY: document}})
    child["metadata"]["labels"][routes.LABEL] = routes.LABEL_VALUE
    return child


def _child(api_version: str, kind: str, name: str, observation: Observation, body: Object) -> Object:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": observation.parent.namespace,
            "labels": {
                names.MANAGED_BY_LABEL: names.MANAGED_BY,
                names.NAME_LABEL: names.label_value(observation.parent.name),
            },
        },
        **body,
    }
