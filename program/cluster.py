"""Which cluster a program asks, and as whom: a kubeconfig, the environment, or the pod it runs in."""

import os
from pathlib import Path
from typing import Final

import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

_REASON_LENGTH: Final = 240


class ClusterError(Exception):
    """There is no API server to be asked. The message is one sentence for the administrator."""


def configuration(kubeconfig: Path | None) -> client.Configuration | None:
    """The cluster of a kubeconfig, else of the one `KUBECONFIG` names, else the one the process runs in, else None.

    In a cluster the token is read again every minute, as the kubelet rotates it.

    Raises:
        ClusterError: it cannot be used.
    """
    settings = client.Configuration()
    settings.proxy = None  # a kubeconfig may name one; the environment may not
    variable = os.environ.get("KUBECONFIG")
    if kubeconfig is not None:
        _load_file(settings, str(kubeconfig), f"--kubeconfig {kubeconfig}")
    elif variable:
        _load_file(settings, variable, f"KUBECONFIG {variable}")
    elif os.environ.get("KUBERNETES_SERVICE_HOST"):
        try:
            config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        except (ConfigException, OSError, ValueError) as exc:
            raise ClusterError(f"the pod's service account cannot be used: {line(exc)}.") from exc
    else:
        return None
    return settings


def line(exc: BaseException) -> str:
    """An error in one short line."""
    reason = getattr(exc, "reason", None) if isinstance(exc, ApiException) else None
    return cut(str(reason or exc) or type(exc).__name__)


def cut(text: str) -> str:
    """What somebody else says, in one short line."""
    return " ".join(text.split())[:_REASON_LENGTH].rstrip(".")


def _load_file(settings: client.Configuration, files: str, name: str) -> None:
    """Read a kubeconfig, or several that are separated as in PATH.

    Raises:
        ClusterError: it cannot be used.
    """
    try:
        config.load_kube_config(files, client_configuration=settings)  # type: ignore[no-untyped-call]
    except (
        ConfigException,
        OSError,
        yaml.YAMLError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as exc:
        # The loader checks little of what it reads.
        raise ClusterError(f"{name} cannot be used: {line(exc)}.") from exc
