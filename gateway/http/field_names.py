"""What a name says about a field: whether it has a credential or an account of the caller, or says who the caller is or
where a request comes from.

New names of these kinds appear all the time, so names are judged by the words in them. docs/gateway.md has the rule for
users; `forwardHeaders` of a backend is for names that the rule takes for what they are not. Query parameters and
subprotocols of WebSockets are judged like fields: servers take keys in all three places.
"""

import re
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

OF_CONTENT: Final = frozenset({b"content-digest", b"content-md5", b"digest", b"repr-digest"})
"""Names of fields that are wrong once a body is changed (RFC 9530)."""
_LONGEST: Final = 256
"""Bytes of the longest name whose verdict is remembered; so memory has a bound whatever clients send."""

_BETWEEN_WORDS: Final = re.compile(rb"v?[0-9]+|[^a-z]")
"""Regular expression for what ends a word: digits, a version such as `v2`, and whatever is no letter."""
_CAMEL_CASE: Final = re.compile(rb"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Regular expression for the places where a word of `camelCase` ends."""

# The expressions below are for words in the form of `_words`: in lower case, with a hyphen before and behind each.

_PAIRS: Final = re.compile(rb"-(?:idempotency-?key|(?:next)?(?:page|continuation)-?token|user-?agent)s?(?=-)")
"""Regular expression for pairs of words that are of no kind, though one of the two is."""

_NO_CREDENTIAL: Final = re.compile(rb"-(?:sec-websocket|mcp-session-id-$)")
"""Regular expression for names that only look like those of credentials: parts of protocols."""

_CREDENTIAL: Final = re.compile(
    # Words, and a word that begins with `auth` but is about no author.
    rb"-(?:bearer|hmac|dpop|jw[est]|mfa|[ht]?otp|sig|csrf|xsrf|wsse|kerberos|ntlm)s?-"
    rb"|-auth(?!or(?!i[sz]))"
    rb"|-api-keys?-|-session-ids?-"
    # Words that are found also where they are written together with others.
    rb"|authori[sz]ation|authentication|oauth|password|passwd|passphrase|passcode|credential|apikey|sessionid|sessid"
    rb"|(?:auth|secret|cookie|jwt|signature|assertion|pwd)s?-"
    # Words that count at the end, behind which only a version, an id or a letter stands.
    rb"|(?:(?<!-mon)(?<!-don)(?<!-tur)(?<!-hoc)(?<!-joc)(?<!-whis)(?<!-hot)keys?(?:ids?)?"
    rb"|secretids?|-session|-sid|-pass|-pin|-creds?|-tickets?|-sign"
    rb"|-(?:access|pin|invite|activation|verification|security|device)-code)"
    rb"-(?:(?:id|value|[a-z])-)*$"
    # All of a name.
    rb"|^-(?:x-)?code-$"
)
"""Regular expression for the words of credentials."""

_ACCOUNT: Final = re.compile(rb"-(?:organi[sz]ation|org|project|account|workspace)s?-(?:(?:id|name)-)?$")
"""Regular expression for the words of accounts, at the end of a name."""

_TOKEN: Final = re.compile(rb"tokens?-")
_ONE_TOKEN: Final = re.compile(rb"token-(?:(?:id|value|[a-z])-)*$")
"""Regular expression for names that end with one token; more of them may be an amount of text."""
_AMOUNT: Final = re.compile(
    rb"-(?:n-|(?:max|min|num|number|count|limit|budget|usage|total|input|output|prompt|completion|cached|reasoning"
    rb"|thinking|special|stop|remaining|ids)(?:imum|s)?(?:-|[a-z]*tokens-))"
)
"""Regular expression for the words of amounts, with which tokens are those that a model counts."""

_NO_IDENTITY: Final = re.compile(rb"-sec-fetch-")
"""Regular expression for names with the words of identities that say nothing about the caller's identity."""

_IDENTITY: Final = re.compile(
    rb"^-(?:x-)?(?:remote|impersonate)-"
    rb"|-(?:forwarded|ssl|tls|mtls|webauth|kubeflow|istio|spiffe|oidc|saml|peer|auth-request|authenticated"
    rb"|impersonated?|identity|identities|uid|(?:client|peer|ssl|tls)?cert(?:ificate)?s?)-"
    # Words that are found also before `id` and `name`.
    rb"|-(?:login|e?mail|group|team|role|principal|subject|tenant|consumer|claim|scope|permission)(?:s|s?ids?|names?)?-"
    rb"|-user[a-z]*-|(?:user|email)s?-"
    # What a proxy tells about the certificate of a client.
    rb"|-(?:client-?|peer-?|subject-|issuer-|s-|i-)(?:dn|cn|san)s?-"
    rb"|-client-?(?:cert|verif|serial|fingerprint|thumbprint|chain)"
    # What a proxy tells about the request as it came, whose query may have credentials.
    rb"|-(?:original|rewrite|request)-(?:uri|url|path)-$"
    # What content delivery networks tell about the address of a client.
    rb"|(?:client|connecting|originating|original|peer|real|sender|socket|source|external|viewer)"
    rb"-?(?:ip|addr|address)-$"
)
"""Regular expression for the words of fields in which a proxy says who the caller is, or where it is."""

_CONTEXT: Final = re.compile(rb"^-(?:referer|from)-$|-baggage-|^-uberctx-")
"""Regular expression for the words of fields that say from where a request comes: the address of the page (RFC 9110
10.1.3), that of a person (10.1.2), and what programs pass along with a trace (W3C Baggage, Jaeger, OpenTracing)."""

_MOST_LABELS: Final = 16
"""Labels between dots in which the name of a credential is looked for, in a subprotocol."""
_ENCODED_OBJECT: Final = re.compile(rb"(?:^|[^A-Za-z0-9])eyJ[A-Za-z0-9_-]{16}")
"""Regular expression for JSON in base64url, the form of tokens (RFC 7519)."""
_KEY: Final = re.compile(
    rb"^[ers]k[-_]|(?<![A-Za-z0-9_])(?=[A-Za-z_]*[0-9])(?=[0-9_]*[A-Za-z])[A-Za-z0-9_]{16}"
    rb"|(?<![A-Za-z0-9])[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-"
)
"""Regular expression for what is a key by itself: it begins as keys of OpenAI do, has a long word of letters and
digits, or a UUID."""
_SCHEME: Final = re.compile(rb"(?:basic|digest|negotiate)", re.IGNORECASE)
"""Regular expression for the schemes of authentication whose names are no words of credentials (RFC 9110 11.1)."""
_WORDS_ONLY: Final = re.compile(rb"[A-Za-z-]+")


def is_credential(name: bytes) -> bool:
    """Return whether a field of this name, or a query parameter with its name as it is written, has a credential."""
    return _remembered_credential(name) if len(name) <= _LONGEST else _is_credential(name)


def is_identity(name: bytes) -> bool:
    """Return whether a field of this name (in lower case) says who the caller is, which only a proxy may say."""
    return _remembered_identity(name) if len(name) <= _LONGEST else _is_identity(name)


def is_account(name: bytes) -> bool:
    """Return whether a field of this name (in lower case) names an account of the caller, which goes with its key."""
    return _ACCOUNT.search(_words(name)) is not None


def is_context(name: bytes) -> bool:
    """Return whether a field of this name (in lower case) says from where inside a request comes."""
    return _CONTEXT.search(_words(name)) is not None


@lru_cache(maxsize=4096)
def _remembered_credential(name: bytes) -> bool:
    return _is_credential(name)


def _is_credential(name: bytes) -> bool:
    if b"%" in name:
        name = unquote_to_bytes(name)
    if _has_credential(_words(name.lower())):
        return True
    apart = _CAMEL_CASE.sub(b"-", name)
    return apart != name and _has_credential(_words(apart.lower()))


def _has_credential(words: bytes) -> bool:
    if _NO_CREDENTIAL.match(words):
        return False
    words = _PAIRS.sub(b"", words)
    if _CREDENTIAL.search(words):
        return True
    return _TOKEN.search(words) is not None and (_ONE_TOKEN.search(words) is not None or _AMOUNT.search(words) is None)


@lru_cache(maxsize=4096)
def _remembered_identity(name: bytes) -> bool:
    return _is_identity(name)


def _is_identity(name: bytes) -> bool:
    words = _words(name)
    return not _NO_IDENTITY.match(words) and _IDENTITY.search(_PAIRS.sub(b"", words)) is not None


def _words(name: bytes) -> bytes:
    """Return the words of a name in lower case, each between two hyphens."""
    return b"-%b-" % b"-".join(filter(None, _BETWEEN_WORDS.split(name)))


def credential_parameters(target: bytes) -> Iterator[bytes]:
    """Yield the names of the parameters in a target's query that are credentials, in lower case and with hyphens."""
    for parameter in target.partition(b"?")[2].replace(b";", b"&").split(b"&"):
        name = parameter.partition(b"=")[0]
        if name and is_credential(name):
            yield _field_name(name)


def without_credentials(target: bytes, kept: Collection[bytes]) -> bytes:
    """Return a target without the parameters of its query that are credentials; all other bytes do not change.

    Parameters are taken to end at `;` as well as at `&`, because some servers read both.

    Args:
        target: Request target.
        kept: Names of parameters that stay, in lower case and with hyphens.
    """
    path, mark, query = target.partition(b"?")
    rest: list[bytes] = []
    removed = False
    for group in query.split(b"&"):
        if b";" not in group:
            if _stays(group, kept):
                rest.append(group)
            else:
                removed = True
            continue
        parameters = group.split(b";")
        left = [one for one in parameters if _stays(one, kept)]
        if left:
            rest.append(b";".join(left))
        removed = removed or len(left) < len(parameters)
    if not removed:
        return target
    return path + mark + b"&".join(rest) if rest else path


def _stays(parameter: bytes, kept: Collection[bytes]) -> bool:
    name = parameter.partition(b"=")[0]
    return not name or not is_credential(name) or _field_name(name) in kept


def _field_name(name: bytes) -> bytes:
    """Return the name of a query parameter as the name of a field: decoded, in lower case, with hyphens."""
    return unquote_to_bytes(name.replace(b"+", b" ")).strip().lower().replace(b"_", b"-")


def without_credential_protocols(value: bytes) -> bytes:
    """Return a list of subprotocols of a WebSocket without those in which browsers send credentials and accounts.

    Browsers cannot set other fields, so servers take `openai-insecure-api-key.sk-…`, or `token` and the token in
    the next item. A list without any does not change.
    """
    items = [item.strip(b" \t") for item in value.split(b",")]
    rest: list[bytes] = []
    follows = False
    """Whether the last item was the name of a credential, whose value is the next one."""
    for item in items:
        name = _credential_in(item)
        # The name may be in two items, as `authorization, bearer`, before the value.
        is_name = name == item and (not follows or _WORDS_ONLY.fullmatch(item) is not None)
        if follows or name is not None:
            follows = is_name and (_SCHEME.fullmatch(item) is not None or _is_credential(_last_word(item)))
        elif not _ENCODED_OBJECT.search(item) and not _KEY.search(item) and not _has_account(item):
            rest.append(item)
    return value if len(rest) == len(items) else b", ".join(filter(None, rest))


def _has_account(item: bytes) -> bool:
    """Return whether a subprotocol is an account with its name before a dot, as `openai-project.…`."""
    label, dot, _ = item.partition(b".")
    return bool(dot) and label.find(b"-") > 0 and is_account(label.lower())


def _last_word(name: bytes) -> bytes:
    return _words(_CAMEL_CASE.sub(b"-", name).lower()).split(b"-")[-2]


def _credential_in(item: bytes) -> bytes | None:
    """Return the start of a subprotocol, up to a dot or its end, that is the name of a credential; None without one."""
    end = -1
    for _ in range(_MOST_LABELS):
        end = item.find(b".", end + 1)
        if end < 0:
            break
        if _SCHEME.fullmatch(item, 0, end):
            return item[:end]
        if _is_credential(item[:end]):
            return item[:end]
    return item if _SCHEME.fullmatch(item) or _is_credential(item) else None
