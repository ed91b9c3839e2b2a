"""SIGTERM and SIGINT while a program starts, which takes about a second.

The signals are remembered until the event loop acts on them (`program.signals`). A second signal ends the process at
once, as it does later. The signals are not blocked (pthread_sigmask): a process that is started meanwhile, such as the
credential plugin of a kubeconfig, would inherit the mask, and Ctrl-C would not end it.

This module is imported before modules that take time, and imports none of them.
"""

import signal
from types import FrameType
from typing import Final

NUMBERS: Final = (signal.SIGTERM, signal.SIGINT)
"""Signals that end a program."""

received: Final[list[signal.Signals]] = []
"""Signals that the process has received since `remember`."""


def remember() -> None:
    """Remember signals from now on, instead of ending the process."""
    for number in NUMBERS:
        signal.signal(number, _remember)


def ignore() -> None:
    """Ignore signals from now on, for the process is about to end."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def _remember(number: int, _frame: FrameType | None) -> None:
    if received:
        ignore()
        raise SystemExit(0)
    received.append(signal.Signals(number))
