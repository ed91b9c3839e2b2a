"""Types that several kinds share, and how an object of ours is read."""

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

from program.problems import MUST_BE, first_problem, joined

DEPLOYMENT_GROUP: Final = "deployment.beamlit.com"

AUTHORIZATION_GROUP: Final = "authorization.beamlit.com"

VERSION: Final = "v1alpha1"

MODEL_DEPLOYMENT_API_VERSION: Final = f"{DEPLOYMENT_GROUP}/{VERSION}"

POLICY_API_VERSION: Final = f"{AUTHORIZATION_GROUP}/{VERSION}"


class InvalidObject(ValueError):
    """A value that cannot be used.

    `field` is its path ("spec.offloadingConfig.behavior.percentage"), `problem` says what to write instead; the message
    is both, as one sentence without its full stop. Secret values are never repeated.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(joined(field, problem))
        self.field = field
        self.problem = problem


def format_time(time: datetime) -> str:
    """The time in UTC and whole seconds, RFC 3339, as Kubernetes writes metav1.Time."""
    return f"{time.astimezone(UTC).isoformat(timespec='seconds')[:19]}Z"


def cel_rule(rule: str, message: str) -> dict[str, str]:
    """One CEL rule of the CRD; the message says what to change."""
    return {"rule": rule, "message": message}


def schema_config(*rules: dict[str, str], **extensions: Any) -> ConfigDict:
    """Model settings with the CEL rules and `x-kubernetes-…` extensions (dashes as underscores) of the object."""
    extra: dict[str, Any] = {key.replace("_", "-"): value for key, value in extensions.items()}
    if rules:
        extra["x-kubernetes-validations"] = list(rules)
    return ConfigDict(json_schema_extra=extra)


_NUMBER: Final = r"(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"

QUANTITY_PATTERN: Final = rf"^[+-]?{_NUMBER}(([KMGTPE]i)|[numkMGTPE]|([eE][+-]?{_NUMBER}))?$"
"""Syntax of resource.Quantity in apimachinery."""

TIME_PATTERN: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
)
"""Syntax of an absolute time, RFC 3339 section 5.6."""

LIST_MAP_BY_TYPE: Final[JsonDict] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}

LIST_MAP_BY_NAME: Final[JsonDict] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}

LIST_ATOMIC: Final[JsonDict] = {"x-kubernetes-list-type": "atomic"}

Name = Annotated[str, StringConstraints(max_length=253)]
"""Name of an object. Its syntax is the business of the API server that holds the object."""

Text = Annotated[str, StringConstraints(max_length=1024)]

Port = Annotated[int, Field(ge=1, le=65535)]

Percentage = Annotated[int, Field(ge=0, le=100)]

Replicas = Annotated[int, Field(ge=0, le=2147483647)]

Generation = Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})]
"""A metadata.generation."""

Seconds = Annotated[float, Field(ge=0.01, le=86400)]

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
"""A Kubernetes quantity such as 10, 500m or 1Gi, as it is written."""


class ApiModel(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", use_attribute_docstrings=True
    )


class ObjectReference(ApiModel):
    """A reference to an object, as core/v1 ObjectReference."""

    model_config = schema_config(x_kubernetes_map_type="atomic")

    api_version: Annotated[str, StringConstraints(max_length=253)] | None = None
    """API version of the object, for instance apps/v1."""
    kind: Annotated[str, StringConstraints(max_length=63)] | None = None
    """Kind of the object."""
    name: Name | None = None
    """Name of the object."""
    namespace: Annotated[str, StringConstraints(max_length=63)] | None = None
    """Namespace of the object. It must be that of this object, which is the default."""
    uid: Text | None = None
    """Part of every Kubernetes object reference; has no effect here."""
    resource_version: Text | None = None
    """Part of every Kubernetes object reference; has no effect here."""
    field_path: Text | None = None
    """Part of every Kubernetes object reference; has no effect here."""


class SecretReference(ApiModel):
    """A Secret in the namespace of this object, with the label gateway.beamlit.com/credential."""

    model_config = schema_config(x_must_be="a reference, such as {name: demo-credentials}")

    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Name of the Secret."""


class SecretKeyReference(ApiModel):
    """One key of a Secret in the namespace of this object, with the label gateway.beamlit.com/credential."""

    model_config = schema_config(x_must_be="a reference, such as {name: demo-keys, key: apiKey}")

    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Name of the Secret."""
    key: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Key in the Secret's data."""


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """One aspect of the state, as meta/v1 Condition."""

    type: Annotated[str, StringConstraints(max_length=316)]
    """Name of the condition."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: Annotated[str, StringConstraints(max_length=1024)]
    """Why, as one word for programs."""
    message: Annotated[str, StringConstraints(max_length=32768)] = ""
    """Why, as a sentence for people, with what to change where something is wrong."""
    last_transition_time: Time
    """When status last changed."""
    observed_generation: Generation | None = None
    """The metadata.generation that the condition is about."""


class PlatformState(ApiModel):
    """What is remembered of the platform between two syncs."""

    name: Text | None = None
    """Name under which the object is registered there, or may be where an answer was lost."""
    environment: Annotated[str, StringConstraints(max_length=63)] | None = None
    """Environment in which it is; none for a policy."""
    hash: Annotated[str, StringConstraints(max_length=64)] | None = None
    """Of what the platform took last."""
    tried: Annotated[str, StringConstraints(max_length=64)] | None = None
    """Of what was tried last and failed."""
    attempts: Annotated[int, Field(ge=0, le=1000000)] | None = None
    """How often in a row it failed."""
    since: Time | None = None
    """When it failed last."""


class ObjectMeta(ApiModel):
    """The metadata the controller reads."""

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    labels: Mapping[str, str] = Field(default_factory=dict)
    annotations: Mapping[str, str] = Field(default_factory=dict)
    creation_timestamp: AwareDatetime | None = None
    deletion_timestamp: AwareDatetime | None = None


class ApiObject(ApiModel):
    @classmethod
    def read(cls, raw: object) -> Self:
        """Read an object as the API server gives it.

        Raises:
            InvalidObject: a value that cannot be used; the message says which and why.
        """
        try:
            return cls.model_validate(raw)
        except ValidationError as exc:
            # Not chained: the original would repeat the input, which may hold a secret.
            problem = first_problem(exc, cls)
            raise InvalidObject(problem.path or "the manifest", problem.instead) from None
