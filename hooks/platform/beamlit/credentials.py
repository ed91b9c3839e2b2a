"""Who hooks are on the platform: the client credentials in `BEAMLIT_TOKEN`, or in the file of `platform.tokenFile`.

The token is base64(clientId:clientSecret). It is never repeated, in no error and no line of the log.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, Self

import structlog

from hooks.settings import Platform
from program.settings import SettingsError

TOKEN: Final = "BEAMLIT_TOKEN"  # noqa: S105 - the name of a variable
"""The environment variable. It wins over the file, as the environment does over every setting of the file."""
_FILE_BYTES: Final = 1 << 16
_SPACE: Final = re.compile(r"\s+")
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]+")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Account:
    """Client credentials (RFC 6749 section 4.4)."""

    client_id: str
    client_secret: str = field(repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be repeated: the secret, and the token that holds it."""
        whole = base64.b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
        return whole, self.client_secret

    @classmethod
    def read(cls, token: str) -> Self:
        """What a token means. Line breaks in it, as `base64` puts them in, do not count.

        Raises:
            ValueError: it is none; the message repeats nothing of it.
        """
        try:
            decoded = base64.b64decode(_SPACE.sub("", token), validate=True).decode()
        except (binascii.Error, ValueError):
            decoded = ""
        client_id, _, secret = decoded.strip("\r\n").partition(":")
        if not _PRINTABLE.fullmatch(client_id) or not _PRINTABLE.fullmatch(secret):
            raise ValueError("must be base64 of clientId:clientSecret")
        return cls(client_id, secret)


class Accounts(Protocol):
    """Where the account is found at each call."""

    def current(self) -> Account:
        """The account as it is now."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """An account that stays the same."""

    account: Account

    def current(self) -> Account:
        """The account."""
        return self.account


class TokenFile:
    """The account in a file, read again whenever the file changes."""

    def __init__(self, path: Path) -> None:
        """Read it once now.

        Raises:
            OSError: it cannot be read.
            ValueError: it holds no token.
        """
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._account = self._read()

    def current(self) -> Account:
        """The account; the one read last while the file is of no use."""
        try:
            self._account = self._read()
        except OSError as exc:  # being replaced
            log.debug("platform_token_unreadable", error=type(exc).__name__)
        except ValueError as exc:
            log.warning("platform_token_unusable", error=str(exc))
        return self._account

    def _read(self) -> Account:
        status = self._path.stat()
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp == self._stamp:
            return self._account
        with self._path.open("rb") as file:
            written = file.read(_FILE_BYTES)
        self._stamp = stamp
        return Account.read(written.decode("ascii", "replace"))


def configured(platform: Platform, environment: Mapping[str, str]) -> Accounts | None:
    """The account that the administrator gave; None without one: then the platform is never called.

    Raises:
        SettingsError: what was given is no token. The message names where, never what.
    """
    token = environment.get(TOKEN, "").strip()
    if token:
        try:
            return Fixed(Account.read(token))
        except ValueError as exc:
            raise SettingsError(f"{TOKEN} {exc}.") from None
    path = platform.token_file
    if path is None:
        return None
    try:
        return TokenFile(path)
    except OSError as exc:
        raise SettingsError(f"platform.tokenFile {path} cannot be used: {exc.strerror}.") from exc
    except ValueError as exc:
        raise SettingsError(f"platform.tokenFile {path} cannot be used: it {exc}.") from None
