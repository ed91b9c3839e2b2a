"""Runs a module as `python -m` does, and ends it when whoever started it is gone, however that happened.

    python -m examples.child gateway --listen 127.0.0.1:8080

Standard input is a pipe whose other end only the parent holds: its end says that the parent is dead, on every system
and even after `kill -9`.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time
from typing import Final

GRACE_SECONDS: Final = 3.0
"""Seconds an orphan may take to end by itself."""


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)


def main() -> None:
    """Run the module of the first argument with the other arguments."""
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
