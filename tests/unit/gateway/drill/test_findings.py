"""Sentences and reasons of drills, for every kind of failure and for every list of models."""

import errno
from typing import Any, Final

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.credentials.checked_transport import UNRESOLVED
from gateway.drill import findings
from gateway.drill.findings import Place, Reason
from program.oauth.errors import TokenUnavailable

PLACE: Final = Place("models.test:443", is_default=False)
DEFAULT: Final = Place("run.test:443", is_default=True)
FAILURES: Final[list[tuple[TokenUnavailable, Reason]]] = [
    (TokenUnavailable("token_status_401", status=401, code="invalid_client"), Reason.TOKEN_REFUSED),
    (TokenUnavailable("token_status_500", status=500), Reason.TOKEN_REFUSED),
    (TokenUnavailable("token_answer_invalid", status=200), Reason.TOKEN_REFUSED),
    (TokenUnavailable("credential_missing", "Secret a/keys does not exist"), Reason.CREDENTIAL_MISSING),
    (TokenUnavailable("credential_unreadable", "Permission denied"), Reason.CREDENTIAL_MISSING),
    (TokenUnavailable("credential_invalid", "scope must be text"), Reason.CREDENTIAL_MISSING),
    (TokenUnavailable("credential_incomplete", "there is no clientId"), Reason.CREDENTIAL_MISSING),
    (TokenUnavailable("token_url_invalid"), Reason.CREDENTIAL_MISSING),
    (TokenUnavailable("tls_failed", "certificate has expired"), Reason.CERTIFICATE_REFUSED),
    (TokenUnavailable("connect_failed", UNRESOLVED), Reason.NAME_UNKNOWN),
    (TokenUnavailable("connect_failed"), Reason.CONNECT_FAILED),
    (TokenUnavailable("address_refused"), Reason.CONNECT_FAILED),
    (TokenUnavailable("timed_out"), Reason.CONNECT_FAILED),
    (TokenUnavailable("token_late"), Reason.CONNECT_FAILED),
]


@pytest.mark.parametrize(("unavailable", "reason"), FAILURES, ids=lambda one: str(one))
@pytest.mark.parametrize("place", [PLACE, DEFAULT])
def test_why_there_is_no_token(unavailable: TokenUnavailable, reason: Reason, place: Place) -> None:
    """Each cause has its reason, a whole sentence that names the credentials, and is marked as one of new tokens."""
    exc = errors.CredentialsFailed(source="Secret a/keys", unavailable=unavailable)
    one = findings.of_credentials(exc, place)
    assert (one.reason, one.of_token) == (reason, True)
    assert one.message[0].isupper()
    assert one.message.endswith(".")
    assert "Secret a/keys" in one.message


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (503, "responded with 503: it has to work again"),
        (429, "responded with 429: it has to work again"),
        (404, "responded with 404: check tokenUrl in Secret a/keys"),
        (200, "sent no token that can be used: check tokenUrl in Secret a/keys"),
    ],
)
def test_what_a_token_endpoint_responded(status: int, words: str) -> None:
    """The sentence has the status, and says whether to wait for the token endpoint or to look at its URL."""
    unavailable = TokenUnavailable(f"token_status_{status}", status=status)
    exc = errors.CredentialsFailed(source="Secret a/keys", unavailable=unavailable)
    assert words in findings.of_credentials(exc, PLACE).message


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ECONNRESET, None])
def test_a_connection_that_fails(number: int | None) -> None:
    """An error of connecting is ConnectFailed, in a sentence with the address."""
    exc = errors.ConnectFailed()
    exc.__cause__ = None if number is None else OSError(number, "words of the kernel")
    one = findings.of_connection(exc, PLACE, 5)
    assert one.reason is Reason.CONNECT_FAILED
    assert one.message.startswith("models.test:443 ")
    assert "words of the kernel" not in one.message


CASES: Final[list[tuple[Any, list[str], list[str] | None]]] = [
    ({"data": [{"id": "a"}]}, ["a"], []),
    ({"data": [{"id": "a"}]}, ["a", "b"], ["b"]),
    ([{"id": "a"}], ["a"], []),
    ({"models": [{"name": "a"}]}, ["a"], []),
    ({"data": [{"id": "org/a"}]}, ["a"], []),
    ({"data": [{"id": "xa"}]}, ["a"], ["a"]),
    ({"data": [{"id": "x", "aliases": ["a", 1]}]}, ["a"], []),
    ({"data": [{"id": "b"}], "has_more": True}, ["a"], None),
    ({"data": {"id": "a"}}, ["a"], None),
    ({"data": [1, None, "a", {"id": 3}]}, ["a"], ["a"]),
    ("a", ["a"], None),
    ({"data": [0] * 60000}, ["a"], None),
]


@pytest.mark.parametrize(("content", "names", "missing"), CASES, ids=lambda one: repr(one)[:40])
def test_names_in_a_list(content: Any, names: list[str], missing: list[str] | None) -> None:
    """A name is in a list as an id, an alias or the end of an id; what is no whole list tells nothing."""
    verdict = findings.unknown_models(orjson.dumps(content), names)
    assert (None if isinstance(verdict, str) else verdict[0]) == missing


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["data", "id", "aliases", "error"]), inner)
    ),
    max_leaves=12,
)


@given(JSON, st.text(max_size=300))
def test_no_response_breaks_a_drill(content: Any, name: str) -> None:
    """Whatever a server responds, there is a verdict, and its sentence has a bounded length."""
    body = orjson.dumps(content)
    verdict = findings.unknown_models(body, [name])
    if not isinstance(verdict, str):
        one = findings.model_unknown(verdict[0] or [name], verdict[1], PLACE)
        assert len(one.message) <= findings.SENTENCE_CHARACTERS
    for status in (200, 400, 404, 429, 500):
        findings.of_completion(status, body, name, PLACE)


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (404, [{"error": {"code": 404, "message": "models/a is not found", "status": "NOT_FOUND"}}], "ModelUnknown"),
        (404, {"error": 'model "a" not found, try pulling it first'}, "ModelUnknown"),
        (404, {"detail": "Model a does not exist"}, "ModelUnknown"),
        (404, {"error": {"code": "DeploymentNotFound", "message": "The API does not exist."}}, "ModelUnknown"),
        (404, {"error": {"code": "model_not_found", "message": "no", "param": None}}, "ModelUnknown"),
        (400, {"error": {"message": "It is invalid.", "param": "model"}}, "ModelUnknown"),
        (400, {"error": {"message": "'max_tokens' is not supported with this model.", "param": "max_tokens"}}, None),
        (400, {"error": {"message": "'max_tokens' is not supported with this model.", "param": None}}, None),
        (422, {"detail": [{"loc": ["body", "model"]}]}, None),
        (404, [], None),
        (404, ["model"], None),
        (404, {"error": None}, None),
    ],
)
def test_errors_about_the_name_of_the_model(status: int, error: object, reason: str | None) -> None:
    """Errors of several servers are about the name; one about another parameter that names the model is not."""
    found = findings.of_completion(status, orjson.dumps(error), "a", PLACE)
    assert (None if isinstance(found, str) else found.reason) == reason


@given(st.binary(max_size=60))
def test_no_bytes_break_a_drill(body: bytes) -> None:
    """A response that is no JSON, or no UTF-8, tells nothing."""
    findings.unknown_models(body, ["a"])
    findings.of_completion(404, body, "a", PLACE)


def test_names_that_a_server_lists_are_shown_with_care() -> None:
    """A sentence has five names of models at most, none that is long or has other characters than ASCII."""
    listed = ["x" * 65, "é", "a\nb", *(f"m{number}" for number in range(9))]
    body = orjson.dumps({"data": [{"id": one} for one in listed]})
    assert findings.unknown_models(body, ["a"]) == (["a"], "m0, m1, m2, m3, m4 and 7 more")
