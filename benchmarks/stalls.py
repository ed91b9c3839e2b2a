"""The gateway with a probe in its event loop that records how long the loop stood still.

Run as `python -m benchmarks.stalls FILE …`, the rest as for `python -m gateway`. Each turn that came late is a line in
FILE: when (monotonic seconds), by how many milliseconds, and how many of these the gateway itself computed, in whatever
thread; in the others the machine had something else to do.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any, Final, TextIO

from gateway import __main__ as gateway

EVERY_SECONDS: Final = 0.002
WORTH_MILLISECONDS: Final = 3.0
"""Shortest delay in milliseconds that is recorded."""


async def probe(output: TextIO) -> None:
    """Sleep, and record how much longer it took than requested."""
    before, used = time.monotonic(), time.process_time()
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        now, cpu = time.monotonic(), time.process_time()
        late = (now - before - EVERY_SECONDS) * 1e3
        if late > WORTH_MILLISECONDS:
            output.write(f"{now} {late} {min(late, (cpu - used) * 1e3)}\n")
            output.flush()
        before, used = now, cpu


def main() -> int:
    """Run the gateway unchanged, with the probe beside it."""
    run = gateway.run

    async def probed(*arguments: Any) -> None:
        with Path(sys.argv[1]).open("w", encoding="ascii") as output:
            task = asyncio.get_running_loop().create_task(probe(output))
            try:
                await run(*arguments)
            finally:
                task.cancel()

    gateway.run = probed  # type: ignore[assignment]
    return gateway.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
