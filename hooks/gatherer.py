"""The one place that reads the world for a decision.

Metacontroller sends everything that is decided on today: the parent, its children and the related objects. What has to
be asked for elsewhere, metrics, belongs here, under one deadline.
"""

from hooks.observation import InstallDefaults, Observation
from hooks.protocol import SyncRequest


async def gather(request: SyncRequest, defaults: InstallDefaults) -> Observation:
    """All facts for one answer, frozen."""
    return Observation.of(request, defaults)
