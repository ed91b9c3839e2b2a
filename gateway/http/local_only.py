"""Requests that never leave the cluster: which they are, and the route as it is for them.

Such a request is served by a route without remote backends, so no way of choosing a backend can lead to one.
"""

from typing import Final

from gateway.api.v1alpha1 import LocalOnly, RouteDocument, Split
from gateway.http.exchange import Fields

REASON: Final = "LocalOnly"
"""Reason of the requests that may only be served in the cluster."""


class LocalOnlyRule:
    """Rule by which requests are found that never leave the cluster, in the form in which it is applied to each."""

    __slots__ = ("_missing", "_name", "_values")

    def __init__(self, rule: LocalOnly) -> None:
        self._name = rule.header.lower().encode()
        self._values = frozenset(value.lower().encode() for value in rule.values)
        self._missing = rule.missing == "local"

    def applies(self, fields: Fields) -> bool:
        """Return whether a request with these fields must stay: one of the values that it names is one of the rule's.

        Values are compared without regard to case, quotes and parameters, so that no spelling of a value lets a request
        out. A field without a value is no field.
        """
        found = False
        for name, value in fields:
            if name == self._name:
                for item in value.lower().split(b","):
                    word = item.partition(b";")[0].strip(b' \t"')
                    if word in self._values:
                        return True
                    found = found or bool(word)
        return self._missing and not found


def confined(document: RouteDocument) -> RouteDocument:
    """Return a document without remote backends; the local one with the largest weight gets all requests."""
    local = [one for one in document.backends if one.service is not None]
    first = max(local, key=lambda one: one.weight, default=None)
    backends = tuple(one.model_copy(update={"weight": 100 if one is first else 0}) for one in local)
    split = Split(percentage=0, reason=REASON)
    return document.model_copy(update={"backends": backends, "split": split, "local_only": None})
