"""Why there is no token, in words that may be logged."""

from typing import Final, Self

REFUSALS: Final = frozenset({400, 401, 403})
"""Statuses by which a token endpoint refuses a client or its request (RFC 6749 section 5.2)."""


class TokenUnavailable(Exception):
    """A token cannot be had.

    Nothing in it is secret, and nothing is repeated that the endpoint wrote: an endpoint may repeat what it was sent.
    """

    def __init__(
        self,
        reason: str,
        detail: str = "",
        *,
        status: int | None = None,
        code: str = "",
        retry_after: float | None = None,
    ) -> None:
        """Describe what is missing.

        Args:
            reason: one word of our own, for log lines.
            detail: a phrase that says more; empty where there is no more to say.
            status: HTTP status of the response; None when there was no response.
            code: OAuth error code of the response, one of `responses.CODES`; empty without one.
            retry_after: seconds that the endpoint asks to wait; None when it does not ask.
        """
        super().__init__(reason)
        self.reason = reason
        self.detail = detail
        self.status = status
        self.code = code
        self.retry_after = retry_after
        self.endpoint = ""
        """URL of the token endpoint without user and query; empty when none was asked."""
        self.requests = 1
        """Requests that were sent to the endpoint, one for each form of authentication that was tried."""

    @property
    def refused(self) -> bool:
        """Whether the endpoint refused the client, so that another request with the same credentials ends likewise."""
        return self.status in REFUSALS

    @property
    def wrong_client(self) -> bool:
        """Whether the endpoint did not recognize the client (`invalid_client`, RFC 6749 section 5.2).

        A 401 without an error code says the same.
        """
        return (self.status in (400, 401) and self.code == "invalid_client") or (self.status == 401 and not self.code)

    @property
    def withdrawn(self) -> bool:
        """Whether the credentials are gone, so that a token which they bought must not be used any longer."""
        return self.reason == "credential_missing"

    @property
    def fields(self) -> dict[str, object]:
        """Fields of a log line."""
        fields: dict[str, object] = {"reason": self.reason, "detail": self.detail}
        optional = {"endpoint": self.endpoint, "status": self.status, "error": self.code}
        return fields | {name: value for name, value in optional.items() if value}

    def again(self) -> Self:
        """Return a copy: each of several callers raises one of its own."""
        copy = type(self)(self.reason, self.detail, status=self.status, code=self.code, retry_after=self.retry_after)
        copy.endpoint, copy.requests = self.endpoint, self.requests
        return copy
