"""Programs of others that tests of clients need."""

import os
import shutil

import pytest


def require(package: str, *programs: str) -> str:
    """Return the path of the first of these programs that there is.

    Without any of them the test is skipped by name, and with CI=true it fails.
    """
    for program in programs:
        if (path := shutil.which(program)) is not None:
            return path
    reason = f"{programs[0]}: missing; on Debian: apt-get install {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
