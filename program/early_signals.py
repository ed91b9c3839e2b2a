"""SIGTERM and SIGINT while a program still starts, which takes a second.

They are remembered until the event loop acts on them (`program.signals`). A second one ends the process at once, as it
does later. They are not blocked (pthread_sigmask): what is started meanwhile, such as a kubeconfig's credential plugin,
would inherit that and be deaf to Ctrl-C.

To be imported before all that takes time; it imports nothing that does.
"""

import signal
from types import FrameType
from typing import Final

NUMBERS: Final = (signal.SIGTERM, signal.SIGINT)

received: Final[list[signal.Signals]] = []
"""What came so far."""


def remember() -> None:
    """Remember these signals from now on."""
    for number in NUMBERS:
        signal.signal(number, _remember)


def ignore() -> None:
    """The process ends: what comes from now on changes nothing."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def _remember(number: int, _frame: FrameType | None) -> None:
    if received:
        ignore()
        raise SystemExit(0)
    received.append(signal.Signals(number))
