"""Carries out on the platform what the core decided, within a second, and says what came of it; never raises.

Whoever reaches hooks could make up a request. So before anything is written or removed, the object itself is read from
the API server: it must be there with the same uid, specification, labels and memory, and for a removal that belongs to
its deletion it must be on its way out. And what is there on the platform must be its own (`hooks.platform`).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import structlog

from hooks import reasons
from hooks.api.common import AUTHORIZATION_GROUP, DEPLOYMENT_GROUP, VERSION
from hooks.clients.apiserver import ApiServer, Group, path
from hooks.clients.errors import Api, CallFailed
from hooks.kube.objects import Object
from hooks.kube.unstructured import mapping, text, texts
from hooks.platform.beamlit.client import LATE, Beamlit, facts
from hooks.platform.beamlit.errors import Busy, PlatformError, Taken, Unasked
from hooks.platform.ownership import Claim, Owner, claim, keeps
from hooks.platform.rechecks import Rechecks
from hooks.platform.registration import (
    Done,
    Gone,
    Outcome,
    PlatformTask,
    Postponed,
    Registration,
    RegistrationFailed,
    Removed,
    applied,
    settle,
)
from hooks.platform.state import DesiredObject
from hooks.protocol import PARENT_KIND, POLICY_KIND, FinalizeResponse, SyncResponse
from program.cluster import cut

CALL_SECONDS: Final = 0.8
"""For all that is done in one answer: with what comes before and after it, less than a second."""
_OBJECT_BYTES: Final = 4 << 20

_API: Final = Api("objects", "The API server")
_GROUPS: Final[Mapping[str, Group]] = {
    PARENT_KIND: Group(_API, "modeldeployments", DEPLOYMENT_GROUP, "the CustomResourceDefinitions of the chart"),
    POLICY_KIND: Group(_API, "policies", AUTHORIZATION_GROUP, "the CustomResourceDefinitions of the chart"),
}

log = structlog.get_logger(__name__)


class _Late(Exception):
    """The time was over."""


class Registrar:
    """What is done on the platform on behalf of objects."""

    def __init__(self, beamlit: Beamlit, api: ApiServer) -> None:
        """Whoever opened the two closes them."""
        self._beamlit = beamlit
        self._api = api
        self._checks = Rechecks()

    @property
    def account(self) -> str:
        """Who we are on the platform."""
        return self._beamlit.account

    def is_check_due(self, item: Object, now: datetime) -> bool:
        """Whether it is time to look whether an object is still registered that was."""
        return self._checks.is_due(text(mapping(item, "metadata"), "uid"), now)

    def forget(self, task: PlatformTask) -> None:
        """The object goes."""
        self._checks.forget(task.parent.uid)

    async def carry_out(self, task: PlatformTask) -> Outcome:
        """Do it, and say what came of it."""
        progress = _Progress()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                outcome = await self._carried_out(task, progress)
        except TimeoutError:
            outcome = RegistrationFailed(reasons.UNREACHABLE, progress.late, sent=progress.writing)
        except CallFailed as exc:
            outcome = RegistrationFailed(reasons.UNREACHABLE, exc.unread.message)
        except Busy:
            outcome = Postponed()
        except PlatformError as exc:
            sent = exc.sent and progress.writing
            outcome = RegistrationFailed(
                exc.reason, str(exc), tried=not isinstance(exc, Unasked), sent=sent, retry_after=exc.retry_after
            )
        except Exception:
            log.exception("platform_failed", **_about(task))
            outcome = RegistrationFailed(
                reasons.UNREACHABLE, "Hooks failed at it: their log says why.", sent=progress.writing
            )
        self._tell(task, outcome)
        return outcome

    async def _carried_out(self, task: PlatformTask, progress: "_Progress") -> Outcome:
        parent = task.parent
        progress.late = "The API server does not answer in time."
        item = await self._read(task.kind, parent.namespace, parent.name)
        if item is None or text(mapping(item, "metadata"), "uid") != parent.uid:
            return Gone()
        if not _is_as_requested(item, task):
            return Postponed()
        progress.late = LATE
        if task.removal is None and task.wanted is not None:
            return await self._register(task, task.wanted, item, progress)
        return await self._remove(task, progress)

    async def _register(
        self, task: PlatformTask, wanted: DesiredObject, item: Object, progress: "_Progress"
    ) -> Outcome:
        found = await self._beamlit.find(wanted.thing)
        if found is None:
            progress.writing = True
            try:
                return Done(await self._beamlit.create(wanted.thing, wanted.body))
            except Taken as exc:
                return RegistrationFailed(
                    exc.reason, f"The platform got a {wanted.thing} from elsewhere at the same time."
                )
        lost = task.memory.thing == wanted.thing and not task.memory.hash
        whose = claim(found, task.parent, lost=lost, wanted=wanted)
        if whose is Claim.SAME:
            return Done({}, owned=False, changed=False)
        if whose is Claim.FOREIGN:
            return RegistrationFailed(
                reasons.CONFLICT,
                f"The platform has a {wanted.thing} already, which was not made for this object: remove or rename it"
                " there, or choose another name here.",
                foreign=True,
            )
        if isinstance(whose, Owner):
            other = await self._owner(whose)
            if other is None or keeps(whose, other, item, wanted.thing):
                return _conflict(wanted, whose)
        if task.check and whose is Claim.OURS:
            return Done(facts(found), changed=False)
        progress.writing = True
        return Done(await self._beamlit.replace(wanted.thing, wanted.body))

    async def _owner(self, owner: Owner) -> Object | None:
        """The owner of a model, empty when it is no more; None when that is not known."""
        try:
            return await self._read(PARENT_KIND, owner.namespace, owner.name) or {}
        except CallFailed:  # its namespace is not managed by us, perhaps by another installation
            return None

    async def _remove(self, task: PlatformTask, progress: "_Progress") -> Outcome:
        thing = task.removal
        found = None if thing is None else await self._beamlit.find(thing)
        if thing is None or found is None:
            return Removed()
        lost = not task.memory.hash
        if claim(found, task.parent, lost=lost, wanted=task.expected) is Claim.OURS:
            progress.writing = True
            await self._beamlit.delete(thing)
        else:
            log.info("platform_left_to_others", thing=str(thing), **_about(task))
        return Removed()

    async def _read(self, kind: str, namespace: str, name: str) -> Object | None:
        group = _GROUPS[kind]
        where = path("apis", group.name, VERSION, "namespaces", namespace, group.resource, name)
        return await self._api.get(group, where, (), _OBJECT_BYTES)

    def _tell(self, task: PlatformTask, outcome: Outcome) -> None:
        done = "removed" if task.removal is not None else "registered"
        match outcome:
            case Done(changed=False):
                log.debug("platform_has_still", **_about(task))
            case Done() | Removed():
                log.info("platform_has", done=done, **_about(task))
            case RegistrationFailed(reason, message):
                log.warning("platform_has_not", undone=done, reason=reason, message=message, **_about(task))
            case _:
                log.debug("platform_not_asked", why=type(outcome).__name__, **_about(task))


async def registered(
    registrar: Registrar | None, response: SyncResponse, task: PlatformTask | None, *, now: datetime
) -> SyncResponse:
    """The answer to a sync, after what was to be done on the platform."""
    if registrar is None or task is None:
        return response
    found = settle(task, await registrar.carry_out(task), now=now)
    times = [one for one in (response.resync_after_seconds, found.resync) if one is not None]
    status = applied(response.status, found, task.parent, now=now)
    return replace(response, status=status, resync_after_seconds=min(times, default=None))


async def let_go(
    registrar: Registrar | None, response: FinalizeResponse, found: Registration, *, now: datetime
) -> FinalizeResponse:
    """The answer to a finalize, after what was to be done on the platform."""
    task = found.task
    if registrar is not None and task is not None:
        found = settle(task, await registrar.carry_out(task), now=now)
        registrar.forget(task)
        status = applied(response.status, found, task.parent, now=now)
        response = replace(response, status=status, finalized=found.resync is None, resync_after_seconds=found.resync)
    if found.abandoned is not None:
        log.warning("platform_let_go", left=str(found.abandoned), message=found.condition.message)
    return response


class _Progress:
    """How far it came, for when the time is over."""

    late = ""
    writing = False


def _about(task: PlatformTask) -> Mapping[str, Any]:
    parent = task.parent
    return {"kind": task.kind, "namespace": parent.namespace, "name": parent.name, "uid": parent.uid}


def _is_as_requested(item: Object, task: PlatformTask) -> bool:
    """Whether the object is what the request says it is, so that what follows from the request may be done."""
    parent, metadata = task.parent, mapping(item, "metadata")
    if task.final and not metadata.get("deletionTimestamp"):
        return False
    known = mapping(mapping(item, "status"), "platform")
    return (
        mapping(item, "spec") == parent.spec
        and texts(metadata, "labels") == parent.labels
        and known == mapping(parent.status, "platform")
    )


def _conflict(wanted: DesiredObject, owner: Owner) -> RegistrationFailed:
    return RegistrationFailed(
        reasons.CONFLICT,
        f"The {wanted.thing} belongs to ModelDeployment {cut(owner.name)} in namespace {cut(owner.namespace)}, which is"
        " older: choose another spec.model or spec.environment, or delete that one.",
        foreign=True,
    )
