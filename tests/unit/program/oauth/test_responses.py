"""Responses of token endpoints, and the tokens and errors that are read from them."""

from typing import Any

import orjson
import pytest

from program.oauth.errors import TokenUnavailable
from program.oauth.responses import Token, TokenResponse, read_response


def response(content: Any, status: int = 200) -> TokenResponse:
    """Return a response with this content."""
    return TokenResponse(status, content if isinstance(content, bytes) else orjson.dumps(content), 7.0)


@pytest.mark.parametrize(
    ("content", "life"),
    [
        ({"access_token": "t", "token_type": "Bearer", "expires_in": 300}, 300),
        ({"access_token": "t", "token_type": "BEARERTOKEN", "expires_in": "300"}, 300),
        ({"access_token": "t", "expires_in": 0.5}, 0.5),
        ({"access_token": "t"}, 60),
        ({"access_token": "t", "expires_in": None}, 60),
        ({"access_token": "t", "expires_in": 1e300}, 86400),
        ({"access_token": "t", "expires_in": "1e400"}, 86400),
    ],
)
def test_tokens(content: Any, life: float) -> None:
    """A token lives as long as the endpoint says, a minute when it says nothing, and a day at most."""
    assert read_response(response(content)) == Token("t", life)


@pytest.mark.parametrize("life", [0, -1, "", "soon", True, [], {}, "nan", "-1"])
def test_a_life_that_is_no_positive_number(life: Any) -> None:
    """A token whose life is no positive number lives a minute, like one whose endpoint does not say."""
    assert read_response(response({"access_token": "t", "expires_in": life})) == Token("t", 60)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "token_answer_invalid"),
        (b"[]", "token_answer_invalid"),
        ({}, "token_invalid"),
        ({"access_token": "a\n"}, "token_invalid"),
        ({"access_token": "ä"}, "token_invalid"),
        ({"access_token": "a" * 16385}, "token_invalid"),
        ({"access_token": "a", "token_type": "mac"}, "token_type_unknown"),
    ],
)
def test_no_token(content: Any, reason: str) -> None:
    """A response without a token that can be sent as a bearer token is an error with the status."""
    with pytest.raises(TokenUnavailable) as caught:
        read_response(response(content))
    assert (caught.value.reason, caught.value.status, caught.value.refused) == (reason, 200, False)


@pytest.mark.parametrize(
    ("status", "content", "code", "wrong_client"),
    [
        (401, {"error": "invalid_client"}, "invalid_client", True),
        (400, {"error": "invalid_client"}, "invalid_client", True),
        (401, b"", "", True),
        (401, {"error": ["invalid_client"]}, "", True),
        (401, {"error": "a secret"}, "other", False),
        (400, {"error": "invalid_scope", "error_description": "a secret"}, "invalid_scope", False),
        (400, b"<html>", "", False),
        (500, {"error": "invalid_client"}, "invalid_client", False),
    ],
)
def test_errors(status: int, content: Any, code: str, wrong_client: bool) -> None:
    """An error has status, code and pause of the response, and nothing else that the endpoint wrote."""
    with pytest.raises(TokenUnavailable) as caught:
        read_response(response(content, status))
    error = caught.value
    assert (error.reason, error.status, error.code) == (f"token_status_{status}", status, code)
    assert (error.wrong_client, error.retry_after) == (wrong_client, 7.0)
    assert "a secret" not in repr(error.fields) + repr(error) + str(error)
    again = error.again()
    assert again is not error
    assert again.fields == error.fields
