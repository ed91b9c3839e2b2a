"""The CEL rules of a custom resource (`x-kubernetes-validations`), transition rules included.

https://kubernetes.io/docs/reference/using-api/cel/
Needs the package common-expression-language, which is among the development dependencies; without it no rule is
checked, and `missing_engine` says so.
"""

import functools
from collections.abc import Iterator
from typing import Any

from metacontroller.local.apiserver import schema as schemas
from metacontroller.local.apiserver.objects import Object, equal

_ABSENT = object()


def missing_engine() -> str | None:
    """Return a sentence that says why CEL rules cannot be checked here, or None where they can."""
    try:
        import cel  # noqa: F401
    except ImportError:
        return "CEL rules are not checked: install the package common-expression-language"
    return None


@functools.lru_cache(maxsize=512)
def _program(rule: str) -> Any:
    import cel

    return cel.compile(rule)


def problems(schema: Object, value: Any, old: Any = None, path: str = "") -> Iterator[str]:
    """Return the messages of all broken rules. `old` is the stored value on an update, and None on create."""
    if missing_engine() is None:
        yield from _problems(schema, value, _ABSENT if old is None else old, path)


def _problems(schema: Object, value: Any, old: Any, path: str) -> Iterator[str]:
    if value is None:
        return
    for rule in schema.get("x-kubernetes-validations", ()):
        if (message := _broken(rule, value, old)) is not None:
            yield f"{path.lstrip('.') or 'the object'}: {message}"
    if isinstance(value, dict):
        for name, item in value.items():
            below = schemas.member(schema, name)
            before = old.get(name, _ABSENT) if isinstance(old, dict) else _ABSENT
            if below is not None:
                yield from _problems(below, item, before, f"{path}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            items = schema.get("items", schemas.EMPTY)
            yield from _problems(items, item, _counterpart(schema, item, old), f"{path}[{index}]")


def _counterpart(schema: Object, item: Any, old: Any) -> Any:
    """Return the stored item with the same key. Only items of a list of type `map` have one."""
    if schema.get("x-kubernetes-list-type") != "map" or not isinstance(old, list):
        return _ABSENT
    key = schemas.list_key(schema, item)
    return next((before for before in old if equal(schemas.list_key(schema, before), key)), _ABSENT)


def _broken(rule: Object, value: Any, old: Any) -> str | None:
    transition = "oldSelf" in rule["rule"]
    if transition and old is _ABSENT:
        return None
    bound = {"self": value} | ({"oldSelf": old} if transition else {})
    try:
        if _program(rule["rule"]).execute(bound) is True:
            return None
    except (RuntimeError, ValueError, TypeError, KeyError) as exc:
        # An API server refuses as well when a rule cannot be evaluated.
        return f"the rule {rule['rule']!r} cannot be evaluated: {exc}"
    return _message(rule, bound)


def _message(rule: Object, bound: Object) -> str:
    if "messageExpression" in rule:
        try:
            return str(_program(rule["messageExpression"]).execute(bound))
        except (RuntimeError, ValueError, TypeError, KeyError):
            pass  # the API server falls back to message, too
    return str(rule.get("message") or f"failed rule: {rule['rule']}")
