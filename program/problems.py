"""What is wrong with a value that a model refused, in words that say what to write instead.

pydantic tells which value it refused, and tells it in words for Python programmers: "should be a valid tuple". Here the
words come from what the field allows, as its JSON Schema has it, whatever the type of the error: "must be a list". So
none of the library's own can reach a reader. A check of our own says what to write by raising `Mistake`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

Schema = Mapping[str, Any]

MOST_VALUES: Final = 50_000
"""Values in an object that is validated, at most: pydantic needs a kilobyte for each one that it refuses."""

MUST_BE: Final = "x-must-be"
"""Keyword of a JSON Schema for the words of `must_be`."""

TIME: Final = "a time with its offset from UTC, such as 2030-01-31T18:00:00Z"

_VERBS: Final = ("must ", "is ", "has ")
_LONGEST: Final = 60
"""Characters of a value that are repeated at most."""
_FORMATS: Final[Mapping[str, str]] = {
    "date-time": TIME,
    "path": "the path of a file",
    "file-path": "the path of a file",
    "directory-path": "the path of a directory",
}

_UNITS: Final[Mapping[str, tuple[str, str, str]]] = {
    "string": ("Length", "character", "characters"),
    "array": ("Items", "item", "items"),
    "object": ("Properties", "entry", "entries"),
}


class Mistake(ValueError):
    """A value that a check of our own refuses.

    The message follows the name of the field. It is `must be …` or `must not …`, or else an order: `set exactly one
    of a and b`.
    """


def must_be(words: str) -> Any:
    """Say in words what a string must be, where its schema says it with a pattern: `a color, such as red`."""
    return Field(json_schema_extra={MUST_BE: words})


@dataclass(frozen=True, slots=True)
class Problem:
    """The first value that a model refused."""

    path: str
    """Path of the field, such as `spec.policies[1].refType`; empty for the whole."""
    text: str
    """What to write instead, to follow the path: `must be …`, `is required: …`, or an order."""
    value: str
    """The value as people write it; empty where it is long, absent or may be secret."""

    @property
    def instead(self) -> str:
        """Text and value: `must be true or false, not 1`."""
        return f"{self.text}, not {self.value}" if self.value else self.text


def joined(subject: str, text: str) -> str:
    """Return what to write instead behind the name of what it is about."""
    return f"{subject} {text}" if text.startswith(_VERBS) else f"{subject}: {text}"


def has_too_many_values(value: object) -> bool:
    """Return whether parsed JSON or YAML has more than `MOST_VALUES` values, with its lists and objects themselves."""
    rest, values = [value], 0
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            values += len(one)
            rest.extend(one.values())
        elif isinstance(one, list):
            values += len(one)
            rest.extend(one)
        if values > MOST_VALUES:
            return True
    return False


def first_problem(exc: ValidationError, model: type[BaseModel], *, strings: bool = False) -> Problem:
    """Return the first problem of those that validation found.

    Args:
        exc: what validation raised. Its own text repeats the input, so it must not be chained to what is shown.
        model: class that was validated against.
        strings: whether to repeat strings that are free in form, which in an object of a user may be secret.
    """
    return problem_of(exc.errors(include_url=False)[0], model, strings=strings)


def problem_of(error: ErrorDetails, model: type[BaseModel], *, strings: bool = False) -> Problem:
    """Return the problem that an error is about; arguments are those of `first_problem`."""
    *parents, last = error["loc"] or ("",)
    if last == "[key]" and parents:  # pydantic marks a key of a map that is refused
        *parents, key = parents
        place = _placed(model, parents)
        if place.node.get("type") == "object" and "properties" not in place.node:
            names = allowed({"type": "string", **place.node.get("propertyNames", {})})
            names = names if isinstance(key, str) else "a string: put it in quotes"
            return Problem(field_path(parents), f"has the key {shown(key)}, which must be {names}", "")
    if error["type"] == "extra_forbidden":
        return Problem(field_path(error["loc"]), "is not a field that exists: leave it out", "")
    place = _placed(model, error["loc"])
    return Problem(field_path(place.path), _text(error, place), _value(error, place, strings=strings))


def field_path(location: Sequence[int | str]) -> str:
    """Return a location as people write it: `backends[0].port`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def shown(value: object) -> str:
    """Return a scalar as YAML has it, cut; empty for anything else. What stands before an `@` may be a password."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)[:_LONGEST]
        case str():
            text = f"***{value[value.rindex('@') :]}" if "@" in value else value
            return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
        case _:
            return ""


@dataclass(frozen=True, slots=True)
class _Place:
    """A node of a schema and where it is."""

    path: tuple[int | str, ...]
    node: Schema
    secret: bool
    """Whether the value must not be repeated."""


def _placed(model: type[BaseModel], location: Sequence[int | str]) -> _Place:
    """Return the node that the location of an error leads to. A variant's name at its end is not part of the path."""
    root = _schema(model)
    definitions: Schema = root.get("$defs", {})
    node, secret = resolved(root, definitions), False
    trail: list[int | str] = []
    for part in location:
        key = _key(node, part)
        below = _below(node, key)
        if below is None:
            break
        trail.append(key)
        secret = secret or ("properties" not in node and "items" not in node)
        node = resolved(below, definitions)
    return _Place(tuple(trail), node, secret or node.get("format") == "password")


def _key(node: Schema, part: int | str) -> int | str:
    """Return the key of a field as it is written; a model that was built in code has errors with its name in Python."""
    fields = node.get("properties", ())
    camel = part if isinstance(part, int) or part in fields else to_camel(part)
    return camel if camel in fields else part


def _below(node: Schema, part: int | str) -> Schema | None:
    """Return the schema of an item, a field or a value of a map; None where there is none."""
    if isinstance(part, int):
        below = node.get("items")
    else:
        patterns: Schema = node.get("patternProperties", {})
        below = node.get("properties", {}).get(part) or next(iter(patterns.values()), node.get("additionalProperties"))
    return below if isinstance(below, dict) else None


@lru_cache(maxsize=16)
def _schema(model: type[BaseModel]) -> Schema:
    return model.model_json_schema(by_alias=True)


def resolved(node: Schema, definitions: Schema) -> dict[str, Any]:
    """Return a node with its reference followed and its null alternative dropped; what stands beside them wins."""
    result = dict(node)
    alternatives = [option for option in result.pop("anyOf", ()) if option.get("type") != "null"]
    if len(alternatives) == 1:
        result = resolved(alternatives[0], definitions) | result
    elif alternatives:
        result["anyOf"] = alternatives
    if reference := result.pop("$ref", None):
        result = resolved(definitions[reference.rpartition("/")[2]], definitions) | result
    return result


def _text(error: ErrorDetails, place: _Place) -> str:
    node, value = place.node, error["input"]
    if error["type"] == "value_error" and isinstance(error["ctx"]["error"], Mistake):
        return str(error["ctx"]["error"])
    if error["type"] == "missing" or (value is None and error["loc"] and isinstance(error["loc"][-1], str)):
        return f"is required: {allowed(node)}"
    kind = node.get("type")
    if _lacks_quotes(node, value):
        return "must be a string: put it in quotes"
    if kind == "array" and MUST_BE not in node and not isinstance(value, list | tuple):
        return f"must be {allowed(node)}: begin each item with a dash"
    size = _size(node) if kind in _UNITS and error["type"].endswith(("too_short", "too_long")) else ""
    if not size:
        return f"must be {allowed(node)}"
    return f"must be {allowed(node)}, and have {size}" if MUST_BE in node else f"must be {allowed(node)} of {size}"


def _lacks_quotes(node: Schema, value: object) -> bool:
    """Whether a value is a number or a boolean that would be a string in quotes, and one that is allowed."""
    scalar = node.get("type") == "string" and isinstance(value, int | float)
    return scalar and str(value) in node.get("enum", (str(value),))


def _value(error: ErrorDetails, place: _Place, *, strings: bool) -> str:
    """Return the value where it may be repeated and is not told otherwise."""
    value = error["input"]
    if place.secret or value is None or error["type"] == "missing":
        return ""
    if _lacks_quotes(place.node, value) and not strings:
        return ""
    typed = place.node.get("type") in ("integer", "number", "boolean") or {"enum", "const"} & place.node.keys()
    return shown(value) if typed or strings else ""


def allowed(node: Schema) -> str:
    """Return what a node of a schema allows, to follow "must be": `a whole number from 0 to 100`.

    Raises:
        ValueError: the schema says it with a pattern, or as a choice of types, and no `must_be` says it in words.
    """
    if "enum" in node:
        return listed([str(one) for one in node["enum"]])
    if "const" in node:
        return str(node["const"])
    kind = node.get("type")
    if MUST_BE in node:
        return str(node[MUST_BE])
    if kind is None or ("pattern" in node and node.get("format") not in _FORMATS):
        raise ValueError(f"no words say what is allowed by {dict(node)}")
    match kind:
        case "boolean":
            return "true or false"
        case "integer":
            return f"a whole number{_range(node)}"
        case "number":
            return f"a number{_range(node)}"
        case "array":
            return "a list"
        case "object" if node.get("properties"):
            required = node.get("required", ())
            names = [*required, *(name for name in node["properties"] if name not in required)][:2]
            return f"an object with fields such as {listed(names, 'and')}"
        case "object":
            return "a map of names to values"
        case _:
            return _FORMATS.get(node.get("format", ""), "a string")


def listed(words: Sequence[str], conjunction: str = "or") -> str:
    """Return words as a list in a sentence: `a, b or c`."""
    *most, last = words
    return f"{', '.join(most)} {conjunction} {last}" if most else last


def _range(node: Schema) -> str:
    least, above, most = (node.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
    if above is not None:
        return f" above {above:g}{'' if most is None else f', at most {_number(most)}'}"
    if least is not None and most is not None:
        return f" from {_number(least)} to {_number(most)}"
    if least is not None:
        return f" of {_number(least)} or more"
    return "" if most is None else f" of at most {_number(most)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _size(node: Schema) -> str:
    suffix, one, many = _UNITS[node["type"]]
    least, most = node.get(f"min{suffix}", 0), node.get(f"max{suffix}")
    if most is None:
        return f"at least {least} {many if least > 1 else one}"
    return f"{least} to {most} {many}" if least else f"at most {most} {many}"
