"""`python -m hooks` with a clock that is ahead by as many seconds as a file says: `… hooks_ahead FILE [FLAGS]`."""

import functools
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hooks import __main__, app, serving


def main() -> int:
    """Run hooks with the clock ahead."""
    ahead = Path(sys.argv[1])

    def clock() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=float(ahead.read_text()))

    serving.create_app = functools.partial(app.create_app, clock=clock)  # type: ignore[attr-defined]
    return __main__.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
