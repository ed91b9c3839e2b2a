"""Keys of an issuer: which of a JWK Set count, and which are tried for a token."""

from typing import Any

import orjson
import pytest

from gateway.access.signing_keys import MOST_KEYS, MOST_TRIES, SigningKeys
from tests.integration.issuer import ec_key, okp_key, rsa_key


def public(key: Any, **members: Any) -> dict[str, Any]:
    """Return the public members of a key, with others."""
    return {**key.as_dict(private=False), **members}


def keys(*entries: Any) -> SigningKeys:
    """Return the keys in a set of these."""
    return SigningKeys(orjson.dumps({"keys": entries}))


def test_keys_are_found_by_id_and_type() -> None:
    """A token that names its key gets that one alone, and one that names none gets those of the type it needs."""
    found = keys(public(rsa_key("first")), public(rsa_key("other")), public(ec_key("first")), public(okp_key("o")))
    assert len(found) == 4
    assert [key.key_type for key in found.candidates("first", "RSA")] == ["RSA"]
    assert [key.key_type for key in found.candidates("first", "EC")] == ["EC"]
    assert len(found.candidates(None, "RSA")) == 2
    assert found.candidates("none", "RSA") == []
    assert found.candidates("first", "oct") == []


def test_keys_without_an_id_are_tried_for_any() -> None:
    """A token that names an id which no key has gets the keys without one, of its type and few of them."""
    nameless = [public(rsa_key("other"), kid=None)] * (MOST_TRIES + 2)
    found = keys(public(rsa_key("first")), *nameless, public(ec_key("first"), kid=None))
    (named,) = found.candidates("first", "RSA")
    assert named.as_dict(private=False)["n"] == rsa_key("first").as_dict(private=False)["n"]
    assert len(found.candidates("another", "RSA")) == MOST_TRIES
    assert len(found.candidates("first", "EC")) == 1


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "first"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kty": "RSA", "n": "_" * 342, "e": "AQAB" * 100},
        {"kty": "RSA", "n": "_" * 4000, "e": "AQAB"},
        {"kty": "RSA", "n": "!", "e": "AQAB"},
        {"kty": "RSA", "n": 7, "e": "AQAB"},
        {"kty": "RSA", "x5c": ["MII"]},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-1", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256", "x": "AA"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AA"},
        {"kty": "new", "pub": "AA"},
        {"kty": ["RSA"]},
        "text",
        None,
    ],
)
def test_a_key_that_is_of_no_use_leaves_the_others(entry: Any) -> None:
    """A key that is weak, costly, shared, broken or of an unknown type is left out, and the others count."""
    assert len(keys(entry, public(ec_key("first")))) == 1
    with pytest.raises(ValueError, match="no key by which"):
        keys(entry)


@pytest.mark.parametrize("members", [{"use": "enc"}, {"key_ops": ["sign"]}, {"key_ops": []}])
def test_a_key_for_another_purpose_is_left_out(members: Any) -> None:
    """A key that is for encryption, or not for verifying, verifies nothing."""
    with pytest.raises(ValueError, match="no key by which"):
        keys(public(ec_key("first"), **members))


def test_a_member_that_is_null_says_nothing() -> None:
    """A key counts whose optional members are null, as some issuers write what they have no value for."""
    (key,) = keys(public(ec_key("first"), use=None, key_ops=None, alg=None, kid=None)).candidates(None, "EC")
    assert key.key_type == "EC"


def test_a_private_key_is_not_kept() -> None:
    """Of a key that is published with its private part by mistake only the public part is kept."""
    (key,) = keys(ec_key("first").as_dict(private=True)).candidates("first", "EC")
    assert not key.is_private


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b"7", b"[" * 100000])
def test_what_is_no_set_of_keys(content: bytes) -> None:
    """Content that is no JWK Set is a reason, and nothing else."""
    with pytest.raises(ValueError, match=r"is not JSON|is no JWK Set|has no key"):
        SigningKeys(content)


def test_keys_have_a_bound() -> None:
    """Of too many keys the first ones count, and of these few are tried for a token that names none."""
    found = keys(*(public(ec_key("first"), kid=str(number)) for number in range(MOST_KEYS + 10)))
    assert (len(found), found.unusable) == (MOST_KEYS, 10)
    assert len(found.candidates(None, "EC")) == MOST_TRIES


def test_sets_are_compared_by_their_keys() -> None:
    """Two sets are the same where they have the same keys with the same ids."""
    first = keys(public(ec_key("first")))
    assert first.is_same(keys(public(ec_key("first"), x5t="other")))
    assert not first.is_same(keys(public(ec_key("first"), kid="other")))
    assert not first.is_same(keys(public(ec_key("first")), public(rsa_key("first"))))
