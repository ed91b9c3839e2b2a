"""Credentials in files, which a kubelet replaces while they are used."""

from pathlib import Path

from hooks import reasons
from hooks.clients.errors import CallFailed
from program.settings import SettingsError

Stamp = tuple[int, int, int]


class WatchedFile:
    """A file with a credential, read again when it changes."""

    def __init__(self, path: Path, setting: str) -> None:
        """
        Args:
            path: of the file.
            setting: what names it, for messages.

        Raises:
            SettingsError: it cannot be read.
        """
        self._path = path
        self._setting = setting
        self._stamp: Stamp | None = None
        self._content = b""
        try:
            self.content()
        except CallFailed as exc:
            raise SettingsError(str(exc)) from exc

    def changed(self, known: Stamp | None) -> Stamp | None:
        """What tells its present version from others; None while it is the one with that stamp, or cannot be seen."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        return None if stamp == known else stamp

    def content(self) -> bytes:
        """What it holds, without white space around.

        Raises:
            CallFailed: it cannot be read, or is empty.
        """
        stamp = self.changed(self._stamp)
        if stamp is None and self._stamp is not None:
            return self._content
        try:
            content = self._path.read_bytes().strip()
        except OSError as exc:
            raise CallFailed(reasons.FORBIDDEN, f"{self._setting} cannot be read: {exc.strerror}.") from exc
        if not content:
            raise CallFailed(reasons.FORBIDDEN, f"{self._setting} is empty.")
        self._stamp, self._content = stamp, content
        return content
