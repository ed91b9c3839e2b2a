"""Who may ask: a shared token, when the administrator wants one.

Off by default: its price is that Metacontroller, which has to read the token from a Secret, then lists all Secrets.
"""

import contextlib
import hmac
from pathlib import Path
from typing import Final

_SCHEME: Final = b"bearer "


class Bearer:
    """The token in a file, read again whenever the file changes."""

    def __init__(self, path: Path) -> None:
        """Read it once now.

        Raises:
            OSError: it cannot be read.
            ValueError: it is empty.
        """
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._token = b""
        self._read()
        if not self._token:
            raise ValueError(f"{path} is empty")

    def permits(self, authorization: str) -> bool:
        """Whether an Authorization value carries the token; compared in constant time."""
        with contextlib.suppress(OSError):  # being replaced: the token read last counts
            self._read()
        given = authorization.encode("latin-1", "replace")
        if given[: len(_SCHEME)].lower() != _SCHEME:
            return False
        return hmac.compare_digest(given[len(_SCHEME) :].strip(), self._token)

    def _read(self) -> None:
        status = self._path.stat()
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            token = self._path.read_bytes().strip()
            if token:
                self._token = token
            self._stamp = stamp
