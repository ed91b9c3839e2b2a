"""Deadlines of tests.

A test waits for a condition, not for a time, so its deadline only says how long a failure takes to show. It is far
longer than anything takes on a busy machine.
"""

from typing import Final

SECONDS: Final = 120.0
"""Seconds that any one step of a test may take."""

NEVER: Final = 5 * SECONDS
"""Seconds of a delay that no test waits for: a step that waited for it would fail."""
