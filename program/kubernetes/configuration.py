"""The address of the API server and the identity of the program: of a kubeconfig, the environment, or its own pod."""

import asyncio
import logging
import os
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import yaml
from kubernetes.aio import config
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException
from kubernetes.aio.config.kube_config import FileOrData, KubeConfigLoader, KubeConfigMerger

from program.excerpts import cut
from program.files import in_yaml
from program.kubernetes import exec_plugin
from program.kubernetes.errors import ClusterError

# What the loader of the package warns of becomes a ClusterError with one sentence.
logging.getLogger("kubernetes.aio.config").setLevel(logging.CRITICAL)

REREAD_SECONDS: Final = 60.0
"""Seconds between two looks at the credentials of a kubeconfig; the package does the same with those of a pod."""
RENEWAL: Final = timedelta(minutes=5)
"""Time before the expiry of a credential plugin's token at which the plugin is asked for another one."""

UNUSABLE: Final = (
    ConfigException,
    OSError,
    yaml.YAMLError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
"""Exceptions that reading a configuration raises: the loader of the package checks little of what it reads."""
_COMPLAINTS: Final = (
    (r"Expected key (\S+) in (\S+)", r"\2 has no key \1"),
    (r"Expected (\S+) to be a list", r"\1 is no list"),
    (r"Expected all values in (\S+) list to have 'name' key", r"an entry of \1 has no name"),
    (r"Expected only one object with name (\S+) in (\S+) list", r"\2 has several entries named \1"),
    (r"Expected object with name (\S+) in (\S+) list", r"\2 has no entry named \1"),
)
"""Complaints of the package about a kubeconfig, and what is said instead."""


async def configuration(kubeconfig: Path | None) -> Configuration:
    """Return how the API server is reached: by `kubeconfig`, else as `KUBECONFIG` says, else as a pod of the cluster.

    The token of a pod is read again every minute, because the kubelet rotates it, and so is that of a kubeconfig.

    Raises:
        ClusterError: the configuration cannot be used, or there is neither a kubeconfig nor a pod.
    """
    settings = Configuration()
    variable = os.environ.get("KUBECONFIG")
    if kubeconfig is not None:
        await _load_file(settings, str(kubeconfig), f"--kubeconfig {kubeconfig}")
    elif variable:
        await _load_file(settings, variable, f"KUBECONFIG {variable}")
    else:
        try:
            config.load_incluster_config(client_configuration=settings)
        except (ConfigException, OSError, ValueError) as exc:
            raise ClusterError(f"the pod's service account cannot be used: {problem(exc)}.") from exc
    return settings


async def authorization(settings: Configuration) -> str:
    """Return the value of the header field Authorization, empty where there is none; it may have changed on disk.

    Raises:
        UNUSABLE: the credentials cannot be read.
    """
    value = await settings.get_api_key_with_prefix("BearerToken", "authorization")
    return (value or "").strip()  # a token file may end with a line feed


async def _load_file(settings: Configuration, files: str, name: str) -> None:
    """Read a kubeconfig, or several that are separated as in PATH, into `settings`.

    Raises:
        ClusterError: it cannot be used.
    """
    try:
        merged = KubeConfigMerger(files).config
        if merged is None:
            raise ConfigException("it is not there, or empty")
        await _Kubeconfig(config_dict=merged, config_base_path=None).load_and_set(settings)
    except UNUSABLE as exc:
        raise ClusterError(f"{name} cannot be used: {problem(exc)}.") from exc


class _Kubeconfig(KubeConfigLoader):
    """The package's reader of kubeconfigs, with tokens that are read again and plugins that are run as kubectl does."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)  # type: ignore[no-untyped-call]
        self._reading = asyncio.Lock()
        self._read_again_at = 0.0
        self._expires: datetime | None = None

    async def load_and_set(self, client_configuration: Configuration) -> None:
        """Write address and credentials into a configuration."""
        await super().load_and_set(client_configuration)  # type: ignore[no-untyped-call]
        if "token" in self.__dict__:
            self._read_again_at = time.monotonic() + self._seconds
            client_configuration.refresh_api_key_hook = self._refresh  # type: ignore[assignment]

    async def _refresh(self, settings: Configuration) -> None:
        """Read the credentials again when it is time."""
        async with self._reading:  # a plugin is not run once for each call that waits
            if time.monotonic() >= self._read_again_at:
                await self._load_authentication()  # type: ignore[no-untyped-call]
                settings.api_key["BearerToken"] = self.token
                self._read_again_at = time.monotonic() + self._seconds

    @property
    def _seconds(self) -> float:
        """Seconds until the credentials are looked at again; fewer for a token that expires soon."""
        if self._expires is None:
            return REREAD_SECONDS
        left = (self._expires - datetime.now(UTC)).total_seconds()
        return min(REREAD_SECONDS, max(1.0, left / 2))

    async def load_from_exec_plugin(self) -> bool:
        """Run the credential plugin, unless its last token is still good.

        Raises:
            ConfigException: it gives no credentials.
        """
        if "token" in self.__dict__ and (self._expires is None or self._expires - datetime.now(UTC) > RENEWAL):
            return True
        user: Any = self._user
        cluster: Any = self._cluster
        folder: str = self._get_base_path(cluster.path)  # type: ignore[no-untyped-call]
        status = await exec_plugin.run(user["exec"].value, folder, cluster.value)
        expiry = status.get("expirationTimestamp")
        self._expires = None if expiry is None else datetime.fromisoformat(str(expiry))
        if status.get("token"):
            self.token = f"Bearer {status['token']}"
        elif status.get("clientCertificateData") and status.get("clientKeyData"):
            self.cert_file, self.key_file = (
                FileOrData(status, None, data_key_name=key, base64_file_content=False).as_file()
                for key in ("clientCertificateData", "clientKeyData")
            )
        else:
            raise ConfigException("its credential plugin gives neither a token nor a certificate with its key")
        return True

    async def _refresh_oidc(self, _provider: Any) -> None:
        """Refuse to renew a token at its issuer: the package would send the client's secret over unverified TLS.

        Raises:
            ConfigException: always.
        """
        raise ConfigException(
            "the id-token of its auth-provider oidc is missing or has expired: write a new one, or use a credential"
            " plugin (exec)"
        )


def problem(exc: Exception) -> str:
    """Return why a configuration cannot be used, as a clause: what an exception of `UNUSABLE` is about."""
    match exc:
        case ConfigException():
            text = cut(str(exc)).removeprefix("Invalid kube-config file. ")
            found = ((re.fullmatch(pattern, text), words) for pattern, words in _COMPLAINTS)
            return next((match.expand(words) for match, words in found if match), text)
        case yaml.YAMLError():
            return f"it is not YAML{in_yaml(exc)}"
        case OSError(strerror=str(reason)):
            return reason if exc.filename is None else f"{exc.filename}: {reason}"
        case _:  # what Python says of a value that the loader did not expect
            return "an entry in it is missing or of the wrong type; `kubectl config view` shows what kubectl reads"
