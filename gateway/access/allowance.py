"""What one caller may do, by all rules that are for it or for a group of it."""

from collections.abc import Iterable
from typing import Protocol


class RuleFields(Protocol):
    """What a rule says; None where it says nothing."""

    @property
    def models(self) -> tuple[str, ...] | None:
        """Models that may be used, each as `namespace/name`."""
        ...

    @property
    def burst(self) -> str | None:
        """Whether requests may go to remote backends: `allow` or `deny`."""
        ...

    @property
    def priority(self) -> str | None:
        """Priority in a queue: `high` or `normal`."""
        ...

    @property
    def max_in_flight(self) -> int | None:
        """Requests at the same time."""
        ...


class Allowance:
    """What one caller may do."""

    __slots__ = ("high", "limits", "models", "stays_inside")

    def __init__(self, own: tuple[str, RuleFields] | None, groups: Iterable[tuple[str, RuleFields]]) -> None:
        """Put rules together.

        What the caller's own rule says counts. Of what it does not say, the rules of the groups decide together: their
        models add up, one that denies bursts is enough, and so is one that gives high priority. All limits count.

        Args:
            own: Rule for the caller itself, with the name under which its requests are counted; None without one.
            groups: Rules for its groups, with such names.
        """
        rules = list(groups)
        alone = None if own is None else own[1]
        named = [rule.models for _, rule in rules if rule.models is not None]
        self.models: frozenset[str] | None = None
        """Models that the caller may use; all of them when None."""
        if alone is not None and alone.models is not None:
            self.models = frozenset(alone.models)
        elif named:
            self.models = frozenset(model for models in named for model in models)
        if alone is not None and alone.burst is not None:
            self.stays_inside = alone.burst == "deny"
        else:
            self.stays_inside = any(rule.burst == "deny" for _, rule in rules)
        if alone is not None and alone.priority is not None:
            self.high = alone.priority == "high"
        else:
            self.high = any(rule.priority == "high" for _, rule in rules)
        if own is not None:
            rules.append(own)
        self.limits = tuple((name, rule.max_in_flight) for name, rule in rules if rule.max_in_flight is not None)
        """Names under which requests of the caller are counted, each with its limit."""

    def allows(self, model: str) -> bool:
        """Return whether the caller may use a model, by its `namespace/name`."""
        return self.models is None or model in self.models
