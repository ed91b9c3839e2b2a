"""Runs the credential plugin of a kubeconfig, as client-go does.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

import asyncio
import contextlib
import os
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from typing import Any, Final

import orjson
from kubernetes.aio.config import ConfigException

RUN_SECONDS: Final = 60.0
"""Seconds a credential plugin may run."""
_EXTENSION: Final = "client.authentication.k8s.io/exec"


async def run(plugin: Mapping[str, Any], folder: str, cluster: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the status of the ExecCredential that a plugin prints.

    Its standard error is ours, and what it prints is in no message.

    Args:
        plugin: the field `exec` of a user.
        folder: of the kubeconfig, in which the plugin runs.
        cluster: entry of the kubeconfig, given to a plugin that asks for it by `provideClusterInfo`.

    Raises:
        ConfigException: the plugin fails, or prints something else.
        OSError: it cannot be started.
    """
    version = plugin.get("apiVersion")
    environment = {str(item["name"]): str(item["value"]) for item in plugin.get("env") or ()}
    spec: dict[str, Any] = {"interactive": False}
    if plugin.get("provideClusterInfo"):
        spec["cluster"] = _cluster_info(cluster)
    request = {"apiVersion": version, "kind": "ExecCredential", "spec": spec}
    process = await asyncio.create_subprocess_exec(
        str(plugin["command"]),
        *map(str, plugin.get("args") or ()),
        stdin=DEVNULL,
        stdout=PIPE,
        cwd=folder or None,
        env={**os.environ, **environment, "KUBERNETES_EXEC_INFO": orjson.dumps(request).decode()},
    )
    output = await _output(process)
    if process.returncode:
        raise ConfigException(f"its credential plugin ends with exit code {process.returncode}")
    try:
        credential = orjson.loads(output)
    except orjson.JSONDecodeError:
        raise ConfigException("its credential plugin prints something that is not JSON") from None
    status = credential.get("status") if isinstance(credential, dict) else None
    if not isinstance(status, dict) or credential.get("kind") != "ExecCredential":
        raise ConfigException("its credential plugin prints no ExecCredential with a status")
    if credential.get("apiVersion") != version:
        raise ConfigException(f"its credential plugin does not speak {version}")
    return status


async def _output(process: Process) -> bytes:
    """Return what a process prints until its end, and let none stay behind.

    Raises:
        ConfigException: it takes too long.
    """
    try:
        async with asyncio.timeout(RUN_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        raise ConfigException(f"its credential plugin does not end within {RUN_SECONDS:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()
    return output


def _cluster_info(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cluster as plugins expect it, with its extension for them as `config`."""
    info = {key: value for key, value in cluster.items() if key != "extensions"}
    for extension in cluster.get("extensions") or ():
        if extension.get("name") == _EXTENSION:
            info["config"] = extension.get("extension")
    return info
