"""Times as Kubernetes writes them."""

from datetime import datetime


def whole_seconds(moment: datetime) -> datetime:
    """Return the time as it is stored: Kubernetes keeps no fractions of a second."""
    return moment.replace(microsecond=0)
