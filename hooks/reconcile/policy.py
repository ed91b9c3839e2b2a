"""The controller of a Policy as two pure functions: sync and finalize.

A Policy has no children. It is obeyed where a ModelDeployment that refers to it is decided on (`hooks.policies`), with
or without the platform; here its status says what it amounts to, and the platform gets to know it:

    {metadata: {name, displayName}, spec: {type, locations: [{type, name}], flavors: [{type, name}]}}

A Policy has on the platform the name that it has here, and there are no labels there to say whose it is. What is known
is when it was created: status keeps that time, and a policy there is ours if it was created then, or after an attempt
of ours to create it whose answer was lost. Any other is left alone, written and removed by nobody but its maker: if it
says the same, the Policy counts as registered; if not, that is a Conflict. So of two Policies of one name in two
namespaces, the one that was registered first keeps it.
"""

from collections.abc import Iterator
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
from hooks.platform.registration import PlatformTask, Registration
from hooks.platform.state import DesiredObject, PlatformKey
from hooks.protocol import POLICY_KIND, FinalizeResponse, SyncRequest, SyncResponse

_MAX_LISTED: Final = 8
"""Entries of a list that a sentence repeats."""


def sync(
    request: SyncRequest, defaults: InstallDefaults, *, account: str | None, now: datetime, check: bool = False
) -> tuple[SyncResponse, PlatformTask | None]:
    """What is true of a Policy, and what is to be done on the platform.

    Args:
        request: of Metacontroller.
        defaults: what the administrator configured.
        account: on the platform; None without one.
        now: the present.
        check: whether it is time to look whether the policy is there still.
    """
    parent = Parent.of(request.parent)
    accepted, ready, spec = _judged(parent, defaults)
    found = registration.undecided(POLICY_KIND, parent, account=account)
    if account is not None and spec is not None and not parent.deleting:
        there = wanted(parent.name, spec, account)
        found = registration.standing(POLICY_KIND, parent, there, now=now, check=check)
    status = _status((accepted, found.condition, ready), found, parent, now)
    return SyncResponse(status, (), found.resync), found.task


def finalize(request: SyncRequest, *, account: str | None, now: datetime) -> tuple[FinalizeResponse, Registration]:
    """Let it go: at once without an account or a registration, else when the platform has removed it."""
    parent = Parent.of(request.parent)
    found = registration.undecided(POLICY_KIND, parent, account=account)
    if account is not None:
        found = registration.leaving(POLICY_KIND, parent, now=now, expected=_expected(parent, account))
    held = parent.held.get("Accepted")
    accepted = Condition("Accepted", *((held.status, held.reason, held.message) if held else _UNKNOWN))
    ready = Condition("Ready", "False", reasons.TERMINATING, "The Policy is being deleted.")
    status = _status((accepted, found.condition, ready), found, parent, now)
    done = found.task is None and found.resync is None
    return FinalizeResponse(status, (), finalized=done, resync_after_seconds=found.resync), found


_UNKNOWN: Final = ("Unknown", reasons.NOT_EVALUATED, "The Policy is being deleted.")


def _judged(parent: Parent, defaults: InstallDefaults) -> tuple[Condition, Condition, PolicySpec | None]:
    """Accepted, Ready, and what is in force; None when nothing is."""
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
    accepted = Condition("Accepted", "True", reasons.ACCEPTED, amounts_to(spec))
    mistakes = [f"spec.locations[{at}]: {said}" for at, said in _mistakes(spec)]
    if mistakes:
        message = f"{' '.join(mistakes[:_MAX_LISTED])} Such an entry allows nothing."
        return accepted, Condition("Ready", "False", reasons.INVALID_LOCATION, message), spec
    return accepted, Condition("Ready", "True", reasons.ENFORCED, "Every model that refers to it obeys it."), spec


def _refused(reason: str, message: str) -> tuple[Condition, Condition]:
    return Condition("Accepted", "False", reason, message), Condition("Ready", "False", reasons.NOT_ACCEPTED, message)


def amounts_to(spec: PolicySpec) -> str:
    """What the policy means for models that refer to it, as a sentence."""
    where = _listed([f"{place.type.value} {_shown(place)}" for place in spec.locations])
    which = _listed([f"{flavor.type} {flavor.name}" for flavor in spec.flavors])
    allowed = " and ".join(filter(None, [where and f"at {where}", which and f"on {which} alone"]))
    if not allowed:
        return "Models that refer to it may be offloaded to any backend: it lists nothing."
    return f"Models that refer to it may be offloaded only to a backend {allowed}, as far as that is declared."


def _shown(place: PolicyLocation) -> str:
    """The place as it is compared, where that is another word."""
    meaning = policies.meaning(place)
    same = meaning is None or meaning.casefold() == place.name.casefold()
    return place.name if same else f"{place.name} ({meaning})"


def _mistakes(spec: PolicySpec) -> Iterator[tuple[int, str]]:
    for at, place in enumerate(spec.locations):
        if policies.meaning(place) is None:
            country = place.type is PolicyLocationType.COUNTRY
            kind = "code of a country in ISO 3166-1, such as fr" if country else "continent, such as eu"
            yield at, f"{place.name} is no {kind}."


def _listed(entries: list[str]) -> str:
    shown = entries[:_MAX_LISTED]
    if len(entries) > _MAX_LISTED:
        shown.append(f"{len(entries) - _MAX_LISTED} more")
    return " or ".join(filter(None, [", ".join(shown[:-1]), shown[-1]])) if shown else ""


def _expected(parent: Parent, account: str) -> DesiredObject | None:
    """What the platform has of it, if it has it as it is specified; None when that cannot be read."""
    try:
        return wanted(parent.name, _read(parent), account)
    except InvalidObject:
        return None


def _read(parent: Parent) -> PolicySpec:
    return Policy.read({"metadata": {"name": parent.name}, "spec": parent.spec}).spec


def wanted(name: str, spec: PolicySpec, account: str) -> DesiredObject:
    """What the platform shall have of it."""
    metadata = {"name": name}
    if spec.display_name:
        metadata["displayName"] = spec.display_name
    body = {
        "metadata": metadata,
        "spec": {
            "type": spec.type.value,
            "locations": [{"type": place.type.value, "name": place.name} for place in spec.locations],
            "flavors": [_flavor(flavor) for flavor in spec.flavors],
        },
    }
    return DesiredObject.of(PlatformKey("policies", name), body, account)


def _flavor(flavor: Flavor) -> Object:
    return {"type": flavor.type, "name": flavor.name}


def _status(conditions: tuple[Condition, ...], found: Registration, parent: Parent, now: datetime) -> Object:
    status: Object = {"conditions": [condition_as_written(one, parent, now) for one in conditions]}
    if parent.generation:
        status["observedGeneration"] = parent.generation
    return status | found.fields
