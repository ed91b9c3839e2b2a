"""The address of a server that metrics are read from, as an administrator may write it."""

from urllib.parse import SplitResult, urlsplit


def problem(address: str) -> str | None:
    """What is wrong with an address, to follow its key; None when nothing is."""
    try:
        parts = _split(address)
        parts.port  # noqa: B018 - raises when it is no port
    except ValueError:
        parts = None
    if address and (parts is None or parts.scheme not in ("http", "https") or not parts.hostname):
        return "must be host:port or an http or https URL"
    if parts is not None and "@" in parts.netloc:
        return "must not hold credentials: use usernameFile and passwordFile"
    if parts is not None and (parts.query or parts.fragment):
        return "must end with its path"
    return None


def url(address: str) -> str:
    """The URL of an address without a problem, with a scheme and without a slash at its end."""
    parts = _split(address)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _split(address: str) -> SplitResult:
    return urlsplit(address if "://" in address else f"http://{address}")
