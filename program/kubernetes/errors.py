"""Reasons why there is no usable response of an API server. No message repeats a credential."""


class ClusterError(Exception):
    """A configuration that leads to no API server. The message is one sentence for the administrator."""


class ApiError(OSError):
    """A call to the API server that failed."""

    status: int = 0
    """HTTP status of the response; 0 when there was none."""


class ApiRefusal(ApiError):
    """A response of the API server with a status other than 200, or an error event in a watch."""

    def __init__(self, status: int, reason: str, message: str = "", *, is_status: bool = False) -> None:
        """Describe the response.

        Args:
            status: HTTP status.
            reason: reason phrase of the status line.
            message: message of the Status object in the body; empty when there is none.
            is_status: whether the body is an object of kind Status. Paths that nothing serves get plain text.
        """
        words = f"{reason}: {message}" if message else reason
        super().__init__(f"the API server responds with {status} {words}" if status else words)
        self.status = status
        self.explanation = message or reason
        """Message of the Status object, else the reason phrase."""
        self.is_status = is_status


class ApiCredentialsError(ApiError):
    """Credentials for the API server that cannot be read or sent."""

    def __init__(self, problem: str, *, readable: bool) -> None:
        """Describe the problem; `readable` says that there is a token, which cannot be sent in a header field."""
        super().__init__(f"the API server cannot be asked: {problem}")
        self.readable = readable


class ApiUnreachable(ApiError):
    """An API server to which no connection could be opened."""

    def __init__(self, problem: str, detail: str = "", *, timed_out: bool = False) -> None:
        """Describe the problem.

        Args:
            problem: a clause that is the same for each call.
            detail: what may differ from call to call.
            timed_out: whether the time for connecting was over.
        """
        super().__init__(f"the API server cannot be asked: {problem}{f': {detail}' if detail else ''}")
        self.problem = problem
        self.timed_out = timed_out


class ApiInterrupted(ApiError):
    """A response that did not arrive whole."""

    def __init__(self, problem: str) -> None:
        """Describe the problem in a clause that is the same for each call."""
        super().__init__(f"the API server cannot be asked: {problem}")
        self.problem = problem


class ApiMalformed(ApiError):
    """A response that is not the JSON object that was asked for."""

    def __init__(self, problem: str) -> None:
        """Describe the problem in a clause that follows the name of the server."""
        super().__init__(f"the API server {problem}")
        self.problem = problem


class ApiTooLarge(ApiError):
    """A page or an event that is larger than what is held in memory at once."""
