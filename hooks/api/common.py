"""Types that several kinds of the API share, and how an object is read into them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
)
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from program.problems import MOST_VALUES, MUST_BE, first_problem, has_too_many_values, joined

DEPLOYMENT_GROUP: Final = "deployment.beamlit.com"

AUTHORIZATION_GROUP: Final = "authorization.beamlit.com"

VERSION: Final = "v1alpha1"

MODEL_DEPLOYMENT_API_VERSION: Final = f"{DEPLOYMENT_GROUP}/{VERSION}"

POLICY_API_VERSION: Final = f"{AUTHORIZATION_GROUP}/{VERSION}"


class InvalidObject(ValueError):
    """A value in an object that cannot be used.

    `field` is its path ("spec.offloadingConfig.behavior.percentage"), `problem` says what to write instead; the message
    is both, as one sentence without its full stop. Secret values are never repeated.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(joined(field, problem))
        self.field = field
        self.problem = problem


def format_time(time: datetime) -> str:
    """Return a time in UTC and whole seconds (RFC 3339), as Kubernetes writes metav1.Time."""
    return f"{time.astimezone(UTC).isoformat(timespec='seconds')[:19]}Z"


def cel_rule(rule: str, message: str) -> dict[str, str]:
    """Return one CEL rule of a CRD; its message says what to change."""
    return {"rule": rule, "message": message}


def schema_config(*rules: dict[str, str], **extensions: Any) -> ConfigDict:
    """Return the configuration of a model with CEL rules and with extensions (dashes as underscores) for its schema."""
    extra: dict[str, Any] = {key.replace("_", "-"): value for key, value in extensions.items()}
    if rules:
        extra["x-kubernetes-validations"] = list(rules)
    return ConfigDict(json_schema_extra=extra)


_NUMBER: Final = r"(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"

QUANTITY_PATTERN: Final = rf"^[+-]?{_NUMBER}(([KMGTPE]i)|[numkMGTPE]|([eE][+-]?{_NUMBER}))?$"
"""Regular expression for a quantity, as resource.Quantity of apimachinery takes it."""

TIME_PATTERN: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
)
"""Regular expression for an absolute time (RFC 3339 section 5.6)."""

LIST_MAP_BY_TYPE: Final[JsonDict] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}

LIST_MAP_BY_NAME: Final[JsonDict] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}

LIST_ATOMIC: Final[JsonDict] = {"x-kubernetes-list-type": "atomic"}

Name = Annotated[str, StringConstraints(max_length=253)]
"""Name of an object. The API server that holds the object checks the syntax."""

Text = Annotated[str, StringConstraints(max_length=1024)]

Port = Annotated[int, Field(ge=1, le=65535)]

Percentage = Annotated[int, Field(ge=0, le=100)]

Replicas = Annotated[int, Field(ge=0, le=2147483647)]

Generation = Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})]
"""Value of a metadata.generation."""

Seconds = Annotated[float, Field(ge=0.01, le=86400)]
Price = Annotated[float, Field(ge=0, le=1000000)]

Time = Annotated[AwareDatetime, PlainSerializer(format_time, return_type=str, when_used="json")]

Quantity = Annotated[
    int | Annotated[str, StringConstraints(max_length=64)],
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "pattern": QUANTITY_PATTERN,
            MUST_BE: "a quantity, such as 10, 500m or 1Gi",
        }
    ),
]
"""Kubernetes quantity, such as 10, 500m or 1Gi, as it is written."""


class ApiModel(BaseModel):
    """A part of a custom resource: fields in camelCase, frozen, unknown fields ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", use_attribute_docstrings=True
    )


class ObjectReference(ApiModel):
    """Reference to an object in the same namespace, in the form of core/v1 ObjectReference."""

    model_config = schema_config(x_kubernetes_map_type="atomic")

    api_version: Annotated[str, StringConstraints(max_length=253)] | None = None
    """API version of the referent, for example apps/v1."""
    kind: Annotated[str, StringConstraints(max_length=63)] | None = None
    """Kind of the referent."""
    name: Name | None = None
    """Name of the referent."""
    namespace: Annotated[str, StringConstraints(max_length=63)] | None = None
    """Namespace of the referent. Must be the namespace of this object, which is the default."""
    uid: Text | None = None
    """UID of the referent. Accepted as part of every object reference, and has no effect."""
    resource_version: Text | None = None
    """Resource version of the referent. Accepted as part of every object reference, and has no effect."""
    field_path: Text | None = None
    """Path of a field of the referent. Accepted as part of every object reference, and has no effect."""


class SecretReference(ApiModel):
    """Reference to a Secret in the namespace of this object. The Secret must have the label
    gateway.beamlit.com/credential."""

    model_config = schema_config(x_must_be="a reference, such as {name: demo-credentials}")

    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Name of the Secret."""


class SecretKeyReference(ApiModel):
    """Reference to one key of a Secret in the namespace of this object. The Secret must have the label
    gateway.beamlit.com/credential."""

    model_config = schema_config(x_must_be="a reference, such as {name: demo-keys, key: apiKey}")

    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Name of the Secret."""
    key: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Key in the data of the Secret."""


MOST_CONDITIONS: Final = 32
"""Conditions of one object, at most."""


class ConditionStatus(StrEnum):
    """Status of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """Details of one aspect of the current state, in the form of meta/v1 Condition."""

    type: Annotated[str, StringConstraints(max_length=316)]
    """Type of the condition."""
    status: ConditionStatus
    """Status of the condition: True, False or Unknown."""
    reason: Annotated[str, StringConstraints(max_length=1024)]
    """Reason for the last transition of the condition, as one word for programs."""
    message: Annotated[str, StringConstraints(max_length=32768)] = ""
    """Message for people about the condition. Where something is wrong, it says what to change."""
    last_transition_time: Time
    """Time at which the status of the condition last changed."""
    observed_generation: Generation | None = None
    """The metadata.generation that the condition was set for."""


class PlatformState(ApiModel):
    """State of the registration on the platform. The controller keeps it from one sync to the next."""

    name: Text | None = None
    """Name under which the object is registered on the platform. Also set while it is not known whether a registration
    under that name succeeded."""
    environment: Annotated[str, StringConstraints(max_length=63)] | None = None
    """Environment on the platform in which the object is registered. Not set for a Policy."""
    hash: Annotated[str, StringConstraints(max_length=64)] | None = None
    """Hash of what the platform accepted last."""
    tried: Annotated[str, StringConstraints(max_length=64)] | None = None
    """Hash of what was sent last and failed. Not set after a success."""
    attempts: Annotated[int, Field(ge=0, le=1000000)] | None = None
    """Number of failures in a row."""
    since: Time | None = None
    """Time of the last failure."""


class ObjectMeta(ApiModel):
    """Metadata of an object, as far as the controller reads it."""

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    labels: Mapping[str, str] = Field(default_factory=dict)
    annotations: Mapping[str, str] = Field(default_factory=dict)
    creation_timestamp: AwareDatetime | None = None
    deletion_timestamp: AwareDatetime | None = None


class ApiObject(ApiModel):
    """A custom resource as a whole."""

    @classmethod
    def read(cls, raw: object) -> Self:
        """Return an object that the API server gave.

        Raises:
            InvalidObject: a value in it cannot be used, or there are too many.
        """
        if has_too_many_values(raw):
            raise InvalidObject("the manifest", f"has more than {MOST_VALUES} values: leave some out")
        try:
            return cls.model_validate(raw)
        except ValidationError as exc:
            # Not chained: the original would repeat the input, which may hold a secret.
            problem = first_problem(exc, cls)
            raise InvalidObject(problem.path or "the manifest", problem.instead) from None
