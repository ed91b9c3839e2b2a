"""Hook responses as Metacontroller decodes them, strictly or loosely.

Fatal in both modes: invalid JSON, NaN, wrong types, a child without `kind`. Fatal in strict mode only: unknown and
duplicate keys at typed levels. Accepted in both, and disastrous: `null` and `{}`, which delete every child. A null
among children or rules ends the Metacontroller process; here it is errors.WouldCrash.
"""

import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn

from metacontroller.local import errors
from metacontroller.local.apiserver.objects import Object

_RESPONSE_KEYS = {"status", "children", "resyncAfterSeconds", "finalized"}
_RULE = {"apiVersion", "resource", "labelSelector", "namespaceSelector", "namespace", "names"}
_LABEL_SELECTOR = {"matchLabels", "matchExpressions"}
_EXPRESSION = {"key", "operator", "values"}


class _Pairs(dict[str, Any]):
    """A JSON object with the keys that it has twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice = sorted({key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1})


@dataclass(frozen=True, slots=True)
class SyncResponse:
    """The response to sync or finalize."""

    status: Object
    children: tuple[Object, ...]
    resync_after_seconds: float
    """Seconds until the next sync; 0 for none."""
    finalized: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a customize response: which related objects go into a request."""

    api_version: str
    resource: str
    label_selector: Object | None
    namespace_selector: Object | None
    namespace: str
    names: tuple[str, ...]


def decode_sync(body: bytes, *, strict: bool) -> SyncResponse:
    """Return the decoded response to sync or finalize; raise errors.HookError where it is invalid."""
    response = _decode(body)
    if strict:
        _known(response, _RESPONSE_KEYS, "the response")
        _no_duplicates(response.get("status"), "status")
    status = _typed(response, "status", dict, "an object") or {}
    children = _typed(response, "children", list, "a list") or []
    after = response.get("resyncAfterSeconds")
    if after is not None and (isinstance(after, bool) or not isinstance(after, int | float)):
        raise errors.HookError(f"resyncAfterSeconds must be a number, not {after!r}")
    finalized = _typed(response, "finalized", bool, "true or false") or False
    for child in children:
        _check_child(child)
    return SyncResponse(_plain(status), tuple(_plain(children)), float(after or 0), finalized)


def decode_customize(body: bytes, *, strict: bool) -> tuple[Rule, ...]:
    """Return the rules of a response to customize; raise errors.HookError where it is invalid."""
    response = _decode(body)
    if strict:
        _known(response, {"relatedResources"}, "the response")
    rules = _typed(response, "relatedResources", list, "a list") or []
    return tuple(_rule(rule, strict=strict) for rule in rules)


def _decode(body: bytes) -> Object:
    try:
        text = body.decode("utf-8", "replace")
        response = json.loads(
            text, object_pairs_hook=_Pairs, parse_constant=_no_constant, parse_float=_float, parse_int=_integer
        )
    except json.JSONDecodeError as exc:
        raise errors.HookError(f"the response is no valid JSON: see line {exc.lineno}, column {exc.colno}") from exc
    except (ValueError, RecursionError) as exc:
        raise errors.HookError(
            "the response is no valid JSON: it has NaN, Infinity or too large a number, or is nested too deep"
        ) from exc
    if response is None:
        return _Pairs([])
    if not isinstance(response, dict):
        raise errors.HookError(f"the response must be an object, not {type(response).__name__}")
    return response


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large")
    return value


def _integer(text: str) -> int | float:
    """Return a whole number, or a float where it does not fit 64 bits, as Go decodes it."""
    value = int(text)
    return value if -(2**63) <= value < 2**63 else _float(text)


def _typed(response: Object, key: str, kind: type[Any], name: str) -> Any:
    value = response.get(key)
    if value is not None and not isinstance(value, kind):
        raise errors.HookError(f"{key} must be {name}, not {type(value).__name__}")
    return value


def _check_child(child: Any) -> None:
    if child is None:
        raise errors.WouldCrash("children holds a null: Metacontroller would crash on this response")
    if not isinstance(child, dict):
        raise errors.HookError(f"children must hold objects, not {type(child).__name__}")
    if not isinstance(child.get("kind"), str) or not child["kind"]:
        raise errors.HookError("a child has no kind")


def _rule(rule: Any, *, strict: bool) -> Rule:
    if rule is None:
        raise errors.WouldCrash("relatedResources holds a null: Metacontroller would crash on this response")
    if not isinstance(rule, dict):
        raise errors.HookError(f"relatedResources must hold objects, not {type(rule).__name__}")
    selector = _typed(rule, "labelSelector", dict, "an object")
    namespaces = _typed(rule, "namespaceSelector", dict, "an object")
    names = _typed(rule, "names", list, "a list") or []
    if not all(isinstance(name, str) for name in names):
        raise errors.HookError("names must hold strings")
    if strict:
        _known(rule, _RULE, "a rule")
    for each, where in ((selector, "labelSelector"), (namespaces, "namespaceSelector")):
        _check_selector(each, where, strict=strict)
    return Rule(
        api_version=_typed(rule, "apiVersion", str, "a string") or "",
        resource=_typed(rule, "resource", str, "a string") or "",
        label_selector=None if selector is None else _plain(selector),
        namespace_selector=None if namespaces is None else _plain(namespaces),
        namespace=_typed(rule, "namespace", str, "a string") or "",
        names=tuple(names),
    )


def _check_selector(selector: Object | None, where: str, *, strict: bool) -> None:
    if selector is None:
        return
    labels = _typed(selector, "matchLabels", dict, "an object") or {}
    expressions = _typed(selector, "matchExpressions", list, "a list") or []
    if not all(isinstance(value, str) for value in labels.values()):
        raise errors.HookError(f"{where}.matchLabels must hold strings")
    for expression in expressions:
        if not isinstance(expression, dict):
            raise errors.HookError(f"{where}.matchExpressions must hold objects")
        _typed(expression, "key", str, "a string")
        _typed(expression, "operator", str, "a string")
        values = _typed(expression, "values", list, "a list") or []
        if not all(isinstance(value, str) for value in values):
            raise errors.HookError(f"{where}.matchExpressions.values must hold strings")
        if strict:
            _known(expression, _EXPRESSION, "matchExpressions")
    if strict:
        _known(selector, _LABEL_SELECTOR, where)


def _known(value: Any, keys: set[str], where: str) -> None:
    if not isinstance(value, _Pairs):
        return
    unknown = sorted(set(value) - keys)
    if unknown:
        raise errors.HookError(f"{where} has the unknown key {unknown[0]!r}; allowed are {', '.join(sorted(keys))}")
    if value.twice:
        raise errors.HookError(f"{where} has the key {value.twice[0]!r} twice")


def _no_duplicates(value: Any, where: str) -> None:
    if isinstance(value, _Pairs):
        if value.twice:
            raise errors.HookError(f"{where} has the key {value.twice[0]!r} twice")
        for key, item in value.items():
            _no_duplicates(item, f"{where}.{key}")
    elif isinstance(value, list):
        for item in value:
            _no_duplicates(item, where)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, str) and not value.isascii():
        # Half a surrogate pair is no character: Go has U+FFFD in its place.
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value
