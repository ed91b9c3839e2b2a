"""`python -m hooks release-finalizers`: let no object keep a finalizer of a Metacontroller that is about to go.

With a finalize hook Metacontroller puts a finalizer on every parent, and no other program takes it off: parents that
have one when Metacontroller or their CompositeController is removed can never be deleted. So before either:

1. objects that are being deleted get some time to be removed from the platform,
2. the finalize hook is taken off the CompositeControllers, upon which Metacontroller takes off the finalizers,
3. and where it does not, because it is not there or stands still, they are taken off here.

An administrator who runs this wants to remove something, possibly because it is broken. So each step has a deadline,
and a failure names the commands that do the step by hand.
"""

import argparse
import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from hooks.api.common import AUTHORIZATION_GROUP, DEPLOYMENT_GROUP, VERSION
from hooks.kube.objects import Object
from hooks.kube.unstructured import mapping, objects, text
from program.invocation import paragraphs, typed
from program.kubernetes.connection import connect
from program.kubernetes.errors import ApiError, ApiRefusal, ClusterError

if TYPE_CHECKING:
    from program.kubernetes.client import KubernetesClient

COMMAND: Final = "release-finalizers"
PREFIX: Final = "metacontroller.io/compositecontroller-"
"""First part of a finalizer of Metacontroller; the name of the CompositeController follows."""
PARENTS: Final = ((DEPLOYMENT_GROUP, "modeldeployments"), (AUTHORIZATION_GROUP, "policies"))
"""Group and resource of the objects that Metacontroller puts its finalizer on."""

GRACE_SECONDS: Final = 30.0
"""Seconds for objects that are being deleted to be removed from the platform."""
WAIT_SECONDS: Final = 120.0
"""Seconds for Metacontroller to take off the finalizers."""
STALLED_SECONDS: Final = 30.0
"""Seconds without any progress after which Metacontroller is no longer waited for."""
OWN_SECONDS: Final = 60.0
"""Seconds to take the finalizers off here."""
_LOOK_SECONDS: Final = 0.5
_CONNECT_SECONDS: Final = 3.0
_READ_SECONDS: Final = 10.0
_PAGE: Final = 100
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


class _CallFailed(Exception):
    """A call that the API server refuses or does not respond to; the message is a sentence with its reason."""


@dataclass(frozen=True, slots=True)
class HeldObject:
    """An object with a finalizer of one of the CompositeControllers."""

    resource: str
    """Resource as `plural.group`, as kubectl takes it."""
    namespace: str
    name: str
    finalizers: tuple[str, ...]
    """All finalizers of the object."""
    deleting: bool

    def __str__(self) -> str:
        return f"{self.resource}/{self.name} in namespace {self.namespace}"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its arguments to the command line."""
    parser = commands.add_parser(
        COMMAND,
        help="before an uninstallation, take Metacontroller's finalizers off",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=paragraphs(
            "Run this before Metacontroller or its CompositeControllers are removed. While a CompositeController has a"
            " finalize hook, Metacontroller keeps a finalizer on every ModelDeployment and every Policy. Without"
            " Metacontroller such an object can never be deleted.",
            "This command takes the finalize hook off the CompositeControllers and waits until Metacontroller has taken"
            " off the finalizers metacontroller.io/compositecontroller-NAME. Finalizers that are left it takes off"
            " itself. The objects, and what is registered of them on the platform, stay as they are.",
        ),
        epilog=paragraphs(
            "Exit status 0: no object has such a finalizer. 1: some still have one, and standard error has the commands"
            " that take it off. 2: there is no cluster to ask.",
            "It acts on the cluster that KUBECONFIG names, or that it runs in, and can be repeated. `helm uninstall`"
            " runs it by itself where the platform is used. For the chart's two CompositeControllers:",
            f"  {typed('hooks')} {COMMAND} beamlit-controller beamlit-controller-policies",
        ),
    )
    parser.add_argument("controllers", nargs="+", type=_name, metavar="NAME", help="name of a CompositeController")
    parser.add_argument(
        "--grace",
        type=_seconds,
        default=GRACE_SECONDS,
        metavar="SECONDS",
        help="seconds in which objects that are being deleted may be removed from the platform first (default:"
        " %(default)g)",
    )
    parser.add_argument(
        "--wait",
        type=_seconds,
        default=WAIT_SECONDS,
        metavar="SECONDS",
        help=f"seconds in which Metacontroller may take the finalizers off, {STALLED_SECONDS:g} of them without any"
        " progress (default: %(default)g)",
    )


def run(controllers: Sequence[str], *, grace: float, wait: float, strict_tls: bool) -> int:
    """Release the finalizers of some CompositeControllers; return the exit status.

    Args:
        controllers: names of the CompositeControllers.
        grace: seconds for objects that are being deleted.
        wait: seconds for Metacontroller.
        strict_tls: whether the certificate of the API server must follow RFC 5280 to the letter.
    """
    return asyncio.run(_run(controllers, grace, wait, strict_tls=strict_tls))


async def _run(controllers: Sequence[str], grace: float, wait: float, *, strict_tls: bool) -> int:
    try:
        client = await connect(None, strict_tls=strict_tls)
    except ClusterError as exc:
        return _refused(str(exc))
    if client is None:
        return _refused("There is no cluster to ask: run this in a pod, or set KUBECONFIG.")
    async with client:
        return await FinalizerRelease(client, controllers).run(grace, wait)


class FinalizerRelease:
    """One run of the command."""

    def __init__(self, client: "KubernetesClient", controllers: Sequence[str]) -> None:
        """Act on a cluster, for the CompositeControllers of these names."""
        self._client = client
        self._controllers = controllers
        self._finalizers = frozenset(f"{PREFIX}{name}" for name in controllers)
        self._problem = ""

    async def run(self, grace: float, wait: float) -> int:
        """Take all steps; return the exit status."""
        left: list[HeldObject] = []
        try:
            if leaving := [one for one in await self._held() if one.deleting]:
                _say(f"{_count(leaving)} being deleted: up to {grace:g} s for that.")
                await self._watch(lambda held: not any(one.deleting for one in held), grace, grace)
            for name in self._controllers:
                await self._unhook(name)
            left = await self._watch(lambda held: not held, wait, STALLED_SECONDS)
            if left:
                _say(f"Metacontroller leaves its finalizer on {_count(left)}: see that it runs. It is taken off here.")
                left = await self._take_off()
        except _CallFailed as exc:
            return self._by_hand(left, str(exc))
        if left:
            why = f" The API server says: {self._problem}." if self._problem else ""
            return self._by_hand(left, f"The finalizer comes back, or cannot be taken off.{why}")
        _say("No ModelDeployment and no Policy has a finalizer of Metacontroller: it may go.")
        return 0

    async def _watch(
        self, enough: Callable[[list[HeldObject]], bool], seconds: float, stalled: float
    ) -> list[HeldObject]:
        """Look until it is enough, the time is over or there is no progress; return the objects that are held then."""
        now = time.monotonic()
        end, quiet, fewest = now + seconds, now + stalled, sys.maxsize
        while True:
            held = await self._held()
            now = time.monotonic()
            if len(held) < fewest:
                fewest, quiet = len(held), now + stalled
            if enough(held) or now >= min(end, quiet):
                return held
            await asyncio.sleep(_LOOK_SECONDS)

    async def _unhook(self, name: str) -> None:
        """Take the finalize hook off a CompositeController, if it is there and has one."""
        path = f"/apis/metacontroller.k8s.io/v1alpha1/compositecontrollers/{quote(name, safe='')}"
        what = f"CompositeController {name}"
        item = await _called(f"get {what}", partial(self._get, path))
        if item is None:
            _say(f"{what} is not there.")
        elif "finalize" not in mapping(mapping(item, "spec"), "hooks"):
            _say(f"{what} has no finalize hook.")
        else:
            patch: list[Object] = [{"op": "remove", "path": "/spec/hooks/finalize"}]
            try:
                await _called(f"patch {what}", partial(self._patch, path, patch))
            except _Outdated:
                _say(f"{what}: its finalize hook was taken off by another client.")
            else:
                _say(f"{what}: its finalize hook is taken off.")

    async def _take_off(self) -> list[HeldObject]:
        """Take the finalizers off; return the objects that still have one after a while.

        An object that changes meanwhile is looked at again. A writer that was about to put a finalizer back has done so
        when there is none for a second time.
        """
        end, clear = time.monotonic() + OWN_SECONDS, 0
        while True:
            held = await self._held()
            clear = 0 if held else clear + 1
            if clear > 1 or time.monotonic() >= end:
                return held
            for one in held:
                if await self._release(one) and one.deleting:
                    _say(f"{one} was being deleted, and is let go: the platform may still have it.")
            await asyncio.sleep(_LOOK_SECONDS)

    async def _release(self, one: HeldObject) -> bool:
        """Take our finalizers off an object; return False when it has changed meanwhile, or is gone."""
        plural, _, group = one.resource.partition(".")
        kept = [name for name in one.finalizers if name not in self._finalizers]
        patch: list[Object] = [
            {"op": "test", "path": "/metadata/finalizers", "value": list(one.finalizers)},
            {"op": "replace", "path": "/metadata/finalizers", "value": kept},
        ]
        path = f"/apis/{group}/{VERSION}/namespaces/{quote(one.namespace, safe='')}/{plural}/{quote(one.name, safe='')}"
        try:
            return await _called(f"patch {one}", partial(self._patch, path, patch)) is not None
        except _Outdated as exc:
            self._problem = str(exc)
            return False

    async def _held(self) -> list[HeldObject]:
        """Return all objects that have a finalizer of one of the CompositeControllers."""
        result: list[HeldObject] = []
        for group, plural in PARENTS:
            resource, path, following = f"{plural}.{group}", f"/apis/{group}/{VERSION}/{plural}", ""
            while True:
                query = [("limit", str(_PAGE)), *([("continue", following)] if following else [])]
                page = await _called(f"list {resource}", partial(self._get, path, query))
                for item in objects(page or {}, "items"):
                    metadata = mapping(item, "metadata")
                    finalizers = tuple(map(str, metadata.get("finalizers") or ()))
                    if self._finalizers & set(finalizers):
                        deleting = "deletionTimestamp" in metadata
                        result.append(
                            HeldObject(resource, metadata["namespace"], metadata["name"], finalizers, deleting)
                        )
                following = text(mapping(page or {}, "metadata"), "continue")
                if not following:
                    break
        return result

    async def _get(self, path: str, query: Sequence[tuple[str, str]] = ()) -> Object:
        return await self._client.get(path, query, connect_seconds=_CONNECT_SECONDS, read_seconds=_READ_SECONDS)

    async def _patch(self, path: str, operations: Sequence[Object]) -> Object:
        return await self._client.patch(path, operations, connect_seconds=_CONNECT_SECONDS, read_seconds=_READ_SECONDS)

    def _by_hand(self, left: Sequence[HeldObject], problem: str) -> int:
        """Print a problem and the commands that do the rest; return the exit status."""
        lines = [problem, "By hand, as an administrator of the cluster:"]
        for name in self._controllers:
            patch = '[{"op": "remove", "path": "/spec/hooks/finalize"}]'
            lines.append(f"  kubectl patch compositecontroller {name} --type=json -p '{patch}'")
        if left:
            lines.append("and, where Metacontroller does not take its finalizer off within a minute:")
            lines += [f"  {self._command(one)}" for one in left[:_PAGE]]
        lines.append("Then `helm uninstall --no-hooks`.")
        print("\n".join(lines), file=sys.stderr)
        return 1

    def _command(self, one: HeldObject) -> str:
        kept = ", ".join(f'"{name}"' for name in one.finalizers if name not in self._finalizers)
        patch = f'{{"metadata": {{"finalizers": [{kept}]}}}}'
        return f"kubectl patch {one.resource} {one.name} -n {one.namespace} --type=merge -p '{patch}'"


class _Outdated(Exception):
    """A patch that does not fit the present object."""


async def _called(what: str, call: Callable[[], Awaitable[Object]]) -> Object | None:
    """Return what the API server responds, asked once more where it does not respond; None when there is no object.

    Args:
        what: the call, to follow "refuses to" in a message.
        call: makes the call.

    Raises:
        _CallFailed: the API server refuses, or does not respond.
        _Outdated: a patch does not fit.
    """
    for last in (False, True):
        try:
            return await call()
        except ApiRefusal as exc:
            if exc.status == 404:
                return None
            if exc.status in (409, 422):
                raise _Outdated(exc.explanation) from None
            if not last and (exc.status == 429 or exc.status >= 500):
                continue
            raise _CallFailed(f"The API server refuses to {what}: {exc.explanation}.") from None
        except ApiError as exc:
            if last:
                raise _CallFailed(f"Cannot {what}: {exc}.") from None
    raise AssertionError("the last try has its end")


def _count(held: Sequence[HeldObject]) -> str:
    return f"{len(held)} object{'s' if len(held) > 1 else ''}"


def _say(sentence: str) -> None:
    print(sentence, flush=True)


def _refused(sentence: str) -> int:
    print(f"hooks: {sentence}", file=sys.stderr)
    return 2


def _name(written: str) -> str:
    if not _NAME.fullmatch(written):
        raise argparse.ArgumentTypeError(f"{written!r} is not the name of an object")
    return written


def _seconds(written: str) -> float:
    """Return a number of seconds from 0 to 3600.

    Raises:
        ArgumentTypeError: it is something else.
    """
    try:
        seconds = float(written)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{written!r} is not a number of seconds from 0 to 3600")
    return seconds
