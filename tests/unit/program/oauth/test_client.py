"""Token client: the order in which forms of authentication are tried, and what is remembered of endpoints."""

import base64

import orjson
import pytest

from program.oauth import client as module
from program.oauth.authentication import TokenRequest, token_request
from program.oauth.client import TokenClient
from program.oauth.credentials import ClientCredentials, TokenAuth
from program.oauth.errors import TokenUnavailable
from program.oauth.responses import TokenResponse

GRANTED = TokenResponse(200, orjson.dumps({"access_token": "t"}))
UNKNOWN = TokenResponse(401, orjson.dumps({"error": "invalid_client"}))


class Endpoint:
    """Token endpoint that accepts one Authorization field, or None, and records those that it got."""

    def __init__(self, accepted: str | None) -> None:
        self.accepted = accepted
        self.received: list[str | None] = []

    async def send(self, request: TokenRequest) -> TokenResponse:
        """Respond with a token to the accepted field."""
        self.received.append(request.headers.get("Authorization"))
        return GRANTED if self.received[-1] == self.accepted else UNKNOWN


def basic(text: str) -> str:
    """Return the Authorization field of HTTP Basic."""
    return f"Basic {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    ("form", "authorization", "body"),
    [
        (TokenAuth.BASIC, basic("i+d%3A:a%2Bb%25%3A%C3%A4"), "grant_type=client_credentials"),
        (TokenAuth.BASIC_RAW, basic("i d::a+b%:ä"), "grant_type=client_credentials"),
        (
            TokenAuth.POST,
            None,
            "grant_type=client_credentials&client_id=i+d%3A&client_secret=a%2Bb%25%3A%C3%A4",
        ),
    ],
)
def test_the_forms(form: TokenAuth, authorization: str | None, body: str) -> None:
    """Each form has id and secret where RFC 6749 section 2.3.1 puts them; the raw form has them in UTF-8."""
    request = token_request(ClientCredentials("i d:", "a+b%:ä", "https://t/"), form)
    assert request.headers.get("Authorization") == authorization
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert request.body.decode() == body
    assert "a+b" not in repr(request)


async def test_forms_of_a_client_are_those_it_is_given() -> None:
    """A client that is given the forms of HTTP Basic sends nothing in the body."""
    endpoint = Endpoint("something else")
    client = TokenClient((TokenAuth.BASIC, TokenAuth.BASIC_RAW))
    with pytest.raises(TokenUnavailable) as caught:
        await client.fetch(ClientCredentials("id", "a+b", "https://t/"), endpoint.send)
    assert endpoint.received == [basic("id:a%2Bb"), basic("id:a+b")]
    assert (caught.value.requests, caught.value.refused, caught.value.endpoint) == (2, True, "https://t/")


async def test_a_failed_request_counts_before_a_refusal() -> None:
    """When the request with a later form fails, that is the error, because the form may have worked."""
    requests = []

    async def send(request: TokenRequest) -> TokenResponse:
        requests.append(request)
        if len(requests) == 2:
            raise TokenUnavailable("timed_out")
        return UNKNOWN

    with pytest.raises(TokenUnavailable) as caught:
        await TokenClient().fetch(ClientCredentials("id", "s", "https://t/"), send)
    assert (caught.value.reason, len(requests)) == ("timed_out", 2)


async def test_a_form_that_an_endpoint_does_not_know_hides_no_refusal() -> None:
    """The error is the endpoint's response to the first form, whatever it responds to the others."""
    responses = [UNKNOWN, TokenResponse(400, orjson.dumps({"error": "invalid_request"})), UNKNOWN]

    async def send(_: TokenRequest) -> TokenResponse:
        return responses.pop(0)

    with pytest.raises(TokenUnavailable) as caught:
        await TokenClient().fetch(ClientCredentials("id", "a+b", "https://t/"), send)
    assert (caught.value.code, caught.value.requests) == ("invalid_client", 3)


async def test_the_memory_of_endpoints_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest endpoint is forgotten first, and URLs that differ in their query are one endpoint."""
    monkeypatch.setattr(module, "_ENDPOINTS", 2)
    client, endpoint = TokenClient(), Endpoint(None)
    for url in ("https://a/?x", "https://a/?y", "https://b/", "https://A/", "https://c/"):
        await client.fetch(ClientCredentials("id", "s", url), endpoint.send)
    assert client._worked == {"https://b/": TokenAuth.POST, "https://c/": TokenAuth.POST}
    assert endpoint.received == [basic("id:s"), None, None, basic("id:s"), None, None, basic("id:s"), None]


async def test_a_pinned_form_is_not_remembered() -> None:
    """A form that one client is configured with is not tried first for others."""
    client, endpoint = TokenClient(), Endpoint(None)
    pinned = ClientCredentials("id", "s", "https://t/", token_auth=TokenAuth.POST)
    await client.fetch(pinned, endpoint.send)
    await client.fetch(ClientCredentials("id", "s", "https://t/"), endpoint.send)
    assert endpoint.received == [None, basic("id:s"), None]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/x",
        "t/x",
        "ftp://t/",
        "http://",
        "http://u:p@t/",
        "http://a b/",
        "http://t/#a",
        "http://t:0/",
        "http://t:x/",
    ],
)
async def test_an_invalid_token_url(url: str) -> None:
    """Nothing is sent to a token URL that is not absolute, not http or https, or has a user or a fragment."""
    endpoint = Endpoint(None)
    with pytest.raises(TokenUnavailable, match="token_url_invalid"):
        await TokenClient().fetch(ClientCredentials("id", "s", url), endpoint.send)
    assert endpoint.received == []
