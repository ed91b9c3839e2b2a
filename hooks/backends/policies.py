"""Policies: whether the requests of a model may go to its remote backend. Everything that is not known counts against
it.

Each policy that `spec.policies` names must allow what the remote backend declares of itself:

| the policy | the backend | is it allowed? |
| --- | --- | --- |
| of refType remotePolicy | any | no: only the platform knows the policy |
| does not exist | any | no |
| cannot be understood, or is of type location and lists no locations | any | no |
| lists a location | declares `location.name` | if they are equal |
| lists a country | declares `location.country` | if they are the same country, in two letters or three |
| lists a continent | declares `location.country` or `location.continent` | if it is on that continent |
| lists places, of which one is enough | declares nothing that one of them could be compared with | no |
| lists flavors | declares `flavors` | if every flavor declared is listed, by type and name |
| lists flavors | declares no flavors | no |
| lists no flavors | any | yes, as far as flavors go |

Upper and lower case are the same. A list that is there counts, whatever the policy's type. A policy that is being
deleted counts until it is gone, and then it is one that does not exist. Without a remote backend there is nothing to
allow, but the policies must be there all the same. One that is named twice counts once. A reference to another
namespace is not accepted in the first place (`hooks.reconcile.validation`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from hooks import reasons
from hooks.api.common import InvalidObject
from hooks.api.model_deployment import ModelDeploymentSpec, PolicyRefType
from hooks.api.policy import PolicyLocation, PolicyLocationType, PolicySpec, PolicyType
from hooks.api.remote_backend import Flavor, Location
from hooks.backends import geography
from hooks.observation.observation import Observation, Unresolved

MAX_TOLD: Final = 8
"""Number of refusals that a condition repeats in full: Kubernetes limits the length of a condition."""
_MAX_LISTED: Final = 3
"""Number of entries of a list that a sentence repeats."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason why one policy does not allow the remote backend."""

    reason: str
    """One of `hooks.reasons`."""
    message: str
    """Sentence that names the policy and says what to change; at most some 2,500 characters."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The location and the flavors that a remote backend declares."""

    field: str
    """Path of the field that declares them."""
    holder: str
    """End of a sentence that names the object or file with that field; empty for the ModelDeployment itself."""
    location: Location
    flavors: tuple[Flavor, ...]


def refusals(spec: ModelDeploymentSpec, observation: Observation) -> tuple[Refusal, ...]:
    """Return the refusals of the model's policies, in their order; empty where all policies allow its remote
    backend."""
    backend = declared(spec, observation)
    references = dict.fromkeys((policy.ref_type, policy.name or "") for policy in spec.policies)
    found = []
    for ref_type, name in references:
        if ref_type is PolicyRefType.REMOTE:
            found.append(_remote_only(name, observation.parent.namespace))
        else:
            found += _local(name, backend, observation)
    return tuple(found)


def missing_policies(refused: Iterable[Refusal]) -> tuple[Unresolved, ...]:
    """Return the refusals of policies that do not exist, as unresolved references."""
    return tuple(Unresolved(one.reason, one.message) for one in refused if one.reason == reasons.POLICY_MISSING)


def declared(spec: ModelDeploymentSpec, observation: Observation) -> Backend | None:
    """Return what the model's remote backend declares, or None where it has no remote backend."""
    if spec.offloading_config is None:
        return None
    own, default = spec.offloading_config.remote_backend, observation.defaults.default_remote
    if own is not None:
        return Backend("spec.offloadingConfig.remoteBackend", "", own.location or Location(), own.flavors)
    if default is not None:
        holder = " in the controller's configuration"
        return Backend("defaultRemoteBackend", holder, default.location or Location(), default.flavors)
    return None


def _remote_only(name: str, namespace: str) -> Refusal:
    return Refusal(
        reasons.REMOTE_POLICY,
        f"Policy {name} is a remotePolicy, which only the remote platform can evaluate: create it as a Policy in"
        f" namespace {namespace} and refer to it with refType localPolicy.",
    )


def _local(name: str, backend: Backend | None, observation: Observation) -> Iterator[Refusal]:
    namespace = observation.parent.namespace
    try:
        policy = observation.policy(name)
    except InvalidObject as exc:
        yield Refusal(reasons.INVALID_POLICY, f"Policy {name} cannot be used: {exc}.")
        return
    if policy is None:
        message = f"Policy {name} does not exist in namespace {namespace}: create it, or take it out of spec.policies."
        yield Refusal(reasons.POLICY_MISSING, message)
        return
    if policy.type is PolicyType.LOCATION and not policy.locations:
        message = f"Policy {name} is of type location and allows no place: add one to its spec.locations."
        yield Refusal(reasons.INVALID_POLICY, message)
        return
    if backend is not None:
        yield from _by_location(name, policy, backend)
        yield from _by_flavor(name, policy, backend)


def _by_location(name: str, policy: PolicySpec, backend: Backend) -> Iterator[Refusal]:
    values = _comparable(backend.location)
    if not policy.locations or any(_is_at(place, values[place.type]) for place in policy.locations):
        return
    allowed = _listed([f"{place.type.value} {place.name}" for place in policy.locations])
    problem = f"Policy {name} allows only {allowed}, and {backend.field}"
    asked = list(dict.fromkeys(place.type for place in policy.locations))
    if not any(values[type_] for type_ in asked):
        # A country tells the continent too, so that is what to ask for.
        wanted = dict.fromkeys("name" if type_ is PolicyLocationType.LOCATION else "country" for type_ in asked)
        fields = " or ".join(f"{backend.field}.location.{field}" for field in wanted)
        message = f"{problem} does not declare its {' or '.join(wanted)}: set {fields}{backend.holder}."
        yield Refusal(reasons.LOCATION_UNKNOWN, message)
        return
    where = ", ".join(f"{field} {value}" for field, value in backend.location if value)
    mistake = next(filter(None, map(_mistake, policy.locations)), "")
    yield Refusal(
        reasons.LOCATION_NOT_ALLOWED,
        f"{problem} declares {where}: use a backend at an allowed place, or add its place to the policy.{mistake}",
    )


def _comparable(location: Location) -> dict[PolicyLocationType, str]:
    """Return what each type of place is compared with; empty where it is not known."""
    country = geography.country(location.country or "") or ""
    continent = geography.continent_of(country) or geography.continent(location.continent or "") or ""
    return {
        PolicyLocationType.LOCATION: (location.name or "").casefold(),
        PolicyLocationType.COUNTRY: country,
        PolicyLocationType.CONTINENT: continent,
    }


def _is_at(place: PolicyLocation, value: str) -> bool:
    return bool(value) and meaning(place) == value


def meaning(place: PolicyLocation) -> str | None:
    """Return the value that a place in a policy is compared by, or None where there is no such place."""
    if place.type is PolicyLocationType.LOCATION:
        return place.name.casefold()
    if place.type is PolicyLocationType.COUNTRY:
        return geography.country(place.name)
    return geography.continent(place.name)


def _mistake(place: PolicyLocation) -> str:
    """Return a sentence on a place that does not exist."""
    if meaning(place) is not None:
        return ""
    kind = "code of a country in ISO 3166-1" if place.type is PolicyLocationType.COUNTRY else "continent"
    return f" In the policy, {place.name} is no {kind}."


def _by_flavor(name: str, policy: PolicySpec, backend: Backend) -> Iterator[Refusal]:
    allowed = {_flavor(flavor) for flavor in policy.flavors}
    if not allowed:
        return
    problem = f"Policy {name} allows only {_listed([f'{one.type} {one.name}' for one in policy.flavors])}, and"
    if not backend.flavors:
        message = (
            f"{problem} {backend.field} does not declare what it runs on: set {backend.field}.flavors{backend.holder}."
        )
        yield Refusal(reasons.FLAVORS_UNKNOWN, message)
        return
    other = next((flavor for flavor in backend.flavors if _flavor(flavor) not in allowed), None)
    if other is not None:
        yield Refusal(
            reasons.FLAVOR_NOT_ALLOWED,
            f"{problem} {backend.field}.flavors has {other.type} {other.name}: use a backend without it, or add it to"
            " the policy.",
        )


def _flavor(flavor: Flavor) -> tuple[str, str]:
    return flavor.type.casefold(), flavor.name.casefold()


def _listed(entries: list[str]) -> str:
    """Return the first few entries, and how many more there are."""
    shown = entries[:_MAX_LISTED]
    if len(entries) > _MAX_LISTED:
        shown.append(f"{len(entries) - _MAX_LISTED} more")
    return " or ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
