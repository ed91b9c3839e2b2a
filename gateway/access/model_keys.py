"""API keys of single models, in Secrets of their namespaces that are read by name.

A Secret is read when a request first needs it, and again after half a minute while requests go on with what was read
before. While it cannot be read, its last keys stay in force; one that is gone has none.
"""

import asyncio
from collections.abc import Collection
from typing import Final

from gateway import errors
from gateway.access.keys import ApiKeys
from gateway.credentials.secrets import Complaints, SecretReader, problem
from gateway.http.exchange import Fields

FRESH_SECONDS: Final = 30.0
"""Seconds after which a Secret is read again."""
PAUSE_SECONDS: Final = 1.0
"""Seconds between two reads of a Secret that could not be read yet."""
MOST_SECRETS: Final = 4096
"""Largest number of Secrets that are remembered."""
_NO_KEYS: Final = frozenset({"hosts", "clientSecret", "tls.key"})
"""Keys of the data of Secrets that are credentials for backends: their values are no API keys."""


class _Entry:
    """Keys of one Secret."""

    __slots__ = ("keys", "reading", "tried_at")

    def __init__(self) -> None:
        self.keys: ApiKeys | None = None
        """Keys as they were read last; None while the Secret could not be read."""
        self.tried_at = float("-inf")
        self.reading: asyncio.Task[None] | None = None


class ModelKeys:
    """API keys of all models that have some."""

    def __init__(
        self, reader: SecretReader, *, timeout_seconds: float = 5.0, fresh_seconds: float = FRESH_SECONDS
    ) -> None:
        """Read Secrets with `reader`, each for `timeout_seconds` at most, and again after `fresh_seconds`."""
        self._reader = reader
        self._timeout = timeout_seconds
        self._fresh = fresh_seconds
        self._loop = asyncio.get_running_loop()
        self._complaints = Complaints()
        self._entries: dict[tuple[str, str], _Entry] = {}

    async def caller(self, namespace: str, secrets: Collection[str], fields: Fields) -> str:
        """Return the name of the caller, `namespace/Secret/name`, by the credentials in the fields of a request.

        Args:
            namespace: Namespace of the model and its Secrets.
            secrets: Names of the Secrets with its keys.
            fields: Fields of the request.

        Raises:
            errors.Unauthorized: There is no credential, or none that is known.
            errors.AccessUnavailable: None is known, and a Secret could not be read yet.
        """
        refusal: errors.GatewayError = errors.Unauthorized()
        for name in secrets:
            keys = await self._keys(namespace, name)
            if keys is None:
                refusal = errors.AccessUnavailable(retry_after=1)
                continue
            try:
                return f"{namespace}/{name}/{keys.caller(fields)}"
            except errors.Unauthorized as exc:
                if not isinstance(refusal, errors.AccessUnavailable):
                    refusal = exc
        raise refusal

    async def close(self) -> None:
        """Cancel reads that are under way."""
        tasks = [entry.reading for entry in self._entries.values() if entry.reading is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keys(self, namespace: str, name: str) -> ApiKeys | None:
        """Return the keys in a Secret; None where it could not be read yet."""
        entry = self._entries.get((namespace, name))
        if entry is None:
            if len(self._entries) >= MOST_SECRETS:
                self._entries = {key: one for key, one in self._entries.items() if one.reading is not None}
            entry = self._entries[namespace, name] = _Entry()
        age = self._loop.time() - entry.tried_at
        if entry.reading is None and age >= (PAUSE_SECONDS if entry.keys is None else self._fresh):
            entry.reading = self._loop.create_task(self._read(namespace, name, entry))
        # A revoked key must not live on because there were no requests for a while.
        if entry.reading is not None and (entry.keys is None or age >= 2 * self._fresh):
            await asyncio.shield(
                entry.reading
            )  # a request that goes away must not take it from those that wait with it
        return entry.keys

    async def _read(self, namespace: str, name: str, entry: _Entry) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                data = await self._reader.secret(namespace, name)
        except LookupError as exc:
            entry.keys = ApiKeys({})
            self._complaints.write("Secret", namespace, name, str(exc))
        except OSError as exc:
            self._complaints.write("Secret", namespace, name, problem(exc))
        else:
            if not _NO_KEYS.isdisjoint(data):
                entry.keys = ApiKeys({})
                self._complaints.write("Secret", namespace, name, "it has credentials for a backend, and no API keys")
                return
            entry.keys = ApiKeys({key: value.encode() for key, value in data.items()})
            for key, reason in entry.keys.problems.items():
                self._complaints.write("Secret", namespace, name, f"{key}: {reason}")
        finally:
            entry.tried_at = self._loop.time()
            entry.reading = None
