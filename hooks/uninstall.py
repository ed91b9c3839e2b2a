"""`python -m hooks release-finalizers`: let no object keep a finalizer of a Metacontroller that is about to go.

With a finalize hook Metacontroller puts a finalizer on every parent, and nobody else takes it off: parents that have
one when it goes, or when their CompositeController goes, can never be deleted. So before either:

1. objects that are being deleted get some time to be removed from the platform,
2. the finalize hook is taken off the CompositeControllers, upon which Metacontroller takes off the finalizers,
3. and where it does not, because it is not there or stands still, they are taken off here.

Whoever runs this wants to get rid of something, possibly because it is broken. So every step has its end, and what
fails says by which commands it is done by hand.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from hooks.api.common import AUTHORIZATION_GROUP, DEPLOYMENT_GROUP, VERSION
from hooks.kube.objects import Object
from program.cluster import ClusterError, configuration, cut, line

COMMAND: Final = "release-finalizers"
PREFIX: Final = "metacontroller.io/compositecontroller-"
"""Of the finalizer; the name of the CompositeController follows."""
PARENTS: Final = ((DEPLOYMENT_GROUP, "modeldeployments"), (AUTHORIZATION_GROUP, "policies"))

GRACE_SECONDS: Final = 30.0
"""For what is being deleted."""
WAIT_SECONDS: Final = 120.0
"""For Metacontroller to take off the finalizers."""
STALLED_SECONDS: Final = 30.0
"""Without any progress in that it is no longer waited for."""
OWN_SECONDS: Final = 60.0
"""To take them off here."""
_LOOK_SECONDS: Final = 0.5
_CALL_SECONDS: Final = (3.0, 10.0)
"""To connect, and for the answer."""
_PAGE: Final = 100
_PATCH: Final = "application/json-patch+json"
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


class _Failed(Exception):
    """The API server does not do what is asked; the message says what it says."""


@dataclass(frozen=True, slots=True)
class Held:
    """An object with a finalizer of ours."""

    resource: str
    """`plural.group`, as kubectl takes it."""
    namespace: str
    name: str
    finalizers: tuple[str, ...]
    """All that it has."""
    deleting: bool

    def __str__(self) -> str:
        return f"{self.resource}/{self.name} in namespace {self.namespace}"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The command line."""
    parser = commands.add_parser(
        COMMAND,
        help="before an uninstallation, take Metacontroller's finalizers off",
        description="Take the finalize hook off CompositeControllers and wait until no ModelDeployment and no Policy"
        " has the finalizer metacontroller.io/compositecontroller-NAME. Metacontroller takes it off; where it does not,"
        " it is taken off here. Objects stay as they are otherwise, and what the platform has of them stays there.",
        epilog="Exit status 0: none has it. 1: some still have, and standard error has the commands that take it off."
        " 2: there is no cluster to ask. `helm uninstall` runs this by itself where the platform is used. It acts on"
        " the cluster it runs in, or that KUBECONFIG names, and may be repeated.",
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


def run(controllers: Sequence[str], *, grace: float, wait: float) -> int:
    """Do it; return the exit status."""
    try:
        settings = configuration(None)
    except ClusterError as exc:
        return _refused(str(exc))
    if settings is None:
        return _refused("There is no cluster to ask: run this in a pod, or set KUBECONFIG.")
    settings.retries = False
    with client.ApiClient(settings) as api:
        return Releasing(client.CustomObjectsApi(api), controllers).run(grace, wait)


class Releasing:
    """One run."""

    def __init__(self, api: "client.CustomObjectsApi", controllers: Sequence[str]) -> None:
        self._api = api
        self._controllers = controllers
        self._finalizers = frozenset(f"{PREFIX}{name}" for name in controllers)
        self._problem = ""

    def run(self, grace: float, wait: float) -> int:
        """All steps; returns the exit status."""
        left: list[Held] = []
        try:
            if leaving := [one for one in self._held() if one.deleting]:
                _say(f"{_count(leaving)} being deleted: up to {grace:g} s for that.")
                self._watch(lambda held: not any(one.deleting for one in held), grace, grace)
            for name in self._controllers:
                self._unhook(name)
            left = self._watch(lambda held: not held, wait, STALLED_SECONDS)
            if left:
                _say(f"Metacontroller leaves its finalizer on {_count(left)}: see that it runs. It is taken off here.")
                left = self._take_off()
        except _Failed as exc:
            return self._by_hand(left, str(exc))
        if left:
            why = f" The API server says: {self._problem}." if self._problem else ""
            return self._by_hand(left, f"The finalizer comes back, or cannot be taken off.{why}")
        _say("No ModelDeployment and no Policy has a finalizer of Metacontroller: it may go.")
        return 0

    def _watch(self, enough: Callable[[list[Held]], bool], seconds: float, stalled: float) -> list[Held]:
        """Look until it is enough, the time is over or nothing goes on; what is held then."""
        now = time.monotonic()
        end, quiet, fewest = now + seconds, now + stalled, sys.maxsize
        while True:
            held = self._held()
            now = time.monotonic()
            if len(held) < fewest:
                fewest, quiet = len(held), now + stalled
            if enough(held) or now >= min(end, quiet):
                return held
            time.sleep(_LOOK_SECONDS)

    def _unhook(self, name: str) -> None:
        """Take the finalize hook off a CompositeController, if it is there and has one."""
        where = ("metacontroller.k8s.io", "v1alpha1", "compositecontrollers", name)
        what = f"CompositeController {name}"
        found = _called(f"get {what}", self._api.get_cluster_custom_object, *where)
        if found is None:
            _say(f"{what} is not there.")
        elif "finalize" not in ((found.get("spec") or {}).get("hooks") or {}):
            _say(f"{what} has no finalize hook.")
        else:
            patch = [{"op": "remove", "path": "/spec/hooks/finalize"}]
            try:
                _called(f"patch {what}", self._api.patch_cluster_custom_object, *where, patch, _content_type=_PATCH)
            except _Outdated:
                _say(f"{what}: its finalize hook was taken off by somebody else.")
            else:
                _say(f"{what}: its finalize hook is taken off.")

    def _take_off(self) -> list[Held]:
        """Take the finalizers off; what still has one after a while. What changes meanwhile is looked at again, and who
        was about to put one back has done so when there is none for a second time.
        """
        end, clear = time.monotonic() + OWN_SECONDS, 0
        while True:
            held = self._held()
            clear = 0 if held else clear + 1
            if clear > 1 or time.monotonic() >= end:
                return held
            for one in held:
                if self._patch(one) and one.deleting:
                    _say(f"{one} was being deleted, and is let go: the platform may still have it.")
            time.sleep(_LOOK_SECONDS)

    def _patch(self, one: Held) -> bool:
        """Take ours off; False when the object is another by now, or gone."""
        plural, _, group = one.resource.partition(".")
        kept = [name for name in one.finalizers if name not in self._finalizers]
        patch: list[Object] = [
            {"op": "test", "path": "/metadata/finalizers", "value": list(one.finalizers)},
            {"op": "replace", "path": "/metadata/finalizers", "value": kept},
        ]
        where = (group, VERSION, one.namespace, plural, one.name)
        try:
            call = self._api.patch_namespaced_custom_object
            return _called(f"patch {one}", call, *where, patch, _content_type=_PATCH) is not None
        except _Outdated as exc:
            self._problem = str(exc)
            return False

    def _held(self) -> list[Held]:
        return list(self._each())

    def _each(self) -> Iterator[Held]:
        for group, plural in PARENTS:
            resource, following = f"{plural}.{group}", ""
            while True:
                page = _called(
                    f"list {resource}",
                    self._api.list_cluster_custom_object,
                    *(group, VERSION, plural),
                    limit=_PAGE,
                    _continue=following,
                )
                for item in (page or {}).get("items", ()):
                    metadata = item["metadata"]
                    finalizers = tuple(metadata.get("finalizers") or ())
                    if self._finalizers & set(finalizers):
                        deleting = "deletionTimestamp" in metadata
                        yield Held(resource, metadata["namespace"], metadata["name"], finalizers, deleting)
                following = ((page or {}).get("metadata") or {}).get("continue") or ""
                if not following:
                    break

    def _by_hand(self, left: Sequence[Held], problem: str) -> int:
        """Say what is to be done; the exit status."""
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

    def _command(self, one: Held) -> str:
        kept = ", ".join(f'"{name}"' for name in one.finalizers if name not in self._finalizers)
        patch = f'{{"metadata": {{"finalizers": [{kept}]}}}}'
        return f"kubectl patch {one.resource} {one.name} -n {one.namespace} --type=merge -p '{patch}'"


class _Outdated(Exception):
    """A patch does not fit what is there now."""


def _called(what: str, call: Callable[..., Any], *arguments: Any, **more: Any) -> Object | None:
    """What the API server answers, asked once more when it does not answer at all; None when there is no such thing.

    Raises:
        _Failed: it refuses, or does not answer.
        _Outdated: a patch does not fit.
    """
    for last in (False, True):
        try:
            found: Object = call(*arguments, _request_timeout=_CALL_SECONDS, **more)
        except ApiException as exc:
            if exc.status == 404:
                return None
            if exc.status in (409, 422):
                raise _Outdated(_said(exc)) from None
            if not last and (exc.status == 429 or exc.status >= 500):
                continue
            raise _Failed(f"The API server refuses to {what}: {_said(exc)}.") from None
        except (HTTPError, OSError) as exc:
            if last:
                raise _Failed(f"The API server does not answer: {line(exc)}.") from None
        else:
            return found
    raise AssertionError("the last try has its end")


def _said(exc: ApiException) -> str:
    """What the API server says in a refusal, in one line."""
    try:
        return cut(str(json.loads(exc.body or "")["message"]))
    except (KeyError, TypeError, ValueError):
        return line(exc)


def _count(held: Sequence[Held]) -> str:
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
    """From nothing to an hour."""
    try:
        seconds = float(written)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{written!r} is not a number of seconds from 0 to 3600")
    return seconds
