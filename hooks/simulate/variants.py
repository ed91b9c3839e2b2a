"""Variants of a ModelDeployment: `spec.offloadingConfig.behavior.percentage=50` set in a copy of it."""

import copy
import re
from dataclasses import dataclass
from typing import Any, Final

import yaml

from hooks.kube.objects import Object
from program import files

_PATH: Final = re.compile(r"spec(\.[A-Za-z][A-Za-z0-9]*|\[[0-9]{1,3}\])+")
_PART: Final = re.compile(r"\.([A-Za-z][A-Za-z0-9]*)|\[([0-9]+)\]")
_NEXT: Final = re.compile(r",\s*(?=spec[.\[])")
"""The comma between two assignments; one within a value is not followed by a path."""
_SHORT: Final = ("spec.offloadingConfig.behavior.", "spec.offloadingConfig.", "spec.")


class BadVariant(ValueError):
    """An assignment cannot be made. The message says what to write."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A field and the value that it gets."""

    path: str
    value: Any
    """Value as in YAML; None takes the field away."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A named set of assignments."""

    name: str
    assignments: tuple[Assignment, ...]

    def applied(self, item: Object) -> Object:
        """Return a copy of an object with these fields set.

        Raises:
            BadVariant: a path leads through a value that has no fields or no such item.
        """
        result = copy.deepcopy(item)
        for one in self.assignments:
            _assign(result, one)
        return result


def read_variant(text: str) -> Variant:
    """Return the variant that a text describes: assignments with commas between them.

    Raises:
        BadVariant: it describes none.
    """
    assignments = tuple(_read(part) for part in _NEXT.split(text.strip()))
    return Variant(", ".join(_short(part) for part in _NEXT.split(text.strip())), assignments)


def _short(text: str) -> str:
    """Return an assignment without the beginning that nearly all have."""
    path, _, value = text.partition("=")
    prefix = next((prefix for prefix in _SHORT if path.startswith(prefix)), "")
    return f"{path.removeprefix(prefix).strip()}={value.strip()}"


def _read(text: str) -> Assignment:
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals or not _PATH.fullmatch(path):
        raise BadVariant(
            f"must be a path and a value, such as spec.offloadingConfig.behavior.percentage=50, not {text!r}"
        )
    try:
        return Assignment(path, files.load(value))
    except yaml.YAMLError:
        raise BadVariant(f"must have a value in YAML for {path}, such as 50 or {{type: pods}}, not {value!r}") from None


def _assign(item: Object, assignment: Assignment) -> None:
    """Set a field of an object, making the objects that lead to it where there are none."""
    steps: list[str | int] = [
        match[1] if match[1] is not None else int(match[2]) for match in _PART.finditer(f".{assignment.path}")
    ]
    node: Any = item
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        where = assignment.path
        if isinstance(step, int) and not (isinstance(node, list) and step < len(node)):
            count = len(node) if isinstance(node, list) else 0
            raise BadVariant(f"has no item [{step}] for {where}: there are {count}, counted from 0")
        if isinstance(step, str) and not isinstance(node, dict):
            raise BadVariant(f"has no field {step} for {where}: the manifest has no object there")
        if following is None:
            if assignment.value is None and isinstance(node, dict):
                node.pop(step, None)
            else:
                node[step] = assignment.value
        else:
            if isinstance(step, str) and node.get(step) is None:
                node[step] = {} if isinstance(following, str) else []
            node = node[step]
