"""The kind Policy: at which locations and on which hardware models may run."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import (
    Field,
    StringConstraints,
)

from hooks.api.common import (
    LIST_ATOMIC,
    LIST_MAP_BY_TYPE,
    MOST_CONDITIONS,
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
    """Subject of a policy."""

    LOCATION = "location"
    FLAVOR = "flavor"


class PolicyLocationType(StrEnum):
    """Kind of the name of a location."""

    LOCATION = "location"
    COUNTRY = "country"
    CONTINENT = "continent"


class PolicyLocation(ApiModel):
    """Location where models may run."""

    model_config = schema_config(x_must_be="a place, such as {type: country, name: fr}")

    type: PolicyLocationType
    """Kind of the name: location for the name of a location, country or continent."""
    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Name of the location, ISO 3166-1 code of the country (fr or FRA), or code or English name of the continent (eu or
    Europe, which is more than the European Union). Upper and lower case are not distinguished."""


class PolicySpec(ApiModel):
    """Locations and hardware where the models that refer to this policy may run."""

    model_config = schema_config(
        cel_rule(
            "self.type != 'location' || (has(self.locations) && self.locations.size() > 0)",
            "a policy of type location needs at least one entry in locations",
        ),
    )

    display_name: Text | None = None
    """Name of the policy for people."""
    type: PolicyType
    """Subject of the policy. location: requests may go only to backends in locations, which must not be empty. flavor:
    requests may go only to backends that run on flavors. A list that is set counts whatever the type is."""
    locations: Annotated[tuple[PolicyLocation, ...], Field(max_length=256, json_schema_extra=LIST_ATOMIC)] = ()
    """Locations that are allowed. Required for type location."""
    flavors: Annotated[tuple[Flavor, ...], Field(max_length=256, json_schema_extra=LIST_ATOMIC)] = ()
    """Hardware that is allowed. If empty, all hardware is."""


class PolicyStatus(ApiModel):
    """Observed state of a Policy."""

    observed_generation: Generation | None = None
    """The metadata.generation that this status was computed for."""
    conditions: Annotated[
        tuple[Condition, ...], Field(max_length=MOST_CONDITIONS, json_schema_extra=LIST_MAP_BY_TYPE)
    ] = ()
    """Conditions of the policy. Their types are Accepted, Registered and Ready."""
    workspace: Annotated[str, StringConstraints(max_length=253)] | None = None
    """Workspace of the policy on the platform."""
    created_at_on_beamlit: Time | None = None
    """Time at which the policy was created on the platform."""
    updated_at_on_beamlit: Time | None = None
    """Time at which the policy was last changed on the platform."""
    platform: PlatformState | None = None
    """State of the registration on the platform."""


class Policy(ApiObject):
    """Policy on where models may run: at which locations, or on which hardware."""

    api_version: Literal["authorization.beamlit.com/v1alpha1"] = "authorization.beamlit.com/v1alpha1"
    kind: Literal["Policy"] = "Policy"
    metadata: ObjectMeta
    spec: PolicySpec
    """Locations and hardware where the models that refer to this policy may run."""
    status: PolicyStatus = PolicyStatus()
    """Observed state of the policy. Written by the controller."""
