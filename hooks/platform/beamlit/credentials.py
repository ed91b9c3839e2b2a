"""The account of hooks on the platform: client credentials in `BEAMLIT_TOKEN`, or in the file of `platform.tokenFile`.

They are written as a token, base64(clientId:clientSecret). It is never repeated, in no error and no line of the log.
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
from program.oauth.authentication import encoded
from program.settings import SettingsError
from program.watched_file import FileMissing, FileUnusable, WatchedFile

TOKEN: Final = "BEAMLIT_TOKEN"  # noqa: S105 - the name of a variable
"""Environment variable that holds the token. It wins over the file, as the environment does over every setting."""
_FILE_BYTES: Final = 1 << 16
"""Bytes that the file may have."""
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
        """Texts that must not be repeated: the secret and the token that holds it, as they are and form-encoded."""
        pairs = ((self.client_id, self.client_secret), (encoded(self.client_id), encoded(self.client_secret)))
        texts = [text for pair in pairs for text in (base64.b64encode(":".join(pair).encode()).decode(), pair[1])]
        return tuple(dict.fromkeys(texts))

    @classmethod
    def read(cls, token: str) -> Self:
        """Return the account in a token. Line breaks in it, as the command `base64` puts them in, do not count.

        Raises:
            ValueError: it is no token; the message repeats nothing of it.
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
    """Source of the account, asked at each call."""

    def current(self) -> Account:
        """Return the account as it is now."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """Source of an account that stays the same."""

    account: Account

    def current(self) -> Account:
        """Return the account."""
        return self.account


class TokenFile:
    """Source of the account in a file, which is read again whenever it changes."""

    def __init__(self, path: Path) -> None:
        """Read the file once now.

        Raises:
            program.watched_file.FileUnusable: it cannot be read, or holds no token.
        """
        self._account = WatchedFile(path, _account, limit=_FILE_BYTES, report=_report)
        self._account.first()

    def current(self) -> Account:
        """Return the account; the one that was read last while the file is of no use."""
        return self._account.latest()


def _account(content: bytes) -> Account:
    """Return the account in the content of a file.

    Raises:
        FileUnusable: it holds no token.
    """
    try:
        return Account.read(content.decode("ascii", "replace"))
    except ValueError as exc:
        raise FileUnusable(str(exc)) from None


def _report(problem: FileUnusable) -> None:
    if isinstance(problem, FileMissing):  # being replaced
        log.debug("platform_token_unreadable", error=str(problem))
    else:
        log.warning("platform_token_unusable", error=str(problem))


def configured(platform: Platform, environment: Mapping[str, str]) -> Accounts | None:
    """Return the source of the account; None when none is configured, and the platform is never called.

    Raises:
        SettingsError: a token is configured and is none. The message names the place and nothing of the token.
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
    except FileUnusable as exc:
        raise SettingsError(f"platform.tokenFile {path} {exc}.") from None
