"""What a name says about a field: whether it has a credential, or says who the caller is.

New names of both kinds appear all the time, so names are judged by the words in them. docs/gateway.md has the rule for
users; `forwardHeaders` of a backend is for names that the rule takes for what they are not. Query parameters are judged
like fields: servers take keys in both places.
"""

import re
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

_NO_CREDENTIAL: Final = re.compile(
    rb"(?:x-)?idempotency-key|sec-websocket-[a-z-]+|(?:next-?)?page-?token|(?:next-?)?continuation-?token"
)
"""Regular expression for names that end like those of credentials and have none."""

_CREDENTIAL: Final = re.compile(
    rb"authorization|password|passwd"
    rb"|(?:^|-)(?:auth|authentication|jwt|dpop|secret|credentials?|api-?keys?)(?:-|$)"
    rb"|(?:^|-)(?:keys?|sig)$"
    rb"|(?:apikey|accesskeyid|token|secret|cookie2?|credentials?|jwt|signature)$"
)
"""Regular expression for the words of credentials, and for the ends of their names."""

_NO_IDENTITY: Final = re.compile(rb"(?:.*-)?user-agent|sec-.*")
"""Regular expression for names with the words of identities that say nothing about the caller's identity."""

_IDENTITY: Final = re.compile(
    rb"^(?:x-)?(?:forwarded|auth-request|remote|impersonate|ssl|tls|mtls|webauth|kubeflow)-"
    rb"|(?:^|-)(?:user|userid|uid|username|userinfo|email|groups|roles?|principal|subject|tenant|tenantid|identity"
    rb"|claims?|authenticated|impersonated?|oidc|saml|mtls|certificate|cert)(?:-|$)"
    rb"|(?:^|-)(?:client|s|i|ssl)-dn$"
    rb"|(?:^|-)(?:client|connecting|originating|peer|real|socket|source)-?(?:ip|ipv6|addr|address)$"
)
"""Regular expression for the prefixes and words of fields in which a proxy says who the caller is, and for the names of
those in which content delivery networks tell the caller's address."""


@lru_cache(maxsize=4096)
def is_credential(name: bytes) -> bool:
    """Return whether a field, or a query parameter, of this name (in lower case) has a credential."""
    return _CREDENTIAL.search(name) is not None and not _NO_CREDENTIAL.fullmatch(name)


@lru_cache(maxsize=4096)
def is_identity(name: bytes) -> bool:
    """Return whether a field of this name (in lower case) says who the caller is, which only a proxy may say."""
    return _IDENTITY.search(name) is not None and not _NO_IDENTITY.fullmatch(name)


def credential_parameters(target: bytes) -> Iterator[bytes]:
    """Yield the names of the parameters in a target's query that are credentials, as `is_credential` judges them."""
    for parameter in target.partition(b"?")[2].split(b"&"):
        name = _parameter_name(parameter)
        if is_credential(name):
            yield name


def without_credentials(target: bytes, kept: Collection[bytes]) -> bytes:
    """Return a target without the parameters of its query that are credentials; all other bytes do not change.

    Args:
        target: Request target.
        kept: Names of parameters that stay, in lower case and with hyphens.
    """
    path, mark, query = target.partition(b"?")
    parameters = query.split(b"&")
    rest = [one for one in parameters if not is_credential(name := _parameter_name(one)) or name in kept]
    if len(rest) == len(parameters):
        return target
    return path + mark + b"&".join(rest) if rest else path


def _parameter_name(parameter: bytes) -> bytes:
    """Return the name of a query parameter as the name of a field: decoded, in lower case, with hyphens."""
    name = parameter.partition(b"=")[0]
    return unquote_to_bytes(name.replace(b"+", b" ")).strip().lower().replace(b"_", b"-")
