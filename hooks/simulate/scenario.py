"""Scenarios: a ModelDeployment and its variants against the same requests, and what to compare them with."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from hooks.api.metrics import MetricSpec, MetricType
from hooks.api.offloading import Overflow
from hooks.backends.policies import refusals
from hooks.backends.remote import Remote, find_remote
from hooks.kube.objects import Object
from hooks.kube.unstructured import mapping
from hooks.observation.observation import DefaultRemote, InstallDefaults, Observation, Unresolved
from hooks.offloading.rules import behavior
from hooks.simulate.autoscaler import Autoscaler
from hooks.simulate.loop import ClosedLoop, observe
from hooks.simulate.observables import Observable, observables
from hooks.simulate.outcome import FREE, Outcome, Prices, outcome
from hooks.simulate.plant import Pipeline
from hooks.simulate.request_plant import Engine, RequestPlant, RequestWorld
from hooks.simulate.requests import Request

AS_WRITTEN: Final = "as written"
NEVER: Final = "never offload"
ALWAYS: Final = "100 % at the trigger"
ASSUMED_REMOTE: Final = DefaultRemote("remote.example", workspace="simulated")
"""Remote backend of a simulation where neither the manifest nor the configuration names one."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything around the ModelDeployment, which is the same for all of its variants."""

    requests: Sequence[Request]
    seconds: float
    """Length of the simulation, a whole number of seconds."""
    engine: Engine
    start: datetime
    """Moment of time zero."""
    defaults: InstallDefaults
    replicas: int = 1
    autoscaler: Autoscaler | None = None
    period: float = 15.0
    """Seconds from one scrape of a metric to the next."""
    delay: float | None = None
    """Seconds from a scrape until its sample can be read; None for what is usual of the source."""
    noise: float = 0.0
    """Largest error of a sample, as a part of it."""
    remote_first_token: float = 0.5
    prices: Prices = FREE
    related: tuple[Object, ...] = ()
    """Objects that the ModelDeployment refers to, such as its policies."""
    observed: tuple[tuple[str, Observable], ...] = ()
    """Observables by the names of metrics, where the names do not tell."""
    from_pods: bool = False
    """Whether the installation reads metrics of type Pods from the pods themselves."""
    slices: int = 120
    """Parts of the time for which figures are given, at most."""


@dataclass(frozen=True, slots=True)
class Case:
    """A ModelDeployment that is simulated."""

    name: str
    parent: Object
    is_comparison: bool = False
    """Whether it is there to be compared with, and no limit holds for it."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a case."""

    case: Case
    outcome: Outcome
    notes: tuple[str, ...]
    """Sentences about what keeps the metrics from deciding."""


USUAL_DELAY: Final = 30.0
"""Seconds that a metric takes from a replica through a metrics stack to hooks."""


def cases(parent: Object, variants: Iterable[tuple[str, Object]]) -> list[Case]:
    """Return the cases of a simulation: the manifest, its variants, and two of the manifest to compare with."""
    spec = mapping(parent, "spec")
    config = mapping(spec, "offloadingConfig")
    whole = {**mapping(config, "behavior"), "percentage": 100, "mode": "fixed"}
    always = {**parent, "spec": {**spec, "offloadingConfig": {**config, "behavior": whole}}}
    return [
        Case(AS_WRITTEN, parent),
        *(Case(name, item) for name, item in variants),
        Case(ALWAYS, always, is_comparison=True),
        Case(NEVER, {**parent, "spec": {**spec, "enabled": False}}, is_comparison=True),
    ]


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a specification says of the world around it."""

    metrics: tuple[MetricSpec, ...]
    observables: tuple[Observable, ...]
    from_pods: bool
    overflow: Overflow | None
    """Limit of the gateway; None while nothing may go to the remote backend."""
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A case that can be simulated."""

    case: Case
    loop: ClosedLoop[RequestPlant]
    notes: tuple[str, ...]


def prepare(case: Case, setting: Setting, error: Callable[[], float]) -> Prepared:
    """Return a case at time zero.

    Args:
        case: the case.
        setting: everything around it.
        error: returns a random number from -1 to 1, for the noise of samples.

    Raises:
        hooks.api.common.InvalidObject: a value of the specification cannot be used.
        hooks.errors.NotAccepted: the specification cannot be in force.
        hooks.simulate.observables.UnknownMetric: it is not known what a metric follows.
    """
    defaults, assumed = _with_remote(case.parent, setting.defaults)
    facts = _facts(case, setting, defaults)
    delay = setting.delay if setting.delay is not None else 0.0 if facts.from_pods else USUAL_DELAY
    world = RequestWorld(
        setting.requests,
        setting.engine,
        facts.metrics,
        facts.observables,
        setting.replicas,
        Pipeline(setting.period, setting.period, delay, setting.noise),
        setting.autoscaler,
        None if facts.overflow is None else facts.overflow.in_flight,
        setting.remote_first_token,
        first_token=None if facts.overflow is None else facts.overflow.first_token_seconds,
    )
    plant = RequestPlant(world, start=setting.start, error=error)
    loop = ClosedLoop(case.parent, plant, defaults=defaults, start=setting.start, related=setting.related)
    return Prepared(case, loop, (*assumed, *facts.notes))


def simulate(prepared: Prepared, setting: Setting, progress: Callable[[float], None] = lambda _: None) -> Result:
    """Let all time pass for a case, and return what comes of it.

    `progress` is called with the part that is done, from 0 to 1.
    """
    loop = prepared.loop
    for until in _steps(setting.seconds):
        loop.run(until)
        progress(until / setting.seconds)
    loop.plant.drain()
    return Result(prepared.case, outcome(loop, setting.prices, slices=setting.slices), prepared.notes)


def _steps(seconds: float) -> Iterator[float]:
    for number in range(1, 101):
        yield seconds * number / 100


def _with_remote(parent: Object, defaults: InstallDefaults) -> tuple[InstallDefaults, tuple[str, ...]]:
    """Return the configuration with which a ModelDeployment has a remote backend, whatever its namespace is, and a
    sentence where one is assumed because none is known: the share that goes away does not depend on which one it is."""
    everywhere = replace(defaults, namespaces=None)
    if isinstance(_remote(observe(parent, everywhere)), Unresolved):
        assumed = replace(everywhere, default_remote=ASSUMED_REMOTE)
        return assumed, ("Neither the manifest nor --config has a whole remote backend, so one is assumed.",)
    return everywhere, ()


def _remote(observation: Observation) -> Remote | Unresolved:
    return find_remote(observation.read_spec(), observation)


def _facts(case: Case, setting: Setting, defaults: InstallDefaults) -> _Facts:
    observation = observe(case.parent, defaults, setting.related)
    spec = observation.read_spec()
    config, remote = spec.offloading_config, _remote(observation)
    metrics = () if config is None else config.metrics
    refused = refusals(spec, observation)
    notes = []
    if isinstance(remote, Unresolved):
        notes.append(remote.message)
    notes += [one.message for one in refused]
    if not spec.enabled and not case.is_comparison:
        notes.append("spec.enabled is false, so nothing is offloaded.")
    if not metrics:
        notes.append("spec.offloadingConfig.metrics is empty, so no load makes requests go to the remote backend.")
    wanted = behavior(spec)
    if wanted.override is not None and wanted.override.until > setting.start:
        notes.append(
            "An override sets the percentage, not the metrics: leave it out with"
            " --set spec.offloadingConfig.behavior.override=null."
        )
    is_open = spec.enabled and isinstance(remote, Remote) and not refused
    return _Facts(
        metrics,
        observables(metrics, dict(setting.observed), has_cache=setting.engine.cache is not None),
        (setting.from_pods or (config is not None and config.metric_source is not None))
        and all(metric.type is MetricType.PODS for metric in metrics),
        wanted.overflow if is_open else None,
        tuple(notes),
    )
