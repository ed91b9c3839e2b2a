"""The caller of a request, as the gateway knows it by the credential that the request presents."""

from typing import Final

NOTHING: Final[frozenset[str]] = frozenset()
"""What a caller has of groups and audiences that it is not known by a token."""


class Caller:
    """Caller of a request."""

    __slots__ = ("audiences", "by_token", "groups", "name")

    def __init__(
        self,
        name: str,
        groups: frozenset[str] = NOTHING,
        audiences: frozenset[str] = NOTHING,
        *,
        by_token: bool = False,
    ) -> None:
        self.name = name
        """Name for the log, metrics and rules: that of an API key, or `oidc:` and the name in a token."""
        self.groups = groups
        """Groups that the token names."""
        self.audiences = audiences
        """Audiences of the token."""
        self.by_token = by_token
        """Whether the caller is known by a token of the issuer, and not by an API key."""
