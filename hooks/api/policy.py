"""Policy: where models may run."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import (
    Field,
    StringConstraints,
)

from hooks.api.common import (
    LIST_ATOMIC,
    LIST_MAP_BY_TYPE,
    ApiModel,
    ApiObject,
    Condition,
    Generation,
    ObjectMeta,
    PlatformState,
    Text,
    Time,
    cel_rule,
    schema_config,
)
from hooks.api.remote_backend import Flavor


class PolicyType(StrEnum):
    """What a policy is about."""

    LOCATION = "location"
    FLAVOR = "flavor"


class PolicyLocationType(StrEnum):
    """How a place is named."""

    LOCATION = "location"
    COUNTRY = "country"
    CONTINENT = "continent"


class PolicyLocation(ApiModel):
    """A place where models may run."""

    model_config = schema_config(x_must_be="a place, such as {type: country, name: fr}")

    type: PolicyLocationType
    """Whether name is that of a location, a country or a continent."""
    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Name of the location, ISO 3166-1 code of the country (fr or FRA), or code or English name of the continent (eu or
    Europe, which is more than the European Union). Upper and lower case are the same."""


class PolicySpec(ApiModel):
    """Where models that refer to this policy may run."""

    model_config = schema_config(
        cel_rule(
            "self.type != 'location' || (has(self.locations) && self.locations.size() > 0)",
            "a policy of type location needs at least one entry in locations",
        ),
    )

    display_name: Text | None = None
    """Name for people."""
    type: PolicyType
    """location: requests may go only to backends in locations. flavor: only to those on flavors. A list that is there
    counts whatever the type."""
    locations: Annotated[tuple[PolicyLocation, ...], Field(max_length=256, json_schema_extra=LIST_ATOMIC)] = ()
    """Places that are allowed; needed for type location."""
    flavors: Annotated[tuple[Flavor, ...], Field(max_length=256, json_schema_extra=LIST_ATOMIC)] = ()
    """Hardware that is allowed, and no other; all of it when left out."""


class PolicyStatus(ApiModel):
    """What is observed."""

    observed_generation: Generation | None = None
    """The metadata.generation that this status is about."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32, json_schema_extra=LIST_MAP_BY_TYPE)] = ()
    """Accepted, Registered, Ready."""
    workspace: Annotated[str, StringConstraints(max_length=253)] | None = None
    """Workspace of the policy on the platform."""
    created_at_on_beamlit: Time | None = None
    """When the policy was created on the platform."""
    updated_at_on_beamlit: Time | None = None
    """When the policy was last changed on the platform."""
    platform: PlatformState | None = None
    """What is remembered of the platform."""


class Policy(ApiObject):
    """Where models may run: in which places, or on which hardware."""

    api_version: Literal["authorization.beamlit.com/v1alpha1"] = "authorization.beamlit.com/v1alpha1"
    kind: Literal["Policy"] = "Policy"
    metadata: ObjectMeta
    spec: PolicySpec
    """What is allowed."""
    status: PolicyStatus = PolicyStatus()
    """What is observed. Written by the controller."""
