"""Addresses of servers as an administrator may write them: `host:port` or a URL."""

from urllib.parse import SplitResult, urlsplit


def problem(address: str) -> str | None:
    """Return what is wrong with an address, as a phrase that follows its key; None when nothing is."""
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
    """Return the URL for an address that has no problem, with a scheme and without a slash at its end."""
    parts = _split(address)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _split(address: str) -> SplitResult:
    return urlsplit(address if "://" in address else f"http://{address}")
