"""Problems of values, in words that say what to write instead, for every field of every model."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import pytest
from pydantic import BaseModel, Field, SecretStr, StringConstraints, ValidationError, field_validator

import gateway.settings
import hooks.settings
from gateway.api.v1alpha1 import Backend, RouteDocument
from hooks.api.model_deployment import ModelDeployment
from hooks.api.policy import Policy
from program import problems
from program.problems import Mistake, Problem, first_problem, must_be, problem_of

MODELS: Final[tuple[type[BaseModel], ...]] = (
    *(ModelDeployment, Policy, RouteDocument),
    *(hooks.settings.Settings, gateway.settings.Settings),
)
FOREIGN: Final = re.compile(
    r"should|\bvalid|[Ii]nput|dictionar|tuple|instance|timezone|fraction|finite|\^|\\|\+\$|\*\$"
)
"""Words of the library, and signs of regular expressions."""
BAD: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 0.5, 1.0, 10**30, -(10**30), float("inf"), float("nan")),
    *("", "x", "ä", " ", "$", "x" * 100_000, "2030-01-31T18:00", "2030-13-31T18:00:00Z", "12", "0.5"),
    *([], [None], [1], ["x"] * 2000, {}, {"x": None}, {"a b": "c"}, {"x": "ä"}, {1: 2}, {"x": {"x": "x"}}),
    {f"x{number}": "x" for number in range(200)},
)


def places(node: problems.Schema, whole: problems.Schema) -> Iterator[tuple[tuple[str | int, ...], problems.Schema]]:
    """Yield every node below one of a schema, itself included, with where it is."""
    node = problems.resolved(node, whole.get("$defs", {}))
    yield (), node
    inner: dict[str | int, Any] = dict(node.get("properties", {}))
    if "items" in node:
        inner[0] = node["items"]
    if isinstance(node.get("additionalProperties"), dict):
        inner["x"] = node["additionalProperties"]
    for value in node.get("patternProperties", {}).values():
        inner["x"] = value
    for key, child in inner.items():
        for path, below in places(child, whole):
            yield (key, *path), below


def nested(path: tuple[str | int, ...], value: Any) -> Any:
    """Return a document that has a value at a path and nothing else."""
    for part in reversed(path):
        value = [value] if isinstance(part, int) else {part: value}
    return value


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__module__)
def test_every_field_says_what_it_allows(model: type[BaseModel]) -> None:
    """Each node of the schema has words for what is allowed there, a pattern included."""
    schema = model.model_json_schema(by_alias=True)
    for path, node in places(schema, schema):
        words = problems.allowed(node)
        assert not FOREIGN.search(words), (path, words)
        if "propertyNames" in node:
            assert not FOREIGN.search(problems.allowed({"type": "string", **node["propertyNames"]}))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__module__)
def test_no_error_has_the_words_of_the_library(model: type[BaseModel]) -> None:
    """Every error of any value in any field has a path and words of this project."""
    schema = model.model_json_schema(by_alias=True)
    kinds = set()
    for path, _ in places(schema, schema):
        for value in BAD:
            try:
                model.model_validate(nested(path, value))
            except ValidationError as exc:
                for error in exc.errors(include_url=False):
                    problem = problem_of(error, model)
                    assert problem.text
                    assert problem.path or not path or error["type"] == "value_error"
                    assert not FOREIGN.search(problem.text), problem
                    assert "x" * 70 not in problem.instead
                    assert "  " not in problem.instead
                    kinds.add(error["type"])
    assert len(kinds) > 10


class Inner(BaseModel):
    """Object in a list of the example."""

    size: Annotated[int, Field(ge=1)] = 1


class Example(BaseModel):
    """Model with a field of each kind."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z]+$", max_length=5), must_be("a word, such as demo")] = "x"
    text: Annotated[str, Field(min_length=1)] = "x"
    key: SecretStr = SecretStr("")
    share: Annotated[float, Field(gt=0, le=1.5)] = 1
    count: Annotated[int, Field(le=3)] = 1
    items: tuple[Inner, ...] = ()
    values: Annotated[Mapping[str, str], Field(max_length=2)] = {}
    few: Annotated[tuple[int, ...], Field(min_length=2, max_length=3)] = (1, 2)
    some: Annotated[tuple[int, ...], Field(min_length=2)] = (1, 2)
    either: Annotated[int | str, Field(json_schema_extra={problems.MUST_BE: "a quantity, such as 1Gi"})] = 1
    own: str = ""
    other: str = ""

    @field_validator("own")
    @classmethod
    def _own(cls, value: str) -> str:
        if value:
            raise Mistake("must be left out")
        return value

    @field_validator("other")
    @classmethod
    def _other(cls, value: str) -> str:
        return str(int(value))


def found(strings: bool = True, **fields: Any) -> Problem:
    """Return the problem of an example with these fields."""
    with pytest.raises(ValidationError) as caught:
        Example.model_validate(fields)
    return first_problem(caught.value, Example, strings=strings)


@pytest.mark.parametrize(
    ("fields", "path", "instead"),
    [
        ({"name": "A"}, "name", "must be a word, such as demo, not 'A'"),
        ({"name": "toolong"}, "name", "must be a word, such as demo, and have at most 5 characters, not 'toolong'"),
        ({"name": 7}, "name", "must be a string: put it in quotes, not 7"),
        ({"name": None}, "name", "is required: a word, such as demo"),
        ({"text": ""}, "text", "must be a string of at least 1 character, not ''"),
        ({"few": [1]}, "few", "must be a list of 2 to 3 items"),
        ({"some": [1]}, "some", "must be a list of at least 2 items"),
        ({"values": {"a": "b", "c": "d", "e": "f"}}, "values", "must be a map of names to values of at most 2 entries"),
        ({"key": ["s3cret"]}, "key", "must be a string"),
        ({"share": 0}, "share", "must be a number above 0, at most 1.5, not 0"),
        ({"share": "half"}, "share", "must be a number above 0, at most 1.5, not 'half'"),
        ({"count": 0.5}, "count", "must be a whole number of at most 3, not 0.5"),
        ({"count": True}, "count", None),
        ({"items": {}}, "items", "must be a list: begin each item with a dash"),
        ({"items": [{}, {"size": 0}]}, "items[1].size", "must be a whole number of 1 or more, not 0"),
        ({"items": [3]}, "items[0]", "must be an object with fields such as size, not 3"),
        ({"items": [None]}, "items[0]", "must be an object with fields such as size"),
        ({"values": {"s": ["s3cret"]}}, "values.s", "must be a string"),
        ({"values": {"s": 5}}, "values.s", "must be a string: put it in quotes"),
        ({"values": {5: "s"}}, "values", "has the key 5, which must be a string: put it in quotes"),
        ({"values": {"[key]": []}}, "values.[key]", "must be a string"),
        ({"values": []}, "values", "must be a map of names to values"),
        ({"either": 0.5}, "either", "must be a quantity, such as 1Gi, not 0.5"),
        ({"own": "ada:pass@host"}, "own", "must be left out, not '***@host'"),
        ({"other": "x" * 70}, "other", f"must be a string, not '{'x' * 60}…'"),
    ],
)
def test_a_problem(fields: dict[str, Any], path: str, instead: str | None) -> None:
    """A problem names the field and what to write; a secret, a value of a map and a password are not repeated."""
    if instead is None:
        Example.model_validate(fields)
        return
    problem = found(**fields)
    assert (problem.path, problem.instead) == (path, instead)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("must be x", "a must be x"), ("is required", "a is required"), ("set one of b and c", "a: set one of b and c")],
)
def test_a_sentence(text: str, sentence: str) -> None:
    """The text of a problem follows the name of the field, after a colon where it is an instruction."""
    assert problems.joined("a", text) == sentence


@pytest.mark.parametrize("fields", [{"name": "A"}, {"name": 7}, {"own": "x"}])
def test_a_string_of_a_user_is_not_repeated(fields: dict[str, Any]) -> None:
    """A string that may be anything is not repeated unless the caller says that it may be."""
    assert found(strings=False, **fields).value == ""


def test_a_pattern_without_words_raises() -> None:
    """A pattern of a field that has no words for users raises an error instead of being shown."""
    with pytest.raises(ValueError, match="no words say"):
        problems.allowed({"type": "string", "pattern": "^a$"})


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"const": "oauth"}, "oauth"),
        ({"enum": ["a"]}, "a"),
        ({"enum": ["a", "b", "c"]}, "a, b or c"),
        ({"type": "integer"}, "a whole number"),
        ({"type": "number", "exclusiveMinimum": 0}, "a number above 0"),
        ({"type": "string", "minLength": 1}, "a string"),
        ({"type": "array", "minItems": 2}, "a list"),
        ({"type": "object", "maxProperties": 4}, "a map of names to values"),
        ({"type": "string", "format": "path"}, "the path of a file"),
    ],
)
def test_what_a_schema_allows(node: dict[str, Any], words: str) -> None:
    """What a node of a schema allows is written in words."""
    assert problems.allowed(node) == words


def test_the_name_of_a_field_in_python() -> None:
    """A problem of a model that is built in code has the key that users write, not the name in Python."""
    with pytest.raises(ValidationError) as caught:
        Backend(id="b", path_prefix="x", default=True)
    assert first_problem(caught.value, Backend).path == "pathPrefix"


def test_a_field_that_does_not_exist() -> None:
    """A closed model names the field that it does not know."""

    class Closed(BaseModel, extra="forbid"):
        """A model without fields."""

    with pytest.raises(ValidationError) as caught:
        Closed.model_validate({"more": 1})
    assert first_problem(caught.value, Closed) == Problem("more", "is not a field that exists: leave it out", "")


@pytest.mark.parametrize(
    ("value", "text"), [(None, "null"), (True, "true"), (0.5, "0.5"), ("a", "'a'"), ([], ""), ("u:p@h", "'***@h'")]
)
def test_how_a_value_is_shown(value: object, text: str) -> None:
    """A scalar is shown as YAML has it, and anything else not at all."""
    assert problems.shown(value) == text
