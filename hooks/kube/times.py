"""Times as Kubernetes writes them."""

from datetime import datetime


def whole_seconds(moment: datetime) -> datetime:
    """The moment as it is stored: Kubernetes keeps no fractions."""
    return moment.replace(microsecond=0)
