"""Names of fields, query parameters and subprotocols: which of them have credentials, or say who the caller is."""

import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.field_names import (
    credential_parameters,
    is_context,
    is_credential,
    is_identity,
    without_credential_protocols,
    without_credentials,
)

CREDENTIALS = """
    Authorization Proxy-Authorization X-Authorization X-Serverless-Authorization X-Auth X-Auth-Token X-Authn
    X-Authz X-OAuth2 X-OAuth2-Bearer X-OAuthToken Auth0 X-AuthHeader X-BasicAuth Cookie Cookie2 X-Cookies
    Set-Cookie X-SessionCookie Api-Key X-Api-Key X-Api-Key-V2 X-Api-Key-2 X-Api-Keys ApiKey XApiKey api_key
    api.key api-key[] api[key] X-Goog-Api-Key AccessKey X-AccessKey AccessKeyId AWSAccessKeyId SecretKey
    X-SecretKey AuthKey PrivateKey SubscriptionKey Ocp-Apim-Subscription-Key X-LicenseKey X-ClientKey
    X-MasterKey X-Functions-Key X-Key X-Keys key PassKey X-EncryptionKey X-Key-Id keyId X-Secret X-Secrets
    X-ClientSecret client_secret X-Secret-V2 X-Shared-Secret2 X-Token X-Tokens X-Access-Token
    X-Access-Token-V2 X-Access-Tokens X-CSRFToken X-Token-Id tokenV2 X-Vault-Token access_token accessToken
    refreshToken idToken id_token X-Token-Value X-Amz-Security-Token Bearer X-Bearer X-Bearer-Token Password
    X-Passwords passWord X-Passwd X-Pwd pwd userPwd X-Passphrase passphrase X-Pass X-JWT X-JWT-Assertion
    assertion client_assertion SAMLAssertion DPoP X-HMAC X-OTP X-TOTP otp otp-2 X-MFA-Code X-Session-Id
    sessionId JSESSIONID PHPSESSID X-Session sid X-Session-Token connect.sid Signature X-Signature
    X-Hub-Signature-256 X-Amz-Signature sig X-Amz-Credential X-Credentials code X-Code ap%69-key X-Ticket ticket
    X-CSRF xsrf X-WSSE X-Kerberos X-NTLM X-Pin X-Pin-Code access_code X-Invite-Code sign X-Sign X-Creds secretId
    secretid
    %61uthorization
"""

IDENTITIES = """
    X-Forwarded-User X-Forwarded-Access-Token X-Auth-Request-User X-Auth-Request-Email Remote-User
    X-Remote-Groups X-Remote-Extra-Scopes Impersonate-User X-User XUser X-Users X-User-Id X-UserId X-Username
    X-AuthUser X-User-Agent-User X-Email X-UserEmail X-Mail X-Login X-LoginName X-Group X-Groups X-GroupId
    X-Team X-Teams X-TeamId X-Role X-Roles X-Tenant X-TenantId X-Principal X-Subject X-Identity X-Claims
    X-Claim-Sub X-Scope-OrgID X-Permissions X-Consumer-Id X-Consumer-Custom-Id X-Consumer-Username
    X-Anonymous-Consumer X-Spiffe-Id X-Istio-Attributes X-Envoy-Peer-Metadata X-Envoy-Peer-Metadata-Id
    X-Peer-Identity X-Oidc-Claims X-Saml-Name X-Arr-ClientCert X-ClientCert Client-Cert Client-Cert-Chain
    X-Client-Certificate X-SSL-Cert X-SSL-Client-Verify X-Client-Verify X-Client-Verified X-Client-Cn
    X-ClientCN X-Client-Dn X-Client-San X-Client-Serial X-Client-Fingerprint X-Subject-Dn Ssl-Client-S-Dn
    X-Original-URI X-Envoy-Original-Path X-Rewrite-Url X-Request-Uri CloudFront-Viewer-Address X-Original-IP
    X-Tls-Version X-Peer-Cn X-Cert-2 X-Client-Cert-V2 CF-Connecting-IP CF-Connecting-IPv6 Fastly-Client-IP
    X-Azure-ClientIP X-Envoy-External-Address Kubeflow-Userid
"""

OTHERS = """
    Accept Accept-Encoding Accept-Language Accept-Charset Content-Type Content-Length Content-Encoding
    Content-Language Content-Disposition Content-Digest Digest Origin Referer HTTP-Referer X-Title User-Agent
    X-User-Agent UserAgent X-OpenAI-Client-User-Agent X-Ms-UserAgent Range If-Match If-None-Match
    If-Modified-Since Cache-Control Pragma Priority Date From Prefer Save-Data DNT TE
    Upgrade-Insecure-Requests X-Requested-With Access-Control-Request-Headers Sec-Fetch-Site Sec-Fetch-Mode
    Sec-Fetch-User Sec-Fetch-Dest Sec-CH-UA Sec-CH-UA-Platform Sec-GPC Last-Event-ID Sec-WebSocket-Key
    Sec-WebSocket-Version Sec-WebSocket-Protocol Sec-WebSocket-Extensions Idempotency-Key X-Idempotency-Key
    IdempotencyKey X-Stainless-Lang X-Stainless-Package-Version X-Stainless-OS X-Stainless-Arch
    X-Stainless-Runtime X-Stainless-Runtime-Version X-Stainless-Async X-Stainless-Retry-Count
    X-Stainless-Timeout X-Stainless-Read-Timeout X-Stainless-Helper-Method X-Stainless-Poll-Helper
    X-Stainless-Custom-Poll-Interval X-Stainless-Raw-Response OpenAI-Beta
    OpenAI-Version X-Client-Request-Id Anthropic-Version Anthropic-Beta
    Anthropic-Dangerous-Direct-Browser-Access X-App X-Goog-Api-Client X-Goog-Request-Params
    X-Goog-Request-Reason X-Ms-Client-Request-Id X-Ms-Return-Client-Request-Id X-Ms-Date X-Amz-Date
    X-Amz-Content-Sha256 X-Amz-Target Amz-Sdk-Invocation-Id Amz-Sdk-Request Traceparent Tracestate Baggage B3
    X-B3-TraceId X-B3-SpanId X-B3-Sampled Uber-Trace-Id X-Cloud-Trace-Context X-Amzn-Trace-Id
    X-Datadog-Trace-Id X-Datadog-Parent-Id X-Datadog-Sampling-Priority Sentry-Trace X-Request-Id
    X-Correlation-Id X-Portkey-Provider X-Portkey-Trace-Id X-Session-Affinity Mcp-Session-Id
    Mcp-Protocol-Version X-Client-Name X-Source X-Author X-Authors X-Authority X-Monkey X-Turkey X-Hockey
    X-Design X-Signal X-Pinned X-Ticketing X-Country-Code X-Status-Code X-Original-Model X-Request-Path-Count
    X-Design X-Compass X-Concert X-Max-Tokens X-Priority-Class X-Keyword X-Chip X-Secretary X-Tokenizer X-Used
"""

OTHER_PARAMETERS = """
    api-version api_version model stream alt limit order after before starting_after include[] purpose intent
    format deployment-id language voice q prompt n max_tokens maxTokens max_completion_tokens maxOutputTokens
    max_new_tokens min_tokens prompt_tokens completionTokens totalTokens n_tokens num_tokens token_count
    tokenCount stop_token_ids skip_special_tokens return_token_ids token-limit tokens_limit key-frames
    keyframes keywords monkey pageToken page_token nextPageToken continuation-token continuationToken
    tokenizer tokenize author authority country-code encode postcode passage bypass compass session_affinity
    ticketing pinned credits access design signal error_code timestamp_granularities[] idempotency_key top_k seed v2
"""


@pytest.mark.parametrize("name", CREDENTIALS.split())
def test_names_of_credentials(name: str) -> None:
    """A name is that of a credential by its words, as a query parameter and, where it can be one, as a field."""
    written = name.encode()
    assert is_credential(written)
    if "%" not in name and not any(map(str.islower, name[:1])):
        assert is_credential(written.lower())
    assert without_credentials(b"/x?a=1&%b=2" % written, ()) == b"/x?a=1"
    assert without_credentials(b"/x?a=1;%b=2" % written, ()) == b"/x?a=1"


@pytest.mark.parametrize("name", IDENTITIES.split())
def test_names_of_identities(name: str) -> None:
    """A name says who the caller is by its words."""
    assert is_identity(name.lower().encode())


@pytest.mark.parametrize("name", OTHERS.split())
def test_names_of_other_fields(name: str) -> None:
    """Fields that clients of OpenAI, Anthropic, Google and Azure, browsers and tracing send are of no kind."""
    assert not is_credential(name.lower().encode())
    assert not is_identity(name.lower().encode())


def test_names_of_fields_that_say_where_a_request_comes_from() -> None:
    """A name says from where a request comes when it is that of a page, of a person's address or of baggage."""
    found = {name for name in OTHERS.split() if is_context(name.lower().encode())}
    assert found == {"Referer", "From", "Baggage"}


@pytest.mark.parametrize("name", OTHER_PARAMETERS.split())
def test_names_of_other_query_parameters(name: str) -> None:
    """Parameters of model servers and of lists are no credentials, amounts of tokens among them."""
    target = b"/x?%b=1&b=2;c" % name.encode()
    assert not is_credential(name.encode())
    assert without_credentials(target, ()) == target


words = st.text(string.ascii_lowercase, min_size=1, max_size=8)


@given(st.lists(words, max_size=3), st.sampled_from("-._ ~"), st.sampled_from(["secret", "password", "bearer", "auth"]))
def test_a_word_of_credentials_counts_between_all_separators(before: list[str], separator: str, word: str) -> None:
    """A word of credentials makes a name one of them, whatever stands before it and separates the words."""
    for name in (separator.join((*before, word)), "".join((*before, word.title())), separator.join((word, "v2"))):
        assert is_credential(name.encode())


@given(st.text("ab-;&=kKey%[.].+?", max_size=40))
def test_a_query_loses_credentials_and_nothing_else(query: str) -> None:
    """What is left of a query has no credentials, and is the rest of its parameters in their order."""
    target = b"/x?" + query.encode()
    rest = without_credentials(target, ())
    assert not list(credential_parameters(rest))
    assert without_credentials(rest, ()) == rest
    if not list(credential_parameters(target)):
        assert rest == target
    pieces = iter(target.partition(b"?")[2].replace(b";", b"&").split(b"&"))
    assert all(one in pieces for one in rest.partition(b"?")[2].replace(b";", b"&").split(b"&") if one)


@given(st.lists(st.text(string.ascii_letters + ".-_", min_size=1, max_size=12), max_size=8))
def test_subprotocols_keep_their_order(items: list[str]) -> None:
    """What is left of a list of subprotocols is a part of it, in the same order, and does not change again."""
    value = ", ".join(items).encode()
    rest = without_credential_protocols(value)
    pieces = iter(value.split(b", "))
    assert all(one in pieces for one in rest.split(b", ") if one)


@pytest.mark.parametrize("piece", [b"a-", b"a", b"A", b"token-", b"-id", b"key", b"max", b"v1", b".a", b"%", b"user"])
def test_long_names_are_judged_in_linear_time(piece: bytes) -> None:
    """A name as long as a head may be is judged in a moment."""
    name = piece * (64_000 // len(piece)) + b"!"
    began = time.thread_time()
    is_credential(name)
    is_identity(name)
    without_credential_protocols(name)
    assert time.thread_time() - began < 1
