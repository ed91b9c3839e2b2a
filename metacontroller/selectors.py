"""Label selectors (metav1.LabelSelector)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metacontroller import errors

if TYPE_CHECKING:
    from metacontroller.objects import Object


def matches(selector: Object, labels: Object | None) -> bool:
    """Whether the labels match; an empty selector matches everything. Raises errors.SyncError on a bad operator."""
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
        case "DoesNotExist":
            return key not in labels
        case _:
            raise errors.SyncError(f"{operator!r} is no operator of a label selector")
