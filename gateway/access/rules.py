"""Rules for callers: which models one may use, whether its requests may leave the cluster, and how many run at once.

They are in a file, as the chart mounts it from a ConfigMap, which is read again while the gateway runs. A version of it
that is wrong changes nothing.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import structlog
import yaml
from pydantic import Field, StringConstraints, ValidationError

from gateway import errors
from gateway.access.watching import MOST_BYTES, POLL_SECONDS, watch
from program import bounded_yaml
from program.problems import first_problem, joined, must_be
from program.settings import Section

MOST_CALLERS: Final = 4096
"""Largest number of callers with rules."""

log = structlog.get_logger(__name__)


class Rule(Section):
    """Rule for one caller."""

    models: (
        Annotated[
            tuple[
                Annotated[
                    str,
                    StringConstraints(pattern=r"^[a-z0-9.-]{1,253}/[a-z0-9.-]{1,253}$"),
                    must_be("the namespace and the name of a ModelDeployment, such as default/demo"),
                ],
                ...,
            ],
            Field(max_length=256),
        ]
        | None
    ) = None
    """ModelDeployments that the caller may use, each as namespace/name; all of them when None."""
    burst: Literal["allow", "deny"] = "allow"
    """Whether requests of the caller may go to remote backends."""
    max_in_flight: Annotated[int, Field(ge=1, le=1000000)] | None = None
    """Requests of the caller that each gateway serves at the same time; any number when None."""

    def allows(self, model: str) -> bool:
        """Return whether the caller may use a model, by its `namespace/name`."""
        return self.models is None or model in self.models


class RuleFile(Section):
    """Content of the file."""

    callers: Annotated[Mapping[str, Rule], Field(max_length=MOST_CALLERS)] = {}
    """Rules by the names of callers. A caller without one may use everything."""


class CallerRules:
    """Rules in force, and the requests in flight of callers that have a limit."""

    def __init__(self, file: Path, *, poll_seconds: float = POLL_SECONDS) -> None:
        """Read the file.

        Raises:
            OSError: It cannot be read.
            ValueError: It has a mistake; the message says which.
        """
        self._file = file
        self._poll_seconds = poll_seconds
        self._content = _read(file)
        self._rules = parse(self._content)
        self._in_flight: dict[str, int] = {}

    def rule(self, caller: str) -> Rule | None:
        """Return the rule for a caller; None without one."""
        return self._rules.get(caller)

    def enter(self, caller: str, limit: int) -> None:
        """Count a request that begins.

        Raises:
            errors.TooManyRequests: The caller has as many requests in flight as it may have.
        """
        now = self._in_flight.get(caller, 0)
        if now >= limit:
            raise errors.TooManyRequests(retry_after=1)
        self._in_flight[caller] = now + 1

    def leave(self, caller: str) -> None:
        """Count the end of a request that was counted."""
        left = self._in_flight[caller] - 1
        if left:
            self._in_flight[caller] = left
        else:
            del self._in_flight[caller]

    async def watch(self) -> None:
        """Read the file again and again, until cancelled."""
        await watch(
            partial(_read, self._file),
            self._change,
            seconds=self._poll_seconds,
            unusable="access_rules_unusable",
            failed="access_rules_failed",
            file=str(self._file),
        )

    def _change(self, content: bytes) -> None:
        """Put other rules in force.

        Raises:
            ValueError: There is a mistake in them.
        """
        if content != self._content:
            self._rules = parse(content)
            self._content = content
            log.info("access_rules_read", callers=len(self._rules))


def parse(content: bytes) -> Mapping[str, Rule]:
    """Return the rules in the content of a file, by the names of callers.

    Raises:
        ValueError: There is a mistake; the message says which, as a sentence without its full stop.
    """
    try:
        documents: list[Any] = list(bounded_yaml.load_all(content.decode(), max_chars=MOST_BYTES))
    except yaml.YAMLError:
        raise ValueError("it is not YAML") from None
    except ValueError as exc:
        raise ValueError(f"it cannot be read: {exc}") from None
    if len(documents) > 1:
        raise ValueError("it has several documents")
    try:
        return RuleFile.model_validate((documents[0] if documents else None) or {}).callers
    except ValidationError as exc:
        problem = first_problem(exc, RuleFile, strings=True)
        raise ValueError(joined(problem.path or "it", problem.instead)) from None


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(MOST_BYTES + 1)
