"""Observables: what can be measured of simulated replicas, and which of it each metric of a ModelDeployment is."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hooks.api.metrics import MetricSpec, MetricType
from hooks.offloading.targets import metric_name
from program.problems import listed


class Kind(StrEnum):
    """Kind of an observable."""

    WAITING = "waiting"
    """Requests that wait in a replica for a place in its batch."""
    RUNNING = "running"
    """Requests in the batch of a replica."""
    CACHE = "cache"
    """Part of the token cache of a replica that is in use, from 0 to 1."""
    CPU = "cpu"
    """Cores that a replica uses."""
    FIRST_TOKEN = "ttft"  # noqa: S105 - no password
    """Quantile of the time to first token, in seconds, over the last minute."""


@dataclass(frozen=True, slots=True)
class Observable:
    """What can be measured of replicas."""

    kind: Kind
    quantile: float = 0.0
    """Quantile, for the time to first token."""


class UnknownMetric(ValueError):
    """It is not known what a metric follows. The message is a sentence that says what to write, without its capital."""


FIRST_TOKEN_WINDOW: Final = 60.0
"""Seconds of first tokens that a quantile is about."""

WORDS: Final = "waiting, running, cache, cpu, or ttft-p90 (a percentile of the time to first token)"
"""What may be written for an observable."""

NAMES: Final[Mapping[str, Kind]] = {
    "vllm:num_requests_waiting": Kind.WAITING,
    "vllm:num_requests_running": Kind.RUNNING,
    "vllm:kv_cache_usage_perc": Kind.CACHE,
    "vllm:gpu_cache_usage_perc": Kind.CACHE,
    "sglang:num_queue_reqs": Kind.WAITING,
    "sglang:num_running_reqs": Kind.RUNNING,
    "sglang:token_usage": Kind.CACHE,
    "llamacpp:requests_deferred": Kind.WAITING,
    "llamacpp:requests_processing": Kind.RUNNING,
    "llamacpp:kv_cache_usage_ratio": Kind.CACHE,
}
"""Metrics of engines."""

_QUANTILE: Final = re.compile(r"\s*histogram_quantile\(\s*(0?\.[0-9]+)\s*,.*time_to_first_token_seconds.*", re.DOTALL)
_WRITTEN: Final = re.compile(r"ttft-p([0-9]{1,2}(?:\.[0-9]+)?)")
_RESOURCES: Final = (MetricType.RESOURCE, MetricType.CONTAINER_RESOURCE)


def read_observable(text: str) -> Observable:
    """Return the observable that a text names, such as `waiting` or `ttft-p90`.

    Raises:
        UnknownMetric: it names none.
    """
    if match := _WRITTEN.fullmatch(text):
        return Observable(Kind.FIRST_TOKEN, round(float(match[1]) / 100, 6))
    kind = next((kind for kind in Kind if kind == text and kind is not Kind.FIRST_TOKEN), None)
    if kind is None:
        raise UnknownMetric(f"must be {WORDS}, not {text!r}")
    return Observable(kind)


def observables(
    metrics: Sequence[MetricSpec], given: Mapping[str, Observable], *, has_cache: bool
) -> tuple[Observable, ...]:
    """Return the observable of each metric: the one that is given, or the one that its name tells.

    Args:
        metrics: metrics as specified.
        given: observables by the names of metrics.
        has_cache: whether it is known how many tokens the cache of a replica has room for.

    Raises:
        UnknownMetric: it is not known of a metric, or given for one that is not there.
    """
    names = [metric_name(metric) for metric in metrics]
    if unused := sorted(set(given) - set(names)):
        there = f"the metrics are {listed(names, 'and')}" if names else "there are no metrics"
        raise UnknownMetric(f"there is no metric {unused[0]}: {there}.")
    result = tuple(given.get(name) or _by_name(metric, name) for metric, name in zip(metrics, names, strict=True))
    for metric, name, one in zip(metrics, names, result, strict=True):
        if metric.type in _RESOURCES and one.kind is not Kind.CPU:
            raise UnknownMetric(f"the metric {name} of type {metric.type} can only be cpu.")
        if one.kind is Kind.CACHE and not has_cache:
            raise UnknownMetric(
                f"the metric {name} is a part of the cache: say with --cache-tokens for how many tokens a replica has"
                " room."
            )
    return result


def _by_name(metric: MetricSpec, name: str) -> Observable:
    """Return the observable that the name of a metric tells."""
    if metric.type in _RESOURCES:
        resource = metric.resource or metric.container_resource
        if resource is not None and resource.name == "cpu":
            return Observable(Kind.CPU)
        raise UnknownMetric(
            f"the metric {name} does not follow requests, so it cannot be simulated: leave it out with"
            " --set spec.offloadingConfig.metrics=… or from a copy of the manifest."
        )
    if kind := NAMES.get(name):
        return Observable(kind)
    if match := _QUANTILE.fullmatch(name):
        return Observable(Kind.FIRST_TOKEN, float(match[1]))
    raise UnknownMetric(
        f"it is not known what the metric {name} follows: say it with --metric '{name}=waiting', where it may also be"
        " running, cache, cpu, or ttft-p90 (a percentile of the time to first token)."
    )
