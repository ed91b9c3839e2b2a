"""Reads the object that a route refers to, and decides whether the route may use it."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.api.v1alpha1 import CREDENTIAL_LABEL
from gateway.routes.sources import RouteSource

_LABEL: Final = f"label:{CREDENTIAL_LABEL}"
_INLINE: Final = ("clientId", "clientSecret", "tokenUrl", "scope", "tokenAuth", "audience", "resource")
"""Keys of a Secret that the oauthConfig of a ModelDeployment may have."""


class Secrets:
    """Credentials that routes refer to, read from their source."""

    def __init__(self, source: RouteSource) -> None:
        """Read from `source`."""
        self._source = source

    async def secret(self, namespace: str, name: str) -> Mapping[str, str]:
        """Return the decoded data of a Secret with the label `gateway.beamlit.com/credential`.

        Raises:
            LookupError: the Secret does not exist, or does not carry the label.
            OSError: the Secret cannot be read now.
        """
        content = await self._source.secret(namespace, name)
        if content is None:
            raise LookupError(f"Secret {namespace}/{name} does not exist")
        if _LABEL not in content:
            raise LookupError(f"Secret {namespace}/{name} does not carry the label {CREDENTIAL_LABEL}")
        return {key: value for key, value in content.items() if not key.startswith("label:")}

    async def inline(self, namespace: str, model_deployment: str) -> Mapping[str, str]:
        """Return the credentials in a ModelDeployment, with the keys of a Secret; `hosts` is its own remote host.

        `tls.caBundle` of the remote backend is trusted for the token endpoint too: one author wrote both.

        Raises:
            LookupError: the ModelDeployment does not exist, or has no credentials.
            OSError: the ModelDeployment cannot be read now.
        """
        item = await self._source.model_deployment(namespace, model_deployment)
        remote = _at(item, "spec", "offloadingConfig", "remoteBackend")
        oauth = _at(remote, "authConfig", "oauthConfig")
        host = remote.get("host") if remote else None
        if not oauth or not isinstance(host, str):
            raise LookupError(f"ModelDeployment {namespace}/{model_deployment} has no credentials")
        content = {key: str(oauth[key]) for key in _INLINE if oauth.get(key) and isinstance(oauth[key], str | int)}
        bundle = (_at(remote, "tls") or {}).get("caBundle")
        return content | {"hosts": host} | ({"tls.caBundle": bundle} if bundle and isinstance(bundle, str) else {})


def _at(value: Mapping[str, Any] | None, *path: str) -> Mapping[str, Any] | None:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else None
