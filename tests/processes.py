"""Running programs under test: waiting for them, their responses, and certificates for them."""

import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tests.deadlines import SECONDS


def poll(condition: Callable[[], object], what: str = "it comes about", *, seconds: float = SECONDS) -> None:
    """Wait until `condition` holds.

    Raises:
        AssertionError: it does not within `seconds`; the message says that `what` did not come about.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


def status(url: str) -> int:
    """Return the status of the response to a GET of `url`, or 0 where there is no response."""
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as response:
            return int(response.status)
    except urllib.error.HTTPError as exc:
        return exc.code
    except OSError:
        return 0


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for localhost in `folder`, and return the PEM files of the certificate and its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-addext", "keyUsage=critical,digitalSignature,keyCertSign"],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key
