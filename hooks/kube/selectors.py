"""Label selectors, as labels.Selector of apimachinery: which objects they select, and how a query spells them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from hooks.kube.unstructured import objects, text, texts

_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LONGEST_NAME: Final = 63
"""Characters that the name of a label and its value may have."""
LONGEST_PREFIX: Final = 253
"""Characters that the prefix of a label may have."""


class InvalidSelector(ValueError):
    """The API server would refuse the selector. The message says what is wrong with it."""


class Operator(StrEnum):
    """The relation between a label and the values of a requirement."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True)
class Requirement:
    """A requirement on one label. An absent label satisfies NotIn and DoesNotExist."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    @classmethod
    def of(cls, key: str, operator: str, values: tuple[str, ...]) -> Self:
        """Validate and return a requirement.

        Raises:
            InvalidSelector: The operator, the key or a value is invalid.
        """
        try:
            known = Operator(operator)
        except ValueError:
            raise InvalidSelector(f"the operator {operator!r} must be one of {', '.join(Operator)}") from None
        if not _is_key(key):
            raise InvalidSelector(f"{_shortened(key)} is not a label")
        if (known in (Operator.IN, Operator.NOT_IN)) != bool(values):
            raise InvalidSelector(f"{operator} of {key!r} has {'no' if not values else 'unexpected'} values")
        for value in values:
            if value and not _is_name(value):
                raise InvalidSelector(f"{_shortened(value)} is not the value of a label")
        return cls(key, known, values)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether an object with these labels satisfies the requirement."""
        if self.operator is Operator.EXISTS:
            return self.key in labels
        if self.operator is Operator.DOES_NOT_EXIST:
            return self.key not in labels
        return (labels.get(self.key) in self.values) is (self.operator is Operator.IN)

    def __str__(self) -> str:
        """Return the requirement as a query spells it: `app in (a,b)`, `app=a`, `app`, `!app`."""
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
    """Requirements that must all hold; without any, every object is selected. Equal selectors have equal spellings."""

    requirements: tuple[Requirement, ...] = ()

    @classmethod
    def of(cls, labels: Mapping[str, str], expressions: Iterable[tuple[str, str, tuple[str, ...]]] = ()) -> Self:
        """Return the selector of matchLabels, and of matchExpressions as (key, operator, values).

        Raises:
            InvalidSelector: A requirement is invalid.
        """
        found = [Requirement.of(key, Operator.IN, (value,)) for key, value in labels.items()]
        found += [Requirement.of(*expression) for expression in expressions]
        return cls(tuple(sorted(found, key=lambda one: (one.key, one.operator, one.values))))

    @classmethod
    def read(cls, item: Mapping[str, Any]) -> Self:
        """Read a LabelSelector of meta/v1 as the API server stored it.

        Raises:
            InvalidSelector: A requirement is invalid.
        """
        expressions = (
            (text(one, "key"), text(one, "operator"), tuple(str(value) for value in one.get("values") or ()))
            for one in objects(item, "matchExpressions")
        )
        return cls.of(texts(item, "matchLabels"), expressions)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether an object with these labels is selected."""
        return all(one.matches(labels) for one in self.requirements)

    def __str__(self) -> str:
        """Return the selector as a query spells it: `app=a,tier in (b,c)`."""
        return ",".join(map(str, self.requirements))


def _is_name(text: str) -> bool:
    return len(text) <= LONGEST_NAME and _NAME.fullmatch(text) is not None


def _is_key(key: str) -> bool:
    """Return whether a text is a qualified name: a name, after a DNS subdomain and a slash where there is a prefix."""
    prefix, slash, name = key.rpartition("/")
    if not slash:
        return _is_name(name)
    return _is_name(name) and len(prefix) <= LONGEST_PREFIX and _SUBDOMAIN.fullmatch(prefix) is not None


def _shortened(text: str) -> str:
    """Return a text as a message repeats it."""
    return repr(text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…")
