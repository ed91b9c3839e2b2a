"""Rules for callers and for groups of them: which models one may use, whether its requests may leave the cluster, how
many run at once, and which of them come first in a queue.

They are in a file, as the chart mounts it from a ConfigMap, which is read again while the gateway runs. A version of it
that is wrong changes nothing.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import structlog
import yaml
from pydantic import Field, StringConstraints, ValidationError

from gateway import errors
from gateway.access.allowance import Allowance
from gateway.access.caller import NOTHING
from gateway.access.watching import MOST_BYTES, POLL_SECONDS, watch
from program import bounded_yaml
from program.problems import first_problem, joined, must_be
from program.settings import Section

MOST_CALLERS: Final = 4096
"""Largest number of callers with rules, of groups with rules, and of callers whose allowance is remembered."""

log = structlog.get_logger(__name__)


class Rule(Section):
    """Rule for one caller, or for the callers of one group. What it does not say is None."""

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
    burst: Literal["allow", "deny"] | None = None
    """Whether requests of the caller may go to remote backends; they may when None."""
    priority: Literal["high", "normal"] | None = None
    """Priority of requests of the caller in the queue of a backend; normal when None."""
    max_in_flight: Annotated[int, Field(ge=1, le=1000000)] | None = None
    """Requests that each gateway serves at the same time: of the caller, or of all callers of the group together. Any
    number when None."""


class RuleFile(Section):
    """Content of the file."""

    callers: Annotated[Mapping[str, Rule], Field(max_length=MOST_CALLERS)] = {}
    """Rules by the names of callers. A caller without one, and without one for a group of it, may use everything."""
    groups: Annotated[Mapping[str, Rule], Field(max_length=MOST_CALLERS)] = {}
    """Rules by the groups that tokens name."""


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
        self._allowances: dict[tuple[str, frozenset[str]], Allowance | None] = {}

    def rule(self, caller: str) -> Rule | None:
        """Return the rule for a caller; None without one."""
        return self._rules.callers.get(caller)

    def allowance(self, caller: str, groups: frozenset[str] = NOTHING) -> Allowance | None:
        """Return what a caller may do that belongs to groups; None where no rule is for it."""
        key = caller, groups
        try:
            return self._allowances[key]
        except KeyError:
            pass
        own = self._rules.callers.get(caller)
        of_groups = [(f"group:{name}", self._rules.groups[name]) for name in groups if name in self._rules.groups]
        allowance = None
        if own is not None or of_groups:
            allowance = Allowance(None if own is None else (caller, own), of_groups)
        if len(self._allowances) >= MOST_CALLERS:
            self._allowances.clear()
        self._allowances[key] = allowance
        return allowance

    def enter(self, limits: Sequence[tuple[str, int]]) -> None:
        """Count a request that begins, under each of the names with a limit.

        Raises:
            errors.TooManyRequests: There are as many requests in flight under one of the names as there may be.
        """
        now = self._in_flight
        if any(now.get(name, 0) >= limit for name, limit in limits):
            raise errors.TooManyRequests(retry_after=1)
        for name, _ in limits:
            now[name] = now.get(name, 0) + 1

    def leave(self, limits: Sequence[tuple[str, int]]) -> None:
        """Count the end of a request that was counted."""
        for name, _ in limits:
            left = self._in_flight[name] - 1
            if left:
                self._in_flight[name] = left
            else:
                del self._in_flight[name]

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
            self._allowances.clear()
            log.info("access_rules_read", callers=len(self._rules.callers), groups=len(self._rules.groups))


def parse(content: bytes) -> RuleFile:
    """Return the rules in the content of a file.

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
        return RuleFile.model_validate((documents[0] if documents else None) or {})
    except ValidationError as exc:
        problem = first_problem(exc, RuleFile, strings=True)
        raise ValueError(joined(problem.path or "it", problem.instead)) from None


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(MOST_BYTES + 1)
