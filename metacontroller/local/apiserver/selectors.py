"""Label selectors (metav1.LabelSelector)."""

import re

from metacontroller.local import errors
from metacontroller.local.apiserver.objects import Object

KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
"""Syntax of a label's name, with or without a DNS prefix."""
VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def check(selector: Object) -> None:
    """Raise errors.SyncError for an invalid selector, with the reason."""
    labels = selector.get("matchLabels") or {}
    expressions = [{"key": key, "operator": "In", "values": [value]} for key, value in labels.items()]
    for expression in (*expressions, *(selector.get("matchExpressions") or ())):
        key, operator, values = expression.get("key", ""), expression.get("operator"), expression.get("values") or []
        if operator not in {"In", "NotIn", "Exists", "DoesNotExist"}:
            raise errors.SyncError(f"{operator!r} is no operator of a label selector")
        if operator in {"In", "NotIn"} and not values:
            raise errors.SyncError(f"the operator {operator} of a label selector needs values")
        if operator in {"Exists", "DoesNotExist"} and values:
            raise errors.SyncError(f"the operator {operator} of a label selector takes no values")
        if not KEY.fullmatch(key):
            raise errors.SyncError(f"{key!r} is no name of a label")
        for value in values:
            if not VALUE.fullmatch(value):
                raise errors.SyncError(f"{value!r} is no value of a label")


def matches(selector: Object, labels: Object | None) -> bool:
    """Return whether the labels match a selector that passed `check`. An empty selector matches everything."""
    labels = labels or {}
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(name) != value for name, value in wanted.items()):
        return False
    return all(_expression(item, labels) for item in selector.get("matchExpressions") or ())


def _expression(expression: Object, labels: Object) -> bool:
    key, operator, values = expression.get("key", ""), expression.get("operator"), expression.get("values") or ()
    match operator:
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels
