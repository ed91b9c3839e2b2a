"""`python -m hooks` that waits longer for the platform, for tests that are about something else on a busy machine.

python -m tests.integration.hooks.unhurried SECONDS serve …
"""

import importlib
import sys

from hooks.platform.beamlit import registrar


def main() -> int:
    """Run hooks with the first argument as the seconds of a call, and the other arguments."""
    setattr(registrar, "CALL_SECONDS", float(sys.argv.pop(1)))  # noqa: B010 - a constant, but for tests
    return int(importlib.import_module("hooks.__main__").main())


if __name__ == "__main__":
    sys.exit(main())
