"""Proof that the remote backend would serve a request if it got one now, from what gateways report of their drills.

A verdict is written only when two readings of the gateways give the same one. Hooks keep the last two readings in
memory and nothing else: after a start, or while the two differ, the condition stays as it is in the status. Of several
replicas each has readings of its own, and a reading from before the last change of the condition changes nothing. So
replicas whose readings are of different times do not undo each other's work.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hooks import reasons
from hooks.observation.conditions import Condition
from hooks.observation.drills import Drill, Reading
from hooks.observation.observation import Held

TYPE: Final = "OffloadReady"
"""Type of the condition that says it."""
FAILURES: Final = 3
"""Failed drills in a row after which a remote backend is known to fail. One may be chance."""

MESSAGES: Final[Mapping[str, str]] = {
    reasons.PROVEN: "A gateway has reached the remote backend, and it would serve requests.",
    reasons.NOT_TRIED: "No gateway has tried the remote backend yet.",
    reasons.NAME_UNKNOWN: "The host name of the remote backend cannot be resolved: correct remoteBackend.host.",
    reasons.CONNECT_FAILED: "The remote backend cannot be connected to: see that it is up, and that the gateway may"
    " reach its host and port.",
    reasons.CERTIFICATE_REFUSED: "The certificate of the remote backend is not accepted: correct remoteBackend.tls, or"
    " renew the certificate.",
    reasons.TOKEN_REFUSED: "The token endpoint, or the remote backend, refuses the credentials: correct client id and"
    " secret.",
    reasons.CREDENTIAL_MISSING: "The credentials of the remote backend are missing: see that the Secret exists, and has"
    " its label and keys.",
    reasons.MODEL_UNKNOWN: "The remote backend does not know the model: correct spec.model.",
    reasons.FORBIDDEN: "The remote backend does not allow the request: see what the account may use there.",
}
"""Sentences for reasons, where a gateway gives none."""

_PROOFS: Final[Mapping[str, str]] = {
    "client": "The remote backend has served a request of a client.",
    "completion": "The remote backend has served a completion of one token for a drill.",
    "models": "A gateway has reached the remote backend, which responded to GET /v1/models.",
    "none": "A gateway has reached the remote backend and sent no request: only one shows whether it accepts the"
    " credentials and serves the model (spec.gateway.drill.request).",
}
"""Sentences for a success, by the request that it rests on, the one that tells most first."""
_OF_REQUESTS: Final = frozenset({reasons.TOKEN_REFUSED, reasons.MODEL_UNKNOWN, reasons.FORBIDDEN})
"""Reasons that only a request shows. A drill that sends none neither finds nor disproves them."""

FATAL: Final = frozenset(
    {
        reasons.NAME_UNKNOWN,
        reasons.CONNECT_FAILED,
        reasons.CERTIFICATE_REFUSED,
        reasons.TOKEN_REFUSED,
        reasons.CREDENTIAL_MISSING,
    }
)
"""Reasons with which no request can be served. A remote backend that does not list the model, or refuses the list, may
serve it nevertheless."""
_HELD: Final = frozenset({*MESSAGES, reasons.UNREACHABLE})
"""Reasons of a condition that stays as it is while nothing else is known."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What readings say of the remote backend."""

    status: str
    """Status of the condition: True, False or Unknown."""
    reason: str
    message: str
    fails: bool = False
    """Whether it is known to fail: no request could be served by it."""
    awaits: bool = False
    """Whether another reading may confirm something else, so that one should be taken soon."""

    @property
    def condition(self) -> Condition:
        """Return the condition OffloadReady."""
        return Condition(TYPE, self.status, self.reason, self.message)


NOT_ASKED: Final = Verdict(
    "Unknown",
    reasons.NOT_EVALUATED,
    "The gateways are not asked what their drills found: proxyService.adminAddress in the controller's configuration"
    " says where they are.",
)
"""Verdict where no gateway is asked."""
_NOT_TRIED: Final = Verdict("Unknown", reasons.NOT_TRIED, MESSAGES[reasons.NOT_TRIED])


def verdict(reading: Reading) -> Verdict:
    """Return what one reading says.

    It is False only if every gateway that tried the backend has failed, and Unknown if none has tried it. Of several
    gateways one at a time sends a completion: what that finds, the others have not tried.
    """
    if reading.unread is not None:
        return Verdict("Unknown", reading.unread.reason, reading.unread.message)
    if not reading.drills:
        return _NOT_TRIED
    failed = [drill for drill in reading.drills if drill.reason != reasons.PROVEN]
    proven = [drill for drill in reading.drills if drill.reason == reasons.PROVEN]
    refused = [drill for drill in failed if drill.reason in _OF_REQUESTS and drill.request not in ("", "none")]
    if refused and not any(_disproves(one, drill) for one in proven for drill in refused):
        failed, proven = refused if proven else failed, []
    worst = _most_frequent(failed)
    if worst is None:
        return Verdict("True", reasons.PROVEN, _proof(proven))
    if proven:
        message = f"At least one gateway reaches the remote backend, and at least one does not: {_message(worst)}"
        return Verdict("True", reasons.PROVEN, message)
    fails = all(_fails(drill) for drill in failed)
    return Verdict("False", worst.reason, _message(worst), fails)


def settled(readings: tuple[Reading, ...], held: Held | None, now: datetime, *, failed: bool) -> Verdict:
    """Return the verdict to write.

    Args:
        readings: the last two readings, the newest first; fewer where there were no more.
        held: the condition as the status has it; None where it has none.
        now: the present.
        failed: whether the remote backend is known to fail by the status.
    """
    verdicts = tuple(verdict(reading) for reading in readings)
    present = _present(held, failed=failed)
    if present is None:
        # Nothing is known so far, and that nothing is known yet, or why, needs no second reading.
        present = verdicts[0] if verdicts and verdicts[0].status == "Unknown" else _NOT_TRIED
    if len(verdicts) < 2 or len({(one.status, one.reason, one.fails) for one in verdicts}) > 1:
        return _awaiting(present)
    new = verdicts[0]
    if new != verdicts[1] and (present.status, present.reason, present.fails) == (new.status, new.reason, new.fails):
        return _awaiting(present)  # only another sentence, which changes as often as it likes
    if held is not None and held.status != new.status and held.reason in _HELD and held.since is not None:
        # A reading from before the last change is older than what the status knows. Status may have any time in it.
        late = held.since <= now and any(reading.taken < held.since for reading in readings)
        return _awaiting(present) if late else new
    return new


def _present(held: Held | None, *, failed: bool) -> Verdict | None:
    """Return the verdict that the status has; None where it has none."""
    if held is None or held.reason not in _HELD:
        return None
    return Verdict(held.status, held.reason, held.message, failed and held.status == "False")


def _awaiting(present: Verdict) -> Verdict:
    return Verdict(present.status, present.reason, present.message, present.fails, awaits=True)


def _disproves(proven: Drill, refused: Drill) -> bool:
    """Return whether the success of one gateway speaks against what a request of another one has found."""
    if proven.request != "none":
        return True
    return proven.served is not None and refused.observed is not None and proven.served >= refused.observed


def _proof(proven: list[Drill]) -> str:
    """Return a sentence about the success that tells most, of which there is one at least."""
    requests = {drill.request for drill in proven}
    return next((words for name, words in _PROOFS.items() if name in requests), MESSAGES[reasons.PROVEN])


def _fails(drill: Drill) -> bool:
    """Return whether no request could be served by what one gateway found.

    Requests may succeed for a while although drills fail: with an older token, where no new one can be had.
    """
    succeeded = drill.succeeded is not None and drill.observed is not None and drill.succeeded > drill.observed
    return drill.reason in FATAL and drill.failures >= FAILURES and not succeeded


def _most_frequent(failed: list[Drill]) -> Drill | None:
    """Return the failure that most gateways report; the same one whatever the order of the gateways is."""
    if not failed:
        return None
    counts = Counter(drill.reason for drill in failed)
    return min(failed, key=lambda drill: (-counts[drill.reason], drill.reason, drill.message))


def _message(drill: Drill) -> str:
    return drill.message or MESSAGES[drill.reason]
