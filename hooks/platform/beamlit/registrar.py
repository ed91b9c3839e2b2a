"""Execution of registration tasks on the platform, within a second each. Nothing here raises: a failure is an outcome.

Any client that reaches hooks could make up a request. So before anything is written or removed, the object itself is
read from the API server: it must exist with the same uid, specification, labels and `status.platform`, and before a
final removal it must be marked for deletion. The object on the platform must be its own too
(`hooks.platform.ownership`).
"""

import asyncio
from collections.abc import Mapping
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
from hooks.platform.outcomes import Gone, Outcome, Postponed, Registered, RegistrationFailed, Removed
from hooks.platform.ownership import Claim, Owner, claim, is_kept_by
from hooks.platform.rechecks import Rechecks
from hooks.platform.registration import PlatformTask, Registration, after
from hooks.platform.state import DesiredObject
from hooks.protocol import PARENT_KIND, POLICY_KIND
from program.excerpts import cut

CALL_SECONDS: Final = 0.8
"""Seconds that one task may take. With what a sync does before and after it, that is less than a second."""
_OBJECT_BYTES: Final = 4 << 20
"""Largest object that is read from the API server, in bytes."""

_API: Final = Api("objects", "The API server")
_GROUPS: Final[Mapping[str, Group]] = {
    PARENT_KIND: Group(_API, "modeldeployments", DEPLOYMENT_GROUP, "the CustomResourceDefinitions of the chart"),
    POLICY_KIND: Group(_API, "policies", AUTHORIZATION_GROUP, "the CustomResourceDefinitions of the chart"),
}

log = structlog.get_logger(__name__)


class Registrar:
    """Carries out the tasks of registrations, with one account on the platform."""

    def __init__(self, beamlit: Beamlit, api: ApiServer) -> None:
        """Use two clients, which the caller opened and will close."""
        self._beamlit = beamlit
        self._api = api
        self._rechecks = Rechecks()

    @property
    def account(self) -> str:
        """Name of the account on the platform, without a secret."""
        return self._beamlit.account

    def is_recheck_due(self, item: Object, now: datetime) -> bool:
        """Return whether it is time to recheck that the platform still has what the object registered."""
        return self._rechecks.is_due(text(mapping(item, "metadata"), "uid"), now)

    async def settle(self, registration: Registration, *, now: datetime) -> Registration:
        """Carry out the task of a registration and return what it is afterwards; without a task, return it as it is."""
        task = registration.task
        if task is not None:
            registration = after(task, await self._attempt(task), now=now)
            if task.final:
                self._rechecks.forget(task.parent.uid)
        if registration.abandoned is not None:
            log.warning("platform_let_go", left=str(registration.abandoned), message=registration.condition.message)
        return registration

    async def _attempt(self, task: PlatformTask) -> Outcome:
        progress = _Progress()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                outcome = await self._change(task, progress)
        except TimeoutError:
            outcome = RegistrationFailed(reasons.UNREACHABLE, progress.message_if_late, sent=progress.is_writing)
        except CallFailed as exc:
            outcome = RegistrationFailed(reasons.UNREACHABLE, exc.unread.message)
        except Busy:
            outcome = Postponed()
        except PlatformError as exc:
            sent = exc.sent and progress.is_writing
            outcome = RegistrationFailed(
                exc.reason, str(exc), tried=not isinstance(exc, Unasked), sent=sent, retry_after=exc.retry_after
            )
        except Exception:
            log.exception("platform_failed", **_log_fields(task))
            message = "Hooks failed with an error of their own: their log has the details."
            outcome = RegistrationFailed(reasons.UNREACHABLE, message, sent=progress.is_writing)
        _log_outcome(task, outcome)
        return outcome

    async def _change(self, task: PlatformTask, progress: "_Progress") -> Outcome:
        parent = task.parent
        progress.message_if_late = "The API server does not respond in time."
        item = await self._read(task.kind, parent.namespace, parent.name)
        if item is None or text(mapping(item, "metadata"), "uid") != parent.uid:
            return Gone()
        if not _is_as_requested(item, task):
            return Postponed()
        progress.message_if_late = LATE
        if task.removal is None and task.desired is not None:
            return await self._register(task, task.desired, item, progress)
        return await self._remove(task, progress)

    async def _register(
        self, task: PlatformTask, desired: DesiredObject, item: Object, progress: "_Progress"
    ) -> Outcome:
        present = await self._beamlit.find(desired.key)
        if present is None:
            progress.is_writing = True
            try:
                return Registered(await self._beamlit.create(desired.key, desired.body))
            except Taken as exc:
                message = f"The platform got a {desired.key} from elsewhere at the same time."
                return RegistrationFailed(exc.reason, message)
        lost = task.state.key == desired.key and not task.state.hash
        claimed = claim(present, task.parent, lost=lost, desired=desired)
        if claimed is Claim.SAME:
            return Registered({}, owned=False, changed=False)
        if claimed is Claim.FOREIGN:
            return RegistrationFailed(
                reasons.CONFLICT,
                f"The platform has a {desired.key} already, which was not made for this object: remove or rename it"
                " there, or choose another name here.",
                foreign=True,
            )
        if isinstance(claimed, Owner):
            other = await self._find_owner(claimed)
            if other is None or is_kept_by(claimed, other, item, desired.key):
                return _conflict(desired, claimed)
        if task.recheck and claimed is Claim.OURS:
            return Registered(facts(present), changed=False)
        progress.is_writing = True
        return Registered(await self._beamlit.replace(desired.key, desired.body))

    async def _find_owner(self, owner: Owner) -> Object | None:
        """Return the ModelDeployment that owns a model: empty when it is gone, None when that cannot be known."""
        try:
            return await self._read(PARENT_KIND, owner.namespace, owner.name) or {}
        except CallFailed:  # We do not manage its namespace; another installation may.
            return None

    async def _remove(self, task: PlatformTask, progress: "_Progress") -> Outcome:
        key = task.removal
        present = None if key is None else await self._beamlit.find(key)
        if key is None or present is None:
            return Removed()
        lost = not task.state.hash
        if claim(present, task.parent, lost=lost, desired=task.expected) is Claim.OURS:
            progress.is_writing = True
            await self._beamlit.delete(key)
        else:
            log.info("platform_left_to_others", thing=str(key), **_log_fields(task))
        return Removed()

    async def _read(self, kind: str, namespace: str, name: str) -> Object | None:
        group = _GROUPS[kind]
        where = path("apis", group.name, VERSION, "namespaces", namespace, group.resource, name)
        return await self._api.get(group, where, (), _OBJECT_BYTES)


class _Progress:
    """How far an attempt has come, for when its time runs out."""

    message_if_late = ""
    is_writing = False


def _log_outcome(task: PlatformTask, outcome: Outcome) -> None:
    done = "removed" if task.removal is not None else "registered"
    match outcome:
        case Registered(changed=False):
            log.debug("platform_has_still", **_log_fields(task))
        case Registered() | Removed():
            log.info("platform_has", done=done, **_log_fields(task))
        case RegistrationFailed(reason, message):
            log.warning("platform_has_not", undone=done, reason=reason, message=message, **_log_fields(task))
        case _:
            log.debug("platform_not_asked", why=type(outcome).__name__, **_log_fields(task))


def _log_fields(task: PlatformTask) -> Mapping[str, Any]:
    parent = task.parent
    return {"kind": task.kind, "namespace": parent.namespace, "name": parent.name, "uid": parent.uid}


def _is_as_requested(item: Object, task: PlatformTask) -> bool:
    """Return whether the stored object equals the one in the request, so that the task that follows from it is due."""
    parent, metadata = task.parent, mapping(item, "metadata")
    if task.final and not metadata.get("deletionTimestamp"):
        return False
    state = mapping(mapping(item, "status"), "platform")
    return (
        mapping(item, "spec") == parent.spec
        and texts(metadata, "labels") == parent.labels
        and state == mapping(parent.status, "platform")
    )


def _conflict(desired: DesiredObject, owner: Owner) -> RegistrationFailed:
    return RegistrationFailed(
        reasons.CONFLICT,
        f"The {desired.key} belongs to ModelDeployment {cut(owner.name)} in namespace {cut(owner.namespace)}, which is"
        " older: choose another spec.model or spec.environment, or delete that one.",
        foreign=True,
    )
