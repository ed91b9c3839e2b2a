"""Label selectors, as apimachinery's labels.Selector: what they select, and how they are written in a query."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from hooks.kube.unstructured import objects, text, texts

_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_KEY: Final = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


class InvalidSelector(ValueError):
    """A selector that the API server would refuse; the message says what is wrong with it."""


class Operator(StrEnum):
    """How a requirement looks at a label."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement. A label that is not there satisfies NotIn and DoesNotExist."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    @classmethod
    def of(cls, key: str, operator: str, values: tuple[str, ...]) -> Self:
        """Check one.

        Raises:
            InvalidSelector: it cannot be one.
        """
        try:
            known = Operator(operator)
        except ValueError:
            raise InvalidSelector(f"the operator {operator!r} must be one of {', '.join(Operator)}") from None
        if not _KEY.fullmatch(key):
            raise InvalidSelector(f"{key!r} is not a label")
        if (known in (Operator.IN, Operator.NOT_IN)) != bool(values):
            raise InvalidSelector(f"{operator} of {key!r} has {'no' if not values else 'unexpected'} values")
        for value in values:
            if not _VALUE.fullmatch(value):
                raise InvalidSelector(f"{value!r} is not the value of a label")
        return cls(key, known, values)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels satisfies it."""
        if self.operator is Operator.EXISTS:
            return self.key in labels
        if self.operator is Operator.DOES_NOT_EXIST:
            return self.key not in labels
        return (labels.get(self.key) in self.values) is (self.operator is Operator.IN)

    def __str__(self) -> str:
        """As in a query: `app in (a,b)`, `app=a`, `app`, `!app`."""
        if self.operator is Operator.EXISTS:
            return self.key
        if self.operator is Operator.DOES_NOT_EXIST:
            return f"!{self.key}"
        if self.operator is Operator.IN and len(self.values) == 1:
            return f"{self.key}={self.values[0]}"
        word = "in" if self.operator is Operator.IN else "notin"
        return f"{self.key} {word} ({','.join(sorted(self.values))})"


@dataclass(frozen=True, slots=True)
class Selector:
    """Requirements, all of which must hold; without any, everything is selected. Equal ones are written equally."""

    requirements: tuple[Requirement, ...] = ()

    @classmethod
    def of(cls, labels: Mapping[str, str], expressions: tuple[tuple[str, str, tuple[str, ...]], ...] = ()) -> Self:
        """From matchLabels, and matchExpressions as (key, operator, values).

        Raises:
            InvalidSelector: one cannot be a requirement.
        """
        found = [Requirement.of(key, Operator.IN, (value,)) for key, value in labels.items()]
        found += [Requirement.of(*expression) for expression in expressions]
        return cls(tuple(sorted(found, key=lambda one: (one.key, one.operator, one.values))))

    @classmethod
    def read(cls, item: Mapping[str, Any]) -> Self:
        """From a LabelSelector of meta/v1 as the API server stored it.

        Raises:
            InvalidSelector: one cannot be a requirement.
        """
        expressions = tuple(
            (text(one, "key"), text(one, "operator"), tuple(str(value) for value in one.get("values") or ()))
            for one in objects(item, "matchExpressions")
        )
        return cls.of(texts(item, "matchLabels"), expressions)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return all(one.matches(labels) for one in self.requirements)

    def __str__(self) -> str:
        """As in a query, `app=a,tier in (b,c)`."""
        return ",".join(map(str, self.requirements))
