"""API keys of single models, in Secrets of their namespaces that are read by name.

While such a Secret cannot be read, its last keys stay in force; one that is gone has none.
"""

from collections.abc import Collection, Mapping
from typing import Final

from gateway import errors
from gateway.access.keys import ApiKeys
from gateway.credentials.secrets import Complaints, SecretCache, SecretReader
from gateway.http.exchange import Fields

_NO_KEYS: Final = frozenset({"hosts", "clientSecret", "tls.key"})
"""Keys of the data of Secrets that are credentials for backends: their values are no API keys."""


class _Keys:
    """Keys of one Secret."""

    __slots__ = ("_complaints", "_name", "_namespace", "keys")

    def __init__(self, namespace: str, name: str, complaints: Complaints) -> None:
        self.keys: ApiKeys | None = None
        """Keys as they were read last; None while the Secret could not be read."""
        self._namespace, self._name = namespace, name
        self._complaints = complaints

    @property
    def is_known(self) -> bool:
        """Whether the Secret was read."""
        return self.keys is not None

    def take(self, data: Mapping[str, str]) -> None:
        """Take the keys that the Secret has now."""
        if not _NO_KEYS.isdisjoint(data):
            self.lose()
            self._complain("it has credentials for a backend, and no API keys")
            return
        self.keys = ApiKeys({key: value.encode() for key, value in data.items()})
        for key, reason in self.keys.problems.items():
            self._complain(f"{key}: {reason}")

    def lose(self) -> None:
        """Take no key for valid any more."""
        self.keys = ApiKeys({})

    def _complain(self, reason: str) -> None:
        self._complaints.write("Secret", self._namespace, self._name, reason)


class ModelKeys:
    """API keys of all models that have some."""

    def __init__(
        self, reader: SecretReader, *, timeout_seconds: float = 5.0, fresh_seconds: float | None = None
    ) -> None:
        """Read Secrets with `reader`, each for `timeout_seconds` at most, and again after `fresh_seconds`."""
        complaints = Complaints()
        self._secrets: SecretCache[_Keys] = SecretCache(
            reader,
            complaints,
            lambda namespace, name: _Keys(namespace, name, complaints),
            timeout_seconds=timeout_seconds,
            fresh_seconds=fresh_seconds,
        )

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
            keys = (await self._secrets.read(namespace, name)).keys
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
        await self._secrets.close()
