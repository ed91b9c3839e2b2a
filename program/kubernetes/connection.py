"""Connects a program to its API server, and loads the official package for it.

The package and the libraries below it take a third of a second and some 15 MB. They are imported here, once an API
server is to be asked, and nowhere else at the start of a program: help, a gateway with routes in a directory and the
offline commands of hooks need none of them. Other modules import `KubernetesClient` for its type alone.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from program.kubernetes.client import KubernetesClient

CONNECTIONS: Final = 512
"""Connections at the same time: one for each watch, and some for other calls."""


async def connect(
    kubeconfig: Path | None, *, connections: int = CONNECTIONS, strict_tls: bool = False
) -> "KubernetesClient | None":
    """Return a client for the cluster that `program.kubernetes.configuration` names; None when there is none.

    The API server is not asked yet.

    Args:
        kubeconfig: file that says how the API server is reached, in place of the environment.
        connections: connections that may be open at the same time; a watch holds one.
        strict_tls: whether certificates are verified as `tls.strict` asks.

    Raises:
        ClusterError: the configuration cannot be used.
    """
    if kubeconfig is None and not os.environ.get("KUBECONFIG") and not os.environ.get("KUBERNETES_SERVICE_HOST"):
        return None
    from program.kubernetes.client import KubernetesClient  # the one import that loads the package
    from program.kubernetes.configuration import configuration

    return KubernetesClient(await configuration(kubeconfig), connections, strict_tls=strict_tls)
