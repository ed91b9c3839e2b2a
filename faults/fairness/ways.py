"""The ways in which a tenant can be hostile: the coroutines of `faults.fairness.hostile` have their names."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Way:
    """A way to be hostile."""

    name: str
    meaning: str
    wanted: tuple[str, ...]
    """What the hostile tenant must have seen, at least one of these: otherwise nothing was done."""
    settles: float = 0.3
    """Seconds until it is in force."""


WAYS: Final = (
    Way("body", "one body of the largest size after the other, with a second model deep inside", ("begun",)),
    Way("memory", "twelve images at once and a body of small strings, which name their model at the end", ("200",)),
    Way("unfinished", "forty bodies that never end", ("begun",), 1.0),
    Way("loopback", "Services that lead to the admin port and to a metadata service", ("502",)),
    Way("names", "requests to backends whose name server is silent", ("begun",), 1.0),
    Way("claims", "documents that claim names of other tenants", ("written",)),
    Way("documents", "files and documents that are no objects, too deep, or large", ("written",)),
    Way("checks", "33 backends that take health checks and never respond", ("checked",), 1.0),
    Way("admin", "heads without an end and the longest pages, at the admin port", ("page",)),
    Way("shares", "all connections and all memory, by four routes", ("503",), 1.0),
    Way("idle", "more connections than the gateway takes, without a request", ("closed", "503")),
    Way("slow", "bodies at ten bytes a second, and a backend that responds twice", ("200",), 1.0),
)
"""All ways, in the order of the table."""
