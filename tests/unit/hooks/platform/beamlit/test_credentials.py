"""The token of the platform: its form, the places where it is configured, and the messages about a wrong one."""

import base64
import os
from pathlib import Path

import pytest

from hooks.platform.beamlit.credentials import Account, Fixed, TokenFile, configured
from hooks.settings import Platform, Settings
from program.settings import SettingsError

CANARY = "canary-of-the-secret"


def token(text: str) -> str:
    """Return a text in base64."""
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "written",
    [
        token(f"id:{CANARY}"),
        f" {token(f'id:{CANARY}')}\n",
        "\n".join(token(f"id:{CANARY}")),
        token(f"id:{CANARY}\n"),
        token(f"id:{CANARY}\r\n"),
    ],
)
def test_a_token(written: str) -> None:
    """A token is read as `echo -n id:secret | base64` prints it, in one line or several, with -n or without."""
    account = Account.read(written)
    assert (account.client_id, account.client_secret) == ("id", CANARY)
    assert CANARY not in repr(account)
    assert account.secrets == (token(f"id:{CANARY}"), CANARY)


def test_a_secret_with_colons() -> None:
    """The client id ends at the first colon."""
    assert Account.read(token("id:a:b")).client_secret == "a:b"


@pytest.mark.parametrize(
    "written",
    ["", "id:secret", "****", "YQ", token(CANARY), token(":a"), token("a:"), token("a:ü"), token("a\n:b"), "/w=="],
)
def test_what_is_no_token(written: str) -> None:
    """The message says what a token must be, and repeats nothing of it."""
    with pytest.raises(ValueError, match=r"^must be base64 of clientId:clientSecret$"):
        Account.read(written)


def test_without_a_token() -> None:
    """Without a token there is no account; an empty variable is no token."""
    assert configured(Platform(), {}) is None
    assert configured(Platform(), {"BEAMLIT_TOKEN": " "}) is None


def test_the_environment_wins(tmp_path: Path) -> None:
    """The token of the environment variable wins over that of the file."""
    (tmp_path / "token").write_text(token("of-the-file:x"))
    platform = Platform(token_file=tmp_path / "token")
    for environment, expected in (
        ({}, "of-the-file"),
        ({"BEAMLIT_TOKEN": token("of-the-variable:x")}, "of-the-variable"),
    ):
        accounts = configured(platform, environment)
        assert accounts is not None
        assert accounts.current().client_id == expected


def test_errors_name_the_place(tmp_path: Path) -> None:
    """A message names the place of a wrong token and repeats nothing of it."""
    with pytest.raises(SettingsError, match=r"^BEAMLIT_TOKEN must be base64 of clientId:clientSecret\.$"):
        configured(Platform(), {"BEAMLIT_TOKEN": CANARY})
    platform = Platform(token_file=tmp_path / "token")
    with pytest.raises(SettingsError, match=r"token cannot be read: No such file or directory\.$"):
        configured(platform, {})
    (tmp_path / "token").write_bytes(b"\xff" + CANARY.encode())
    with pytest.raises(SettingsError, match=r"token must be base64 of clientId:clientSecret\.$"):
        configured(platform, {})


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """The last account stays in use while the file is missing or holds no token."""
    path = tmp_path / "token"
    path.write_text(token("one:x"))
    file = TokenFile(path)
    assert file.current() is file.current()
    path.write_text(token("two:x"))
    os.utime(path, ns=(1, 1))
    assert file.current().client_id == "two"
    path.write_text("none")
    assert file.current().client_id == "two"
    path.unlink()
    assert file.current().client_id == "two"
    path.write_text(token("three:x"))
    assert file.current().client_id == "three"


def test_a_fixed_account_stays() -> None:
    """An account from the variable stays the same object."""
    account = Account("a", "b")
    assert Fixed(account).current() is account


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "https://api.beamlit.dev/v0"),
        ({"BEAMLIT_BASE_URL": ""}, "https://api.beamlit.dev/v0"),
        ({"BEAMLIT_BASE_URL": "http://x:1/v1/"}, "http://x:1/v1"),
        ({"BEAMLIT_PLATFORM__BASE_URL": "http://y"}, "http://y"),
        ({"BEAMLIT_BASE_URL": "http://x", "BEAMLIT_PLATFORM__BASE_URL": "http://y"}, "http://x"),
    ],
)
def test_the_base_url(environment: dict[str, str], expected: str) -> None:
    """The base URL comes from the original's variable, else from the setting; a slash at its end is dropped."""
    assert Settings.load(None, environment=environment).platform.base_url == expected


@pytest.mark.parametrize("url", ["api.beamlit.dev", "ftp://x", "https://", f"https://a:{CANARY}@x", "https://x/?a=b"])
def test_what_is_no_base_url(url: str) -> None:
    """A wrong base URL is one sentence, which does not repeat a password in it."""
    with pytest.raises(SettingsError, match=r"^platform\.baseUrl is ") as caught:
        Settings.load(None, environment={"BEAMLIT_BASE_URL": url})
    assert CANARY not in str(caught.value)
