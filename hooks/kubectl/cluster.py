"""Calls to the API server, made by kubectl, and what is wrong where one fails."""

import asyncio
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol, cast
from urllib.parse import quote, urlencode

import orjson

from hooks.kube.objects import Object

Query = Sequence[tuple[str, str]]
"""Parameters of a URL, not encoded yet."""

_FORWARD_SECONDS: Final = 30.0
"""Seconds until a port has to be forwarded."""
_FORWARDED: Final = re.compile(r"Forwarding from 127\.0\.0\.1:([0-9]+) -> ")
"""Regular expression for the line of kubectl that says which port of this machine it forwards."""
_CALLS: Final = 8
"""Calls at the same time; each is a process."""
_NO_CLUSTER: Final = re.compile(r"\Athe connection to the server localhost:8080 was refused", re.IGNORECASE)
"""What kubectl prints without a kubeconfig: it takes an address for granted at which nothing listens."""
_SERVER_ERROR: Final = re.compile(r"Error from server(?: \((?P<reason>\w+)\))?: (?P<message>.*)", re.DOTALL)
_FORBIDDEN: Final = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]*)")?'
)
"""Regular expression for a refusal of RBAC, as the API server words it."""


class ClusterFailed(Exception):
    """A call that failed. The message is a sentence for the user who typed the command."""


class Refused(ClusterFailed):
    """A call that the API server refused."""

    def __init__(self, reason: str, message: str) -> None:
        """Describe the refusal.

        Args:
            reason: reason of the API server as one word, such as `NotFound`; empty where it gives none.
            message: what the API server says.
        """
        self.reason = reason
        self.unserved = reason == "NotFound" and "could not find the requested resource" in message
        """Whether the API server does not know the kind that it was asked for."""
        super().__init__(
            "This cluster does not know the kind that it was asked for: install the chart, or see that the context is"
            " the right one (`kubectl config current-context`)."
            if self.unserved
            else missing_right(message) or f"The API server refuses: {message.rstrip('.')}."
        )


class Cluster(Protocol):
    """A cluster that can be asked."""

    async def raw(self, path: str, query: Query = ()) -> bytes:
        """Return what the API server responds to a GET.

        Raises:
            ClusterFailed: it does not respond, or with an error.
        """

    def forward(self, namespace: str, pod: str, port: int) -> AbstractAsyncContextManager[int]:
        """Forward a port of this machine to a port of a pod for the block, and give the port of this machine.

        Raises:
            ClusterFailed: it cannot be forwarded.
        """

    async def patch(self, resource: str, name: str, namespace: str, change: Object) -> None:
        """Apply a JSON Merge Patch (RFC 7396) to an object.

        Raises:
            ClusterFailed: it was not applied.
        """


class Kubectl:
    """The cluster of a kubeconfig, asked by kubectl."""

    def __init__(self, program: str, flags: Sequence[str] = ()) -> None:
        """Ask nothing yet.

        Args:
            program: path of kubectl.
            flags: flags for each call, such as `--context=prod`.
        """
        self._program = program
        self._flags = tuple(flags)
        self._slots = asyncio.Semaphore(_CALLS)

    @classmethod
    def found(cls, flags: Sequence[str] = ()) -> "Kubectl":
        """Return the cluster, asked by the kubectl of the search path.

        Raises:
            ClusterFailed: there is none.
        """
        program = shutil.which("kubectl")
        if program is None:
            raise ClusterFailed(
                "kubectl is not on the search path (PATH): install it, or start this as a plugin of it."
            )
        return cls(program, flags)

    async def raw(self, path: str, query: Query = ()) -> bytes:
        """Return what the API server responds to a GET. Raise as `Cluster.raw` does."""
        return await self._run("get", "--raw", f"{path}?{urlencode(query)}" if query else path)

    @asynccontextmanager
    async def forward(self, namespace: str, pod: str, port: int) -> AsyncIterator[int]:
        """Forward a port of this machine to a pod for the block. Raise as `Cluster.forward` does."""
        words = ("port-forward", f"--namespace={namespace}", "--address=127.0.0.1", f"pod/{pod}", f":{port}")
        process = await asyncio.create_subprocess_exec(
            self._program, *self._flags, *words, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
        )
        output, printed = cast("asyncio.StreamReader", process.stdout), ""
        try:
            async with asyncio.timeout(_FORWARD_SECONDS):
                while (found := _FORWARDED.search(printed)) is None:
                    line = await output.readline()
                    if not line:
                        raise failure(printed)
                    printed += line.decode("utf-8", "replace")
            yield int(found[1])
        except TimeoutError:
            raise ClusterFailed(f"kubectl does not forward a port to pod {pod} in time.") from None
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def patch(self, resource: str, name: str, namespace: str, change: Object) -> None:
        """Apply a JSON Merge Patch to an object. Raise as `Cluster.patch` does."""
        words = ("patch", resource, name, f"--namespace={namespace}", "--type=merge", "--output=name")
        await self._run(*words, "--field-manager=kubectl-beamlit", "--patch", orjson.dumps(change).decode())

    async def namespace(self) -> str:
        """Return the namespace of the context, or `default` where it has none, or there is no context as in a pod."""
        try:
            found = await self._run("config", "view", "--minify", "--output=jsonpath={..namespace}")
        except ClusterFailed:
            return "default"  # where the context is wrong, the next call says so
        return found.decode().strip() or "default"

    async def _run(self, *words: str) -> bytes:
        """Return what a command prints.

        Raises:
            ClusterFailed: it fails.
        """
        async with self._slots:
            process = await asyncio.create_subprocess_exec(
                self._program, *self._flags, *words, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
            )
            try:
                output, problem = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode:
            raise failure(problem.decode("utf-8", "replace"))
        return output


def failure(problem: str) -> ClusterFailed:
    """Return the error that kubectl has printed."""
    found = _SERVER_ERROR.search(problem)
    if found is not None:
        return Refused(found["reason"] or "", found["message"].strip())
    words = problem.strip().splitlines()
    # Before its last line kubectl may print warnings, and each failed try to list the APIs.
    said = words[-1].removeprefix("error: ").rstrip(".") if words else "it failed"
    if _NO_CLUSTER.search(said):
        said += " This is what kubectl asks where it has no cluster: set KUBECONFIG, or give --kubeconfig or --context."
    return ClusterFailed(f"kubectl: {said}" if said.endswith(("?", ".")) else f"kubectl: {said}.")


def missing_right(message: str) -> str:
    """Return a sentence about the right that is missing, where a message of the API server is about one; else empty."""
    found = _FORBIDDEN.search(message)
    if found is None:
        return ""
    resource, slash, part = found["resource"].partition("/")
    kind = f"{resource}.{found['group']}" if found["group"] else resource
    place = f" in namespace {found['namespace']}" if found["namespace"] else " in all namespaces"
    check = f"kubectl auth can-i {found['verb']} {kind}{f' --subresource={part}' if part else ''}"
    check += f" -n {found['namespace']}" if found["namespace"] else " --all-namespaces"
    return (
        f"{found['user']} lacks the right to {found['verb']} {kind}{slash}{part}{place}: `{check}` says so. Ask an"
        " administrator for it."
    )


def path(*segments: str) -> str:
    """Return the path of these segments, encoded."""
    return "".join(f"/{quote(segment, safe=':')}" for segment in segments)


def parsed(content: bytes) -> Object:
    """Return the JSON object that the API server responded with.

    Raises:
        ClusterFailed: it is none.
    """
    try:
        found: Any = orjson.loads(content)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise ClusterFailed("The API server responds with something that is no JSON object.")
    return found


async def get(cluster: Cluster, where: str, query: Query = ()) -> Object:
    """Return the object at a path. Raise as `Cluster.raw` does."""
    return parsed(await cluster.raw(where, query))


async def get_if_there(cluster: Cluster, where: str, query: Query = ()) -> Object | None:
    """Return the object at a path, or None where there is none. Raise as `Cluster.raw` does."""
    try:
        return await get(cluster, where, query)
    except Refused as exc:
        if exc.reason != "NotFound" or exc.unserved:
            raise
        return None
