"""What a drill found: a reason, and a sentence that says what to change.

No sentence has a secret, a token or what a server wrote, but for names of models that it lists.
"""

import dataclasses
import errno
import ssl
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import orjson

from gateway import errors
from gateway.credentials.checked_transport import UNRESOLVED
from program.excerpts import cut
from program.oauth.errors import TokenUnavailable
from program.problems import has_too_many_values
from program.tls import AuthoritiesUnusable

SENTENCE_CHARACTERS: Final = 600
"""Characters of the longest sentence."""
LIST_BYTES: Final = 1 << 20
"""Bytes of the longest list of models that is read."""
_NAMES: Final = 5
"""Names of models that a sentence has at most."""
_NAME_CHARACTERS: Final = 64
"""Characters of the longest name of a model in a sentence."""

_WORDS_OF_MODELS: Final = ("model", "deployment")
"""Words of which an error about the name of a model has one: Azure calls what has the name a deployment."""


class Reason(StrEnum):
    """Result of a drill in one word; the condition OffloadReady has the same words."""

    PROVEN = "Proven"
    """The remote backend can be reached and takes the gateway's credentials, as far as the drill has tried."""
    NOT_TRIED = "NotTried"
    """There is no result yet, or there are no drills."""
    NAME_UNKNOWN = "NameUnknown"
    """The name of the remote backend, or of its token endpoint, does not resolve."""
    CONNECT_FAILED = "ConnectFailed"
    """The remote backend, or its token endpoint, accepts no connection or sends no response."""
    CERTIFICATE_REFUSED = "CertificateRefused"
    """The TLS handshake failed, or the certificate is not accepted."""
    TOKEN_REFUSED = "TokenRefused"  # noqa: S105 - no password
    """The token endpoint gives no token, or the remote backend responds with 401 to the gateway's credentials."""
    CREDENTIAL_MISSING = "CredentialMissing"
    """The credentials for the remote backend are not there, cannot be read, or are not for its host."""
    MODEL_UNKNOWN = "ModelUnknown"
    """The remote backend does not have a model of the name that requests get there."""
    FORBIDDEN = "Forbidden"
    """The remote backend responds with 403 to the gateway's credentials, or asks for payment."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one drill."""

    reason: Reason
    message: str
    """Sentence that says what was tried, or what to change."""
    of_token: bool = False
    """Whether no new token could be had: an older one may count until its end, and requests with it say nothing."""
    of_requests: bool = False
    """Whether requests of clients have found it, which a drill that sends none cannot disprove."""


@dataclass(frozen=True, slots=True)
class Place:
    """Remote backend, in the words of a sentence."""

    address: str
    """Host and port."""
    is_default: bool
    """Whether it is the default remote backend, which the gateway's configuration describes."""

    @property
    def host_field(self) -> str:
        """Field or key that has the host."""
        return "defaultRemoteBackend.host" if self.is_default else "host of remoteBackend"


def finding(reason: Reason, message: str, *, of_token: bool = False) -> Finding:
    """Return a finding whose sentence has a bounded length."""
    return Finding(reason, message[:SENTENCE_CHARACTERS], of_token)


def proven(*, encrypted: bool, token: bool, credentials: bool, accepted: bool, asked: bool, also: str = "") -> Finding:
    """Return the finding of a drill that succeeded.

    Args:
        encrypted: Whether the connection uses TLS.
        token: Whether a token endpoint gives the token of requests.
        credentials: Whether the gateway shows the remote backend credentials of its own, of whatever kind.
        accepted: Whether the remote backend has served a request with them.
        asked: Whether a request was sent.
        also: Clause that says what else the drill found, without its full stop.
    """
    parts = ["the name", "the connection"]
    if encrypted:
        parts.append("the certificate")
    if accepted and credentials:
        parts.append("the credentials")
    elif token:
        parts.append("the token endpoint")
    if not asked:
        also = "it sent no request"
        if credentials:
            also += ", so it does not tell whether the credentials are accepted"
    elif credentials and not accepted:
        also += "; whether the credentials are accepted is not known"
    *first, last = parts
    return finding(Reason.PROVEN, f"The drill proved {', '.join(first)} and {last}{f'; {also}' if also else ''}.")


def of_connection(exc: errors.UpstreamError, place: Place, seconds: float) -> Finding:
    """Return what it means that the remote backend could not be connected to, or sent no response.

    Args:
        exc: What went wrong; its cause says more.
        place: Remote backend.
        seconds: Seconds that it had.
    """
    where = place.address
    cause = exc.__cause__ or exc.__context__  # compiled code does not set the first
    host = where.rpartition(":")[0]
    match exc:
        case errors.ConnectFailed(is_unresolved=True):
            message = (
                f"The name {host} does not resolve: correct {place.host_field}, or the name servers of the gateway."
            )
            return finding(Reason.NAME_UNKNOWN, message)
        case errors.ConnectTimeout(is_unresolved=True):
            message = f"No name server responded in time about {host}: check the name servers of the gateway."
            return finding(Reason.NAME_UNKNOWN, message)
        case errors.ConnectTimeout():
            message = (
                f"{where} accepted no connection within {seconds:g} s: check host and port, and whether firewalls and"
                " NetworkPolicies let the gateway out."
            )
        case errors.AddressRefused():
            message = (
                f"The name {host} leads to an address that the gateway may not connect to: correct {place.host_field},"
                " or add the range to gateway.allowedAddresses."
            )
        case errors.ConnectFailed():
            number = cause.errno if isinstance(cause, OSError) else None
            message = f"{where} {_refusal(number)}"
        case errors.TlsFailed():
            return finding(Reason.CERTIFICATE_REFUSED, _handshake(cause, place))
        case errors.FirstByteTimeout() | errors.IdleTimeout():
            message = f"{where} did not respond within {seconds:g} s: check what runs there."
        case errors.UpstreamReset():
            message = (
                f"{where} closed the connection without a response: check what runs there, and whether it asks for a"
                " client certificate (tls.clientCertificateRef)."
            )
        case _:
            message = f"{where} sent a response that is no valid HTTP/1.1: check port and scheme."
    return finding(Reason.CONNECT_FAILED, message)


def _refusal(number: int | None) -> str:
    """Return the end of a sentence that begins with the address, by the error of connecting."""
    if number == errno.ECONNREFUSED:
        return "refuses connections: check host and port, and that a server runs there."
    if number in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return "cannot be reached from the gateway: check host, routes and NetworkPolicies."
    return "ended the connection before it was established: check host, port and scheme."


def _handshake(cause: BaseException | None, place: Place) -> str:
    """Return why a TLS handshake failed, and what to change."""
    host = place.address.rpartition(":")[0]
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"The certificate of {place.address} {_verdict(cause.verify_code, host, place)}"
    if isinstance(cause, ssl.SSLError):
        return (
            f"The TLS handshake with {place.address} failed: check that port and scheme are those of a server with TLS"
            " 1.2 or later, and whether it asks for a client certificate (tls.clientCertificateRef)."
        )
    if isinstance(cause, AuthoritiesUnusable):
        return f"{place.address} cannot be verified: tls.caBundle has no certificates in PEM."
    return f"{place.address} speaks another protocol than HTTP/1.1 over TLS: check port and scheme."


def _verdict(code: int, host: str, place: Place) -> str:
    """Return the end of a sentence that begins with the certificate, by the number that X.509 verification gives."""
    if code == 10:  # X509_V_ERR_CERT_HAS_EXPIRED, also of an authority in the chain
        return "has expired, or one that it was issued with: it has to be renewed there."
    if code == 9:  # X509_V_ERR_CERT_NOT_YET_VALID
        return "is not valid yet: check the clocks of both machines."
    if code in (62, 64):  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
        more = "" if place.is_default else ", or set tls.serverName to a name that it has"
        return f"is not for the name {host}: correct {place.host_field}{more}."
    if code in (2, 18, 19, 20, 21):  # the issuer is not there, or is not trusted
        more = "use one that the system of the gateway trusts" if place.is_default else "put that into tls.caBundle"
        return f"comes from an authority that is not trusted: {more}."
    return f"is not accepted (X.509 error {code}): have it issued anew."


def of_credentials(exc: errors.CredentialsFailed, place: Place) -> Finding:
    """Return what it means that there are no credentials for the remote backend."""
    source = exc.source or "the reference to the credentials"
    if exc.unavailable is None:
        problem = cut(exc.problem) or "it is not there, or has no value that can be used"
        return finding(Reason.CREDENTIAL_MISSING, _about(source, problem))
    return _of_token(exc.unavailable, source, place)


def _about(source: str, problem: str) -> str:
    """Return a sentence about what has credentials; some problems name it themselves."""
    start = "" if problem.startswith(source) else f"{source[0].upper()}{source[1:]}: "
    return f"{start}{problem}: create or correct it."


def _of_token(exc: TokenUnavailable, source: str, place: Place) -> Finding:
    endpoint = cut(exc.endpoint) or "the token endpoint"
    reason = exc.reason
    if reason.startswith(("credential_missing", "credential_in")) or reason in ("token_url_invalid", "client_refused"):
        detail = cut(exc.detail) or ("tokenUrl is no URL" if reason == "token_url_invalid" else "it is not there")
        return finding(Reason.CREDENTIAL_MISSING, _about(source, detail), of_token=True)
    if reason == "credential_unreadable":
        message = f"{source[0].upper()}{source[1:]} cannot be read: {cut(exc.detail)}. Check what the gateway may read."
        return finding(Reason.CREDENTIAL_MISSING, message, of_token=True)
    if exc.refused:
        word = f" {exc.code}" if exc.code and exc.code != "other" else ""
        message = (
            f"The token endpoint {endpoint} responded with {exc.status}{word}: correct clientId, clientSecret and scope"
            f" in {source}."
        )
        return finding(Reason.TOKEN_REFUSED, message, of_token=True)
    if exc.status is not None or reason.startswith(("token_status", "token_answer", "token_invalid", "token_type")):
        if exc.status == 429 or (exc.status or 0) >= 500:
            message = (
                f"The token endpoint {endpoint} responded with {exc.status}: it has to work again, or tokenUrl in"
                f" {source} has to name another one."
            )
        elif exc.status is None or exc.status < 300:
            message = f"The token endpoint {endpoint} sent no token that can be used: check tokenUrl in {source}."
        else:
            message = f"The token endpoint {endpoint} responded with {exc.status}: check tokenUrl in {source}."
        return finding(Reason.TOKEN_REFUSED, message, of_token=True)
    if reason == "tls_failed":
        message = (
            f"The certificate of the token endpoint {endpoint} is not accepted: check its dates and names, or give its"
            f" authority in {source}."
        )
        return finding(Reason.CERTIFICATE_REFUSED, message, of_token=True)
    if exc.detail == UNRESOLVED:
        message = f"The name of the token endpoint {endpoint} does not resolve: correct tokenUrl in {source}."
        return finding(Reason.NAME_UNKNOWN, message, of_token=True)
    if reason == "address_refused":
        message = (
            f"The token endpoint {endpoint} has an address that the gateway may not connect to: correct tokenUrl in"
            f" {source}, or add the range to gateway.allowedAddresses."
        )
        return finding(Reason.CONNECT_FAILED, message, of_token=True)
    message = (
        f"The token endpoint {endpoint} cannot be reached, or does not respond in time, so {place.address} gets no"
        f" token: check tokenUrl in {source}, and whether the gateway may connect to it."
    )
    return finding(Reason.CONNECT_FAILED, message, of_token=True)


def of_refusal(status: int, place: Place) -> Finding:
    """Return what it means that the remote backend refuses the gateway's credentials, with 401, 402 or 403."""
    if status == 401:
        message = (
            f"{place.address} responded with 401 to the gateway's credentials: correct the key, or the scope and the"
            " audience of the token."
        )
        return finding(Reason.TOKEN_REFUSED, message)
    message = (
        f"{place.address} responded with {status} to the gateway's credentials: give their account the right to use the"
        " model there."
    )
    return finding(Reason.FORBIDDEN, message)


def refused_requests(place: Place) -> Finding:
    """Return the finding that requests of clients get 401 for the gateway's credentials."""
    return dataclasses.replace(of_refusal(401, place), of_requests=True)


def unknown_models(body: bytes, names: Collection[str]) -> tuple[Collection[str], str] | str:
    """Return which of `names` a list of models does not have, and which names it has, as words of a sentence.

    A name counts as listed where it is an id or an alias, or the last part of an id behind a slash. What cannot be read
    as a list tells nothing: then the result is a clause that says so.
    """
    if len(body) >= LIST_BYTES:
        return f"its list of models is longer than {LIST_BYTES} bytes, so it was not looked for the name"
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "its response is no list of models"
    if has_too_many_values(content):
        return "its list of models has too many values, so it was not looked for the name"
    entries = content
    if isinstance(content, Mapping):
        entries = content.get("data", content.get("models"))
        if content.get("has_more") is True:
            return "its list of models goes on, so it was not looked for the name"
    if not isinstance(entries, list):
        return "its response is no list of models"
    listed = dict.fromkeys(_listed(entries))
    missing = [name for name in names if name not in listed and not any(one.endswith(f"/{name}") for one in listed)]
    some = [one for one in listed if one.isascii() and one.isprintable() and len(one) <= _NAME_CHARACTERS][:_NAMES]
    more = len(listed) - len(some)
    if not some:
        return missing, "no name"
    return missing, ", ".join(some) + (f" and {more} more" if more > 0 else "")


def _listed(entries: list[object]) -> Iterator[str]:
    """Yield the ids and aliases of a list of models."""
    for entry in entries:
        if isinstance(entry, Mapping):
            aliases = entry.get("aliases")
            for one in (entry.get("id", entry.get("name")), *(aliases if isinstance(aliases, list) else ())):
                if isinstance(one, str):
                    yield one


def model_unknown(missing: Collection[str], listed: str, place: Place) -> Finding:
    """Return the finding that the remote backend does not list a name of the model.

    Args:
        missing: Names that it does not have.
        listed: Names that it has, as words of a sentence.
        place: Remote backend.
    """
    names = ", ".join(cut(name)[:_NAME_CHARACTERS] for name in list(missing)[:_NAMES])
    message = (
        f"{place.address} does not list {names}, but {listed}: set spec.model or remoteModel to a name that it lists."
    )
    return finding(Reason.MODEL_UNKNOWN, message)


def of_completion(status: int, body: bytes, name: str, place: Place) -> Finding | str:
    """Return what the response to a completion of one token means; a clause where it is a success, or tells nothing.

    Args:
        status: Status of the response, which is none of 401, 402 and 403.
        body: Its body.
        name: Name of the model in the request.
        place: Remote backend.
    """
    shown = cut(name)[:_NAME_CHARACTERS]
    if 200 <= status < 300:
        return f"it served one token of {shown}"
    if status == 429:
        message = (
            f"{place.address} responded with 429 to a completion: its rate limit, or the account's quota, is used up."
        )
        return finding(Reason.FORBIDDEN, message)
    if status >= 500:
        message = f"{place.address} responded with {status} to a completion: it serves no requests of {shown} now."
        return finding(Reason.CONNECT_FAILED, message)
    if status in (400, 404, 422) and _is_about_model(body):
        message = f"{place.address} does not serve {shown}: set spec.model or remoteModel to a name that it knows."
        return finding(Reason.MODEL_UNKNOWN, message)
    return f"it responded with {status} to a completion, which says nothing about the name {shown}"


def _is_about_model(body: bytes) -> bool:
    """Return whether an error is about the name of the model, in the forms that servers send.

    An error is an object, also in a list of one as Gemini sends it, or a text as those of Ollama and FastAPI are. An
    error about another parameter, as models send it that do not take `max_tokens`, may name the model in its message.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    if isinstance(content, list) and content:
        content = content[0]
    error = content.get("error", content) if isinstance(content, Mapping) else None
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, Mapping):
        return False
    texts = [one.lower() for one in map(error.get, ("code", "message", "detail")) if isinstance(one, str)]
    parameter = error.get("param")
    if isinstance(parameter, str) and parameter:
        return "model" in parameter.lower()
    if any("max_tokens" in one for one in texts):
        return False
    return any(word in one for one in texts for word in _WORDS_OF_MODELS)
