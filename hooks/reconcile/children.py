"""The children that should exist, as whole objects in stored form that have only the fields we own.

Fields that a user or Kubernetes adds to a child stay theirs, because nothing here repeats what is observed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from gateway.api import v1alpha1 as routes
from gateway.api.vocabulary import Endpoints, Forwarded, StatefulPaths
from hooks import names, reasons
from hooks.api.gateway import (
    Gateway,
    GatewayAccess,
    GatewayAffinity,
    GatewayBreaker,
    GatewayCors,
    GatewayLocalOnly,
    GatewayModel,
    GatewayQueue,
    GatewayRetry,
)
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
"""API versions and kinds that a child may have."""
LOCAL_PORT: Final = 80
"""Port of the local Service, which leads to the port of the pods."""


@dataclass(frozen=True, slots=True)
class ResolvedSpec:
    """A specification in force with the backends that it refers to and the split between them."""

    spec: ModelDeploymentSpec
    local: Local | Object | None
    """The pods behind the local backend; the local Service as it was applied last while they are not known; None
    without both."""
    remote: Remote | None
    split: Split
    gateway_service: Object | None
    """The Service that leads to the gateway as it was applied last, for while it is not known where the gateway is."""

    @property
    def has_local(self) -> bool:
        """Whether any request may ever reach the local backend."""
        return self.local is not None and self.split.local

    @property
    def has_remote(self) -> bool:
        """Whether any request may ever reach the remote backend."""
        return self.remote is not None and self.split.remote


def make_children(resolved: ResolvedSpec, observation: Observation) -> tuple[Object, ...]:
    """Return all children, in the order in which Metacontroller applies their kinds.

    Raises:
        NotAccepted: a value of the specification cannot be in a route document.
    """
    children = [make_route_config_map(resolved, observation)]
    if isinstance(resolved.local, Local):
        children.append(make_local_service(resolved.spec, resolved.local, observation))
    elif resolved.local is not None:
        children.append(resolved.local)
    gateway_service = make_gateway_service(resolved, observation)
    if gateway_service is not None:
        children.append(gateway_service)
    if resolved.spec.server is not None:
        children.append(make_deployment(resolved.spec.server, observation))
    return tuple(children)


def make_deployment(server: Server, observation: Observation) -> Object:
    """Return the Deployment of spec.server. Without `replicas` in it, an autoscaler owns the number of replicas."""
    labels = pod_labels(observation)
    template = dict(server.template)
    metadata = dict(template.get("metadata") or {})
    template["metadata"] = {**metadata, "labels": {**(metadata.get("labels") or {}), **labels}}
    spec: dict[str, Any] = {"selector": {"matchLabels": labels}, "template": canonical(template)}
    if server.replicas is not None:
        spec["replicas"] = server.replicas
    return _child(APPS, "Deployment", names.deployment(observation.parent.name), observation, {"spec": spec})


def make_local_service(spec: ModelDeploymentSpec, local: Local, observation: Observation) -> Object:
    """Return the Service in front of the local replicas.

    The gateway reaches them in no other way: a Service of the user may lead back to the gateway.
    """
    body = {
        "spec": {
            "selector": dict(local.selector),
            "ports": [{"name": "http", "port": LOCAL_PORT, "targetPort": local.target_port}],
        }
    }
    child = _child(CORE, "Service", names.local_service(observation.parent.name), observation, body)
    child["metadata"]["annotations"] = {names.WORKLOAD_ANNOTATION: "/".join(workload_name(spec, observation))}
    return child


def make_gateway_service(resolved: ResolvedSpec, observation: Observation) -> Object | None:
    """Return the Service by which clients in the namespace reach the gateway; None when none is specified."""
    name = None if resolved.spec.gateway is None else resolved.spec.gateway.service_name
    gateway = observation.defaults.gateway_service
    if name is None:
        return None
    if gateway is None:
        return resolved.gateway_service
    target = f"{gateway.name}.{gateway.namespace}.svc.{observation.defaults.cluster_domain}"
    return _child(CORE, "Service", name, observation, {"spec": {"type": "ExternalName", "externalName": target}})


def make_route_config_map(resolved: ResolvedSpec, observation: Observation) -> Object:
    """Return the ConfigMap with the route document.

    Raises:
        NotAccepted: a value of the specification cannot be in a route document.
    """
    try:
        document = _document(resolved, observation)
    except ValidationError as exc:
        raise NotAccepted(
            reasons.INVALID_SPEC,
            f"The specification gives a route that cannot be served: in its document {routes.problem_in(exc)}.",
        ) from None
    return _config_map(document.canonical_json(), observation)


def route_of(config_map: Mapping[str, Any]) -> str:
    """Return the text of the route document in a ConfigMap; empty when it has none."""
    data = config_map.get("data")
    return text(data, routes.KEY) if isinstance(data, dict) else ""


def read_route(config_map: Mapping[str, Any]) -> routes.RouteDocument | None:
    """Return the route document in a ConfigMap; None when it cannot be read."""
    try:
        return routes.read(route_of(config_map))[0]
    except routes.DocumentError:
        return None


def last_applied_split(config_map: Mapping[str, Any]) -> Split | None:
    """Return the split in a route document that was applied last; None when it cannot be read."""
    document = read_route(config_map)
    if document is None:
        return None
    ids = {backend.id for backend in document.backends}
    reason = document.split.reason
    message = MESSAGES.get(reason, "As decided before the specification was changed to what is not accepted.")
    return Split(document.split.percentage, reason, message, local="local" in ids, remote="remote" in ids)


def with_readiness(config_map: Object, readiness: Readiness | None, *, overdue: bool, override_over: bool) -> Object:
    """Return a ConfigMap that was applied last with the weights that the replicas ask for now.

    All requests go to the remote backend while no replica is ready, and come back when one is.

    Args:
        config_map: the ConfigMap with the route document.
        readiness: the readiness of the local replicas; None when it is not known, and then it changes nothing.
        overdue: whether no replica has been ready for longer than notReadyForSeconds.
        override_over: whether an override in the document has ended.
    """
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


def _document(resolved: ResolvedSpec, observation: Observation) -> routes.RouteDocument:
    spec, gateway = resolved.spec, resolved.spec.gateway or Gateway()
    service_names = [spec.service_ref and spec.service_ref.name, gateway.service_name]
    timeouts = gateway.timeouts
    return routes.RouteDocument(
        name=observation.parent.name,
        service_names=tuple(name for name in service_names if name),
        cluster_ips=_cluster_ips(resolved, observation),
        models=tuple(map(_served_model, gateway.models or ())),
        requires=_required(gateway),
        backends=_backends(resolved, observation),
        timeouts=routes.Timeouts()
        if timeouts is None
        else routes.Timeouts(
            connect=timeouts.connect_seconds,
            first_byte=timeouts.first_byte_seconds,
            first_token=timeouts.first_token_seconds,
            idle=timeouts.idle_seconds,
        ),
        keep_alive=routes.KeepAlive()
        if gateway.keep_alive is None
        else routes.KeepAlive(after=gateway.keep_alive.after_seconds, before_head=gateway.keep_alive.before_head),
        limits=routes.Limits(body_bytes=gateway.body_limit_bytes),
        retry=_retry(gateway.retry),
        breaker=routes.Breaker() if gateway.breaker is None else _breaker(gateway.breaker),
        queue=routes.Queue() if gateway.queue is None else _queue(gateway.queue),
        drill=routes.Drill()
        if gateway.drill is None
        else routes.Drill(interval=gateway.drill.interval_seconds, request=gateway.drill.request),
        cors=None if gateway.cors is None else _cors(gateway.cors),
        affinity=routes.Affinity() if gateway.affinity is None else _affinity(gateway.affinity),
        stateful_paths=gateway.stateful_paths or StatefulPaths.LOCAL,
        usage=gateway.usage,
        access=None if gateway.access is None else _access(gateway.access),
        local_only=None if gateway.local_only is None else _local_only(gateway.local_only),
        split=routes.Split(percentage=resolved.split.percentage, reason=resolved.split.reason),
    )


def _cluster_ips(resolved: ResolvedSpec, observation: Observation) -> tuple[str, ...]:
    """Return the addresses of the Service of serviceRef; while it does not exist, those of the present document."""
    addresses = cluster_ips(resolved.spec, observation)
    if addresses is not None:
        return addresses
    key = observation.key(CORE, "ConfigMap", names.route(observation.parent.name))
    present = read_route(observation.children.get(key, {}))
    return () if present is None else present.cluster_ips


def _backends(resolved: ResolvedSpec, observation: Observation) -> tuple[routes.Backend, ...]:
    """Return the backends that any request may ever reach, in the order in which failover tries them."""
    gateway, remote, percentage = resolved.spec.gateway or Gateway(), resolved.remote, resolved.split.percentage
    offloading = resolved.spec.offloading_config
    overflow = None if offloading is None else offloading.behavior.overflow
    use = (routes.Use.WEIGHTED, routes.Use.FAILOVER) if gateway.retry.failover else (routes.Use.WEIGHTED,)
    backends = []
    if resolved.has_local:
        backends.append(
            routes.Backend(
                id="local",
                weight=100 - percentage,
                use=use,
                service=names.local_service(observation.parent.name),
                port=LOCAL_PORT,
                endpoints=gateway.endpoints or Endpoints.PODS,
                forward_headers=gateway.forward_headers,
                forwarded=None if gateway.forwarded is Forwarded.APPEND else gateway.forwarded,
                model=gateway.local_model or None,
                in_flight=None if overflow is None else overflow.in_flight,
                first_token_target=None if overflow is None else overflow.first_token_seconds,
                health=_health(gateway.health_check),
            )
        )
    if remote is not None and resolved.has_remote:
        backends.append(
            routes.Backend(
                id="remote",
                weight=percentage,
                # Without a local backend no request can overflow to the remote one.
                use=use if overflow is None or not resolved.has_local else (*use, routes.Use.OVERFLOW),
                host=remote.host or None,
                default=not remote.host,
                port=remote.port,
                scheme=remote.scheme,
                path_prefix=remote.path_prefix,
                headers=_headers(remote),
                forward_headers=remote.forward_headers,
                forwarded=remote.forwarded,
                credentials=None
                if remote.credentials is None
                else routes.Credentials(
                    oauth2=routes.OAuth2(kind=remote.credentials.kind, name=remote.credentials.name)
                ),
                model=remote.model,
                tls=_tls(remote.tls),
                health=_health(remote.health_check),
                price=remote.price,
                prompt_price=remote.prompt_price,
            )
        )
    return tuple(backends)


def _required(gateway: Gateway) -> tuple[str, ...]:
    """Return the features without which a gateway must not serve the route."""
    needed = (
        (routes.ACCESS, gateway.access),
        (routes.ACCESS_JWT, gateway.access and gateway.access.jwt),
        (routes.LOCAL_ONLY, gateway.local_only),
        (routes.MODELS, gateway.models),
    )
    return tuple(feature for feature, field in needed if field)


def _access(access: GatewayAccess) -> routes.Access:
    jwt = access.jwt
    return routes.Access(
        secrets=tuple(one.name for one in access.secret_refs or ()),
        jwt=None if jwt is None else routes.AccessJwt(audiences=jwt.audiences or (), groups=jwt.groups or ()),
    )


def _local_only(rule: GatewayLocalOnly) -> routes.LocalOnly:
    return routes.LocalOnly(header=rule.header.lower(), values=rule.values, missing=rule.missing)


def _served_model(model: GatewayModel) -> routes.ServedModel:
    """Return a further name of a model; a name at a backend that is the same as the name is left out."""
    return routes.ServedModel(
        name=model.name,
        local_model=None if model.local_model in ("", model.name) else model.local_model,
        remote_model=None if model.remote_model in ("", model.name) else model.remote_model,
    )


def _retry(retry: GatewayRetry) -> routes.Retry:
    given = {} if retry.causes is None else {"on": retry.causes}
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


def _cors(cors: GatewayCors) -> routes.Cors:
    given = {"methods": cors.methods, "headers": cors.headers, "exposed_headers": cors.exposed_headers}
    return routes.Cors(
        origins=cors.origins,
        credentials=cors.credentials,
        max_age=cors.max_age_seconds,
        **{field: names for field, names in given.items() if names is not None},
    )


def _affinity(affinity: GatewayAffinity) -> routes.Affinity:
    return routes.Affinity(type=affinity.type, header=affinity.header)


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
        remove=remote.removed_headers,
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
