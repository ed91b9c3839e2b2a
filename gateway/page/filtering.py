"""Filter of the page: the routes and requests that a query string asks for."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from gateway.journal import RequestRecord

MOST_CHARACTERS: Final = 512
"""Characters of the longest value of a filter."""
_STATUS: Final = re.compile(r"[1-5]([0-9]{2}|xx)")


class Filter(NamedTuple):
    """What the page is about: one route or some of them, and requests of some kind. An empty value asks for all."""

    route: str = ""
    """Key of a route, `namespace/name`, or a part of one without the slash."""
    status: str = ""
    """Status of responses, such as 502, or a class of them, such as 5xx."""
    reason: str = ""
    """Reason of requests, code of an error, or cause of a failed attempt, in any case."""

    @property
    def is_empty(self) -> bool:
        """Whether all routes and requests are asked for."""
        return not any(self)

    def has_route(self, key: str | None) -> bool:
        """Return whether the route with this key is asked for; None stands for requests that have no route."""
        if not self.route:
            return True
        if key is None:
            return False
        return self.route == key if "/" in self.route else self.route in key

    def has(self, record: RequestRecord) -> bool:
        """Return whether a request is asked for."""
        if self.status:
            status = str(record.status)
            if status != self.status and f"{status[0]}xx" != self.status:
                return False
        return self.has_route(record.route) and (not self.reason or self.reason in _reasons(record))


def read(query: Mapping[str, str]) -> tuple[Filter, str | None]:
    """Return the filter of a query string, and what is wrong with it; what is wrong is not in the filter."""
    values = {name: query.get(name, "").strip() for name in Filter._fields}
    for name, value in values.items():
        if len(value) > MOST_CHARACTERS:
            return Filter(), f"The filter {name} has more than {MOST_CHARACTERS} characters."
    one = Filter(values["route"], values["status"].lower(), values["reason"].lower())
    if one.status and _STATUS.fullmatch(one.status) is None:
        return one._replace(status=""), "A status is a number such as 502, or a class such as 5xx."
    return one, None


def _reasons(record: RequestRecord) -> set[str]:
    """Return everything that says why a request went as it did, in lower case."""
    causes = [one[1] for one in record.failures or ()]
    words = (record.reason, record.code, record.broken, record.not_retryable, *causes)
    return {word.lower() for word in words if word is not None}
