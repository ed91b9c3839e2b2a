"""The controller of a Policy as pure functions: what sync and finalize decide.

A Policy has no children. It is enforced where a ModelDeployment that refers to it is decided on
(`hooks.backends.policies`), with or without the platform. Here its status says what it means, and it is registered with
the platform:

    {metadata: {name, displayName}, spec: {type, locations: [{type, name}], flavors: [{type, name}]}}

A Policy has the same name on the platform as here, and the platform keeps no labels that could name its owner. Only the
time of creation can: status records it, and a policy on the platform is ours if it was created at that time, or after
an attempt of ours whose response was lost. Any other policy is neither written nor removed: if it equals ours, the
Policy counts as registered; if not, that is a Conflict. So of two Policies of one name in two namespaces, the one that
was registered first keeps the name.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hooks import reasons
from hooks.api.common import InvalidObject
from hooks.api.policy import Policy, PolicyLocation, PolicyLocationType, PolicySpec, PolicyType
from hooks.api.remote_backend import Flavor
from hooks.backends import policies
from hooks.kube.objects import Object
from hooks.observation.conditions import Condition, condition_as_written
from hooks.observation.observation import InstallDefaults, Parent
from hooks.platform import registration
from hooks.platform.registration import Registration
from hooks.platform.state import DesiredObject, PlatformKey
from hooks.protocol import POLICY_KIND, FinalizeResponse, SyncRequest, SyncResponse

_MAX_LISTED: Final = 8
"""Most entries of a list that a message repeats."""


@dataclass(frozen=True, slots=True)
class PolicySyncDecision:
    """Decision of a sync."""

    parent: Parent
    now: datetime
    """Time of the decision."""
    accepted: Condition
    ready: Condition
    registration: Registration
    """Registration with the platform before its task is carried out."""

    def response(self, registration: Registration) -> SyncResponse:
        """Return the response, for the registration as it is after its task."""
        status = _status(self.parent, self.accepted, registration, self.ready, self.now)
        return SyncResponse(status, (), registration.resync)


@dataclass(frozen=True, slots=True)
class PolicyFinalizeDecision:
    """Decision of a finalize: the Policy may go when its registration is at rest."""

    parent: Parent
    now: datetime
    """Time of the decision."""
    registration: Registration
    """Registration with the platform before its task is carried out."""

    def response(self, registration: Registration) -> FinalizeResponse:
        """Return the response, for the registration as it is after its task."""
        held = self.parent.held.get("Accepted")
        message = "The Policy is being deleted."
        accepted = (
            Condition("Accepted", "Unknown", reasons.NOT_EVALUATED, message)
            if held is None
            else Condition("Accepted", held.status, held.reason, held.message)
        )
        ready = Condition("Ready", "False", reasons.TERMINATING, message)
        status = _status(self.parent, accepted, registration, ready, self.now)
        finalized = registration.is_at_rest
        return FinalizeResponse(status, (), finalized=finalized, resync_after_seconds=registration.resync)


def decide_sync(
    request: SyncRequest, defaults: InstallDefaults, *, account: str | None, now: datetime, recheck: bool = False
) -> PolicySyncDecision:
    """Decide what is true of a Policy, and what is due on the platform.

    Args:
        request: the request of Metacontroller.
        defaults: the configuration of the installation.
        account: the account on the platform; None without one.
        now: the present.
        recheck: whether a recheck of the platform is due.
    """
    parent = Parent.of(request.parent)
    accepted, ready, spec = _judged(parent, defaults)
    if account is not None and spec is not None and not parent.deleting:
        desired = desired_policy(parent.name, spec, account)
        registered = registration.plan(POLICY_KIND, parent, desired, now=now, recheck=recheck)
    else:
        registered = registration.unchanged(POLICY_KIND, parent, account=account)
    return PolicySyncDecision(parent, now, accepted, ready, registered)


def decide_finalize(request: SyncRequest, *, account: str | None, now: datetime) -> PolicyFinalizeDecision:
    """Decide whether a Policy may go: at once without an account, else when nothing is left on the platform."""
    parent = Parent.of(request.parent)
    if account is not None:
        leaving = registration.plan_removal(POLICY_KIND, parent, now=now, expected=_expected(parent, account))
    else:
        leaving = registration.unchanged(POLICY_KIND, parent, account=account)
    return PolicyFinalizeDecision(parent, now, leaving)


def _judged(parent: Parent, defaults: InstallDefaults) -> tuple[Condition, Condition, PolicySpec | None]:
    """Return the conditions Accepted and Ready, and the specification; None when it is not in force."""
    if not defaults.manages(parent.namespace):
        message = (
            f"Namespace {parent.namespace} is not managed: add it to `namespaces` in the controller's configuration."
        )
        return *_refused(reasons.NAMESPACE_NOT_MANAGED, message), None
    try:
        spec = _read(parent)
    except InvalidObject as exc:
        return *_refused(reasons.INVALID_SPEC, f"{exc}."), None
    if spec.type is PolicyType.LOCATION and not spec.locations:
        message = "The policy is of type location and allows no place: add one to spec.locations."
        return *_refused(reasons.INVALID_SPEC, message), None
    accepted = Condition("Accepted", "True", reasons.ACCEPTED, summary(spec))
    mistakes = [f"spec.locations[{index}]: {mistake}" for index, mistake in _mistakes(spec)]
    if mistakes:
        message = f"{' '.join(mistakes[:_MAX_LISTED])} Such an entry allows nothing."
        return accepted, Condition("Ready", "False", reasons.INVALID_LOCATION, message), spec
    return accepted, Condition("Ready", "True", reasons.ENFORCED, "Every model that refers to it obeys it."), spec


def _refused(reason: str, message: str) -> tuple[Condition, Condition]:
    return Condition("Accepted", "False", reason, message), Condition("Ready", "False", reasons.NOT_ACCEPTED, message)


def summary(spec: PolicySpec) -> str:
    """Return what the policy means for the models that refer to it, as a sentence."""
    where = _listed([f"{location.type.value} {_shown(location)}" for location in spec.locations])
    which = _listed([f"{flavor.type} {flavor.name}" for flavor in spec.flavors])
    allowed = " and ".join(filter(None, [where and f"at {where}", which and f"on {which} alone"]))
    if not allowed:
        return "Models that refer to it may be offloaded to any backend: it lists nothing."
    return f"Models that refer to it may be offloaded only to a backend {allowed}, as far as that is declared."


def _shown(location: PolicyLocation) -> str:
    """Return the name of a location, with the word that it is compared by where that is another one."""
    compared = policies.meaning(location)
    is_same = compared is None or compared.casefold() == location.name.casefold()
    return location.name if is_same else f"{location.name} ({compared})"


def _mistakes(spec: PolicySpec) -> Iterator[tuple[int, str]]:
    """Yield the index of each location that does not exist, with a sentence that says so."""
    for index, location in enumerate(spec.locations):
        if policies.meaning(location) is None:
            is_country = location.type is PolicyLocationType.COUNTRY
            kind = "code of a country in ISO 3166-1, such as fr" if is_country else "continent, such as eu"
            yield index, f"{location.name} is no {kind}."


def _listed(entries: list[str]) -> str:
    shown = entries[:_MAX_LISTED]
    if len(entries) > _MAX_LISTED:
        shown.append(f"{len(entries) - _MAX_LISTED} more")
    return " or ".join(filter(None, [", ".join(shown[:-1]), shown[-1]])) if shown else ""


def _expected(parent: Parent, account: str) -> DesiredObject | None:
    """Return the policy that the platform has if it has it as specified; None when the specification is invalid."""
    try:
        return desired_policy(parent.name, _read(parent), account)
    except InvalidObject:
        return None


def _read(parent: Parent) -> PolicySpec:
    return Policy.read({"metadata": {"name": parent.name}, "spec": parent.spec}).spec


def desired_policy(name: str, spec: PolicySpec, account: str) -> DesiredObject:
    """Return the policy that the platform should have."""
    metadata = {"name": name}
    if spec.display_name:
        metadata["displayName"] = spec.display_name
    body = {
        "metadata": metadata,
        "spec": {
            "type": spec.type.value,
            "locations": [{"type": location.type.value, "name": location.name} for location in spec.locations],
            "flavors": [_flavor(flavor) for flavor in spec.flavors],
        },
    }
    return DesiredObject.of(PlatformKey("policies", name), body, account)


def _flavor(flavor: Flavor) -> Object:
    return {"type": flavor.type, "name": flavor.name}


def _status(parent: Parent, accepted: Condition, registration: Registration, ready: Condition, now: datetime) -> Object:
    conditions = (accepted, registration.condition, ready)
    status: Object = {"conditions": [condition_as_written(condition, parent, now) for condition in conditions]}
    if parent.generation:
        status["observedGeneration"] = parent.generation
    return status | registration.status_fields
