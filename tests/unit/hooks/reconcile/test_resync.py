"""Seconds until the next sync of a ModelDeployment."""

from tests import builders
from tests.builders import Cluster, model_deployment, sync, workload

ELSEWHERE = {"name": "x", "namespace": "team-b"}


def test_no_resync_without_metrics_and_known_moments() -> None:
    """Without metrics and without a known moment no resync is asked for."""
    assert Cluster(model_deployment(), related=[workload()]).settle().resync_after_seconds is None
    assert sync(model_deployment(modelSourceRef=ELSEWHERE)).resync_after_seconds is None


def test_the_period_of_metrics_has_a_jitter() -> None:
    """A parent with metrics is synced every 30 seconds, or 15 near a target, with a jitter of its own that stays."""
    config = {"remoteBackend": builders.REMOTE, "metrics": [builders.external(value=100)]}
    for value, least, most in (("74", 27, 33), ("75", 13.5, 16.5)):
        seconds = []
        for uid in map(str, range(50)):
            parent = model_deployment(offloadingConfig=config)
            parent["metadata"]["uid"] = uid
            settled = Cluster(parent, related=[workload()])
            settled.settle()
            seconds.append(settled.measure(value, after=60).resync_after_seconds)
            assert settled.sync().resync_after_seconds == seconds[-1]
        assert all(second is not None and least <= second <= most for second in seconds)
        assert len(set(seconds)) > 40
