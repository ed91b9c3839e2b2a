"""Authentication of callers by a shared token, where the administrator wants one.

It is off by default: Metacontroller has to read the token from a Secret, and for that lists all Secrets of the cluster.
"""

import hmac
from pathlib import Path
from typing import Final

from program.watched_file import WatchedFile, stripped

_SCHEME: Final = b"bearer "


class Bearer:
    """The token in a file that callers have to show (RFC 6750); the last one counts while the file has none."""

    def __init__(self, path: Path) -> None:
        """Read the token.

        Raises:
            program.watched_file.FileUnusable: the file cannot be read, or is empty.
        """
        self._token = WatchedFile(path, stripped)
        self._token.first()

    def permits(self, authorization: str) -> bool:
        """Return whether the value of an Authorization header carries the token; it is compared in constant time."""
        given = authorization.encode("latin-1", "replace")
        if given[: len(_SCHEME)].lower() != _SCHEME:
            return False
        return hmac.compare_digest(given[len(_SCHEME) :].strip(), self._token.latest())
