"""Reads the one object a route refers to, and judges whether it may be used at all."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.api.v1alpha1 import CREDENTIAL_LABEL
from gateway.routes.sources import RouteSource

_LABEL: Final = f"label:{CREDENTIAL_LABEL}"
_INLINE: Final = ("clientId", "clientSecret", "tokenUrl", "scope", "tokenAuth", "audience", "resource")
"""Keys of a Secret that a ModelDeployment may have in its oauthConfig."""


class Secrets:
    """Credentials by reference, for `credentials.Credentials`."""

    def __init__(self, reader: RouteSource) -> None:
        self._reader = reader

    async def secret(self, namespace: str, name: str) -> Mapping[str, str]:
        """The decoded data of a Secret with the label `gateway.beamlit.com/credential`.

        Raises:
            LookupError: there is none, or it does not carry the label.
        """
        found = await self._reader.secret(namespace, name)
        if found is None:
            raise LookupError(f"Secret {namespace}/{name} does not exist")
        if _LABEL not in found:
            raise LookupError(f"Secret {namespace}/{name} does not carry the label {CREDENTIAL_LABEL}")
        return {key: value for key, value in found.items() if not key.startswith("label:")}

    async def inline(self, namespace: str, model_deployment: str) -> Mapping[str, str]:
        """Return the credentials in a ModelDeployment, with the keys of a Secret; `hosts` is its own remote host.

        `tls.caBundle` of the remote backend is trusted for the token endpoint too: one author wrote both.

        Raises:
            LookupError: there are none.
        """
        found = await self._reader.model_deployment(namespace, model_deployment)
        remote = _at(found, "spec", "offloadingConfig", "remoteBackend")
        oauth = _at(remote, "authConfig", "oauthConfig")
        host = remote.get("host") if remote else None
        if not oauth or not isinstance(host, str):
            raise LookupError(f"ModelDeployment {namespace}/{model_deployment} has no credentials")
        content = {key: str(oauth[key]) for key in _INLINE if oauth.get(key)}
        bundle = (_at(remote, "tls") or {}).get("caBundle")
        return content | {"hosts": host} | ({"tls.caBundle": str(bundle)} if bundle else {})


def _at(value: Mapping[str, Any] | None, *path: str) -> Mapping[str, Any] | None:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else None
