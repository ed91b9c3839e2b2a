"""API keys of the installation in a directory, as a mounted Secret is one: read again while the gateway runs."""

import asyncio
from pathlib import Path
from typing import Final

import structlog

from gateway.access.keys import ApiKeys
from gateway.http.exchange import Fields

POLL_SECONDS: Final = 10.0
"""Seconds between two looks at the directory."""
MOST_FILES: Final = 4096
"""Largest number of files that are read."""
MOST_BYTES: Final = 1 << 20
"""Bytes of the largest file, and of the largest Secret."""

log = structlog.get_logger(__name__)


class KeyDirectory:
    """Directory with a file for each caller: its name is that of the caller, and it contains the caller's keys.

    While the directory cannot be read, the keys that were read last stay in force.
    """

    def __init__(self, directory: Path, *, poll_seconds: float = POLL_SECONDS) -> None:
        """Read the directory.

        Raises:
            OSError: It cannot be read.
        """
        self._directory = directory
        self._poll_seconds = poll_seconds
        self._keys = ApiKeys({})
        self._unread: str | None = None
        """Why the directory could not be read last; None when it could."""
        self._apply(_read(directory))

    def caller(self, fields: Fields) -> str:
        """Return the name of the caller by the credentials in the fields of a request.

        Raises:
            errors.Unauthorized: There is no credential, or none that is known.
        """
        return self._keys.caller(fields)

    async def watch(self) -> None:
        """Read the directory again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                keys = await asyncio.to_thread(_read, self._directory)
            except OSError as exc:
                reason = exc.strerror or type(exc).__name__
                if reason != self._unread:
                    log.error("access_keys_unreadable", directory=str(self._directory), reason=reason)
                self._unread = reason
                continue
            except Exception as exc:  # whatever it is, later changes of keys have to count
                log.exception("access_keys_failed", error=type(exc).__name__)
                continue
            self._unread = None
            if not keys.is_same(self._keys):
                self._apply(keys)

    def _apply(self, keys: ApiKeys) -> None:
        self._keys = keys
        for name, reason in keys.problems.items():
            log.warning("access_key_unusable", name=name, reason=reason)
        log.info("access_keys_read", keys=len(keys))


def _read(directory: Path) -> ApiKeys:
    """Return the keys in the files of a directory; files whose names begin with a dot count as none.

    Raises:
        OSError: The directory or a file cannot be read.
    """
    entries: dict[str, bytes] = {}
    for path in sorted(directory.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        if len(entries) >= MOST_FILES:
            break
        with path.open("rb") as file:
            entries[path.name] = file.read(MOST_BYTES)
    return ApiKeys(entries)
