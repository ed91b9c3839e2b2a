"""API keys of the installation in a directory, as a mounted Secret is one: read again while the gateway runs."""

from functools import partial
from pathlib import Path
from typing import Final

import structlog

from gateway.access.keys import ApiKeys
from gateway.access.watching import MOST_BYTES, POLL_SECONDS, watch

MOST_FILES: Final = 4096
"""Largest number of files that are read."""

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
        self._apply(_read(directory))

    def find(self, digest: bytes) -> str | None:
        """Return the name of the caller whose key has this SHA-256 digest; None where no key has it."""
        return self._keys.find(digest)

    async def watch(self) -> None:
        """Read the directory again and again, until cancelled."""
        await watch(
            partial(_read, self._directory),
            self._change,
            seconds=self._poll_seconds,
            unusable="access_keys_unreadable",
            failed="access_keys_failed",
            directory=str(self._directory),
        )

    def _change(self, keys: ApiKeys) -> None:
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
