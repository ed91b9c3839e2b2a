"""Sentences of the page for reasons: those that there are have one, and no other word has."""

from gateway.backends import failover
from gateway.backends.breaker import UnavailableReason
from gateway.page.words import DIVERSIONS, LOCAL_MISSING, SPLITS
from hooks import reasons
from hooks.offloading.rules import BY_METRICS

POLICIES = {
    reasons.REMOTE_POLICY,
    reasons.POLICY_MISSING,
    reasons.INVALID_POLICY,
    reasons.LOCATION_UNKNOWN,
    reasons.LOCATION_NOT_ALLOWED,
    reasons.FLAVORS_UNKNOWN,
    reasons.FLAVOR_NOT_ALLOWED,
}
"""Reasons for which policies keep requests local."""
OTHERS = {
    reasons.DISABLED,
    reasons.NOT_CONFIGURED,
    reasons.OVERRIDE,
    reasons.OVERRIDE_FORCED,
    reasons.LOCAL,
    reasons.RETURNING,
}


def test_splits() -> None:
    """Each reason that hooks may give for a split has a sentence."""
    assert set(SPLITS) == reasons.READINESS | reasons.NOWHERE_TO_OFFLOAD | BY_METRICS | POLICIES | OTHERS
    assert all(sentence.endswith(".") for sentence in SPLITS.values())


def test_what_nobody_has_asked_for() -> None:
    """A workload that is scaled to 0, deleted or changed is meant; any other reason without a ready replica is not."""
    meant = {reasons.SCALED_TO_ZERO, reasons.TERMINATING, reasons.PROGRESSING}
    assert reasons.READINESS - meant == LOCAL_MISSING


def test_diversions() -> None:
    """Each reason for which the gateway sends a request elsewhere has a sentence."""
    own = {failover.FAILOVER, failover.OVERFLOW, failover.STATEFUL, *(one.value for one in UnavailableReason)}
    assert set(DIVERSIONS) == own
    assert all(sentence.endswith(".") for sentence in DIVERSIONS.values())
