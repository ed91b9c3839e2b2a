"""API keys: where clients send them, and which caller they belong to."""

from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.access.keys import MOST_KEYS, ApiKeys
from gateway.access.presented import presented

KEY = b"0123456789abcdef"
OTHER = b"another-key-of-team-a"
ENCODED = urlsafe_b64encode(KEY).rstrip(b"=")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"authorization", b"Bearer " + KEY),
        (b"authorization", b"bearer  " + KEY),
        (b"x-api-key", KEY),
        (b"api-key", b" " + KEY),
        (b"sec-websocket-protocol", b"openai-insecure-api-key." + KEY),
        (b"sec-websocket-protocol", b"realtime, openai-insecure-api-key.%b, openai-beta.realtime-v1" % KEY),
        (b"sec-websocket-protocol", b"base64url.bearer.authorization.k8s.io." + ENCODED),
    ],
)
def test_a_key_is_found_where_clients_send_it(name: bytes, value: bytes) -> None:
    """A key is found in each field in which the clients of the usual APIs send one."""
    fields = ((b"host", b"x"), (name, value))
    assert presented(fields) == [KEY]
    assert ApiKeys({"team-a": KEY}).caller(fields) == "team-a"


@pytest.mark.parametrize(
    "field",
    [
        (b"authorization", b"Basic " + KEY),
        (b"authorization", KEY),
        (b"cookie", b"key=" + KEY),
        (b"x-other-key", KEY),
        (b"sec-websocket-protocol", b"realtime, " + KEY),
    ],
)
def test_a_key_elsewhere_is_none(field: tuple[bytes, bytes]) -> None:
    """A key in another place is not looked at: the request has no credential."""
    with pytest.raises(errors.Unauthorized) as caught:
        ApiKeys({"team-a": KEY}).caller((field,))
    assert type(caught.value) is errors.Unauthorized


def test_one_of_several_credentials_is_enough() -> None:
    """A request with a credential of another server beside its key is the caller of the key."""
    keys = ApiKeys({"team-a": KEY})
    assert keys.caller(((b"authorization", b"Bearer someone-elses"), (b"x-api-key", KEY))) == "team-a"


@pytest.mark.parametrize("value", [KEY[:-1], KEY + b"0", KEY.upper(), b"", b"\xff" * 16])
def test_an_unknown_key_is_refused(value: bytes) -> None:
    """A credential that is no key is refused, with a challenge that says so."""
    with pytest.raises(errors.CredentialUnknown) as caught:
        ApiKeys({"team-a": KEY}).caller(((b"x-api-key", value),))
    assert caught.value.challenge.endswith(b'error="invalid_token"')


def test_an_entry_may_have_several_keys() -> None:
    """Each line of an entry is a key of the same caller, and a line end behind the last one is none."""
    keys = ApiKeys({"team-a": KEY + b"\r\n" + OTHER + b"\n"})
    assert (len(keys), keys.problems) == (2, {})
    assert {keys.caller(((b"x-api-key", one),)) for one in (KEY, OTHER)} == {"team-a"}


def test_what_cannot_be_used_is_said_without_the_key() -> None:
    """An entry that is no key, or one of two callers, is left out, and the reason has nothing of its value."""
    keys = ApiKeys({"a": KEY, "b": KEY, "c": b"short", "d": b" \n", "e f": OTHER, "g": b"\xff" * 20})
    assert len(keys) == 1
    assert keys.problems == {
        "b": "it has a key that a has, too",
        "c": "a key must have 16 to 4096 printable ASCII characters",
        "d": "it is empty",
        "e f": "its name is no key of a Secret: letters, digits, -, _ and .",
        "g": "a key must have 16 to 4096 printable ASCII characters",
    }
    assert keys.caller(((b"x-api-key", KEY),)) == "a"


def test_the_number_of_keys_is_bounded() -> None:
    """Keys beyond the limit are left out."""
    keys = ApiKeys({"a": b"\n".join(b"%016d" % number for number in range(MOST_KEYS + 1))})
    assert len(keys) == MOST_KEYS
    assert keys.problems == {"a": f"there are more than {MOST_KEYS} keys"}


def test_no_key_is_in_memory() -> None:
    """The object that knows the keys has their digests, and nothing of the keys."""
    keys = ApiKeys({"team-a": KEY})
    assert KEY not in repr(keys._callers).encode()


@given(st.lists(st.tuples(st.sampled_from([b"authorization", b"x-api-key", b"sec-websocket-protocol"]), st.binary())))
def test_no_field_breaks_it(fields: list[tuple[bytes, bytes]]) -> None:
    """Whatever a client sends, it is refused and nothing else happens."""
    with pytest.raises(errors.Unauthorized):
        ApiKeys({"team-a": KEY}).caller(tuple(fields))
