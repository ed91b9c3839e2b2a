"""Forwarding: rules for fields and targets, in both directions."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.api.v1alpha1 import Headers
from gateway.http.exchange import Fields, RequestHead
from gateway.http.forwarding import (
    Target,
    passes_credentials,
    query_for,
    request_fields,
    request_target,
    response_fields,
    selected_subprotocol,
)

LOCAL = Target.of("demo-local.default.svc.cluster.local", local=True)
REMOTE = Target.of("run.example:8443", local=False)


def head(*fields: tuple[bytes, bytes], method: bytes = b"GET", minor: int = 1) -> RequestHead:
    """Return the head of a request with the given fields."""
    return RequestHead(method, b"/", "demo", b"Demo:8080", ((b"host", b"Demo:8080"), *fields), minor, None, False)


def sent(request: RequestHead, target: Target = LOCAL, **options: Any) -> Fields:
    """Return the fields that are sent for `request`, without those that every request gets."""
    fields = request_fields(request, target, peer="192.0.2.7", tls=False, via=b"beamlit", **options)
    always = {
        b"host",
        b"via",
        b"forwarded",
        b"x-real-ip",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
    }
    return tuple(field for field in fields if field[0] not in always)


def values(fields: Fields, name: bytes) -> list[bytes]:
    """Return all values of one field."""
    return [value for key, value in fields if key == name]


CONNECTIONS = [
    b"X-Hop, close",
    b"close,x-hop",
    b" X-HOP ",
    b",,x-hop,,",
    b"keep-alive, X-hop",
    b"x-hop\t,close",
    b"close , X-Hop",
]


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_hh_01_hop_by_hop_request_fields_are_removed(connection: bytes) -> None:
    """HH-01: hop-by-hop request fields and those that Connection names are removed; others stay in their order."""
    hops = (b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade", b"proxy-authorization",
            b"proxy-authenticate", b"transfer-encoding", b"content-length")  # fmt: skip
    request = head(
        (b"x-a", b"1"), (b"connection", connection), (b"x-hop", b"h"), *((name, b"v") for name in hops), (b"x-a", b"2")
    )
    assert sent(request) == ((b"x-a", b"1"), (b"x-a", b"2"))


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_hh_01_hop_by_hop_response_fields_are_removed(connection: bytes) -> None:
    """HH-01: hop-by-hop response fields and those that Connection names are removed; others stay in their order."""
    response = (
        (b"x-a", b"1"),
        (b"connection", connection),
        (b"x-hop", b"h"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-authenticate", b"x"),
        (b"upgrade", b"h2c"),
        (b"trailer", b"x"),
        (b"te", b"x"),
        (b"date", b"then"),
        (b"x-a", b"2"),
    )
    assert response_fields(response) == ((b"x-a", b"1"), (b"date", b"then"), (b"x-a", b"2"))


def test_hh_01_connection_cannot_remove_what_the_gateway_says() -> None:
    """HH-01: fields that the gateway itself sets stay, even when Connection names them."""
    request = head((b"connection", b"host, via, x-forwarded-for, date, forwarded"))
    fields = request_fields(request, LOCAL, peer="192.0.2.7", tls=True, via=b"beamlit")
    assert {b"host", b"via", b"x-forwarded-for", b"forwarded"} <= {name for name, _ in fields}
    assert response_fields(((b"connection", b"date"), (b"date", b"d"))) == ((b"date", b"d"),)


def test_hh_04_te_is_dropped() -> None:
    """HH-04: TE is dropped, because trailers are not relayed."""
    assert sent(head((b"te", b"trailers, gzip"))) == ()


@pytest.mark.parametrize(
    ("before", "minor", "after"),
    [
        ((), 1, b"1.1 beamlit"),
        ((), 0, b"1.0 beamlit"),
        (((b"via", b"1.0 a"), (b"via", b"2 b (c)")), 1, b"1.0 a, 2 b (c), 1.1 beamlit"),
        (((b"via", b"1.1 notbeamlit, beamlit"),), 1, b"1.1 notbeamlit, beamlit, 1.1 beamlit"),
    ],
)
def test_hh_05_via_is_added(before: Fields, minor: int, after: bytes) -> None:
    """HH-05: the gateway adds itself to the Via field of each request."""
    fields = request_fields(head(*before, minor=minor), LOCAL, peer="192.0.2.7", tls=False, via=b"beamlit")
    assert values(fields, b"via") == [after]


@pytest.mark.parametrize("via", [b"1.1 beamlit", b"1.0 a, HTTP/1.1 BEAMLIT (x), 1.1 b"])
def test_hh_05_a_loop_is_detected(via: bytes) -> None:
    """HH-05: a request whose Via field has the gateway's name already is refused."""
    with pytest.raises(errors.LoopDetected):
        sent(head((b"via", via)))


@pytest.mark.parametrize(("value", "expected"), [(b"5", b"4"), (b"0", b"0"), (b"x", b"0"), (b"99999999999", b"0")])
def test_hh_06_max_forwards_counts_down(value: bytes, expected: bytes) -> None:
    """HH-06: Max-Forwards of OPTIONS is sent on reduced by one; for other methods it is dropped."""
    assert sent(head((b"max-forwards", value), method=b"OPTIONS")) == ((b"max-forwards", expected),)
    assert sent(head((b"max-forwards", value))) == ()


CLAIMS: Fields = (
    (b"x-forwarded-for", b"203.0.113.1"),
    (b"x-forwarded-for", b"203.0.113.2"),
    (b"x-forwarded-host", b"site.example"),
    (b"x-forwarded-proto", b"https"),
    (b"x-real-ip", b"203.0.113.1"),
    (b"forwarded", b"for=203.0.113.1"),
    (b"x-forwarded-port", b"1"),
    (b"true-client-ip", b"203.0.113.9"),
)


def test_hh_08_claims_of_an_untrusted_peer_are_replaced() -> None:
    """HH-08: forwarding fields of an untrusted peer are replaced by what the gateway itself sees."""
    fields = request_fields(head(*CLAIMS), LOCAL, peer="192.0.2.7", tls=False, via=b"beamlit")
    assert dict(fields) == {
        b"host": b"demo-local.default.svc.cluster.local",
        b"x-forwarded-for": b"192.0.2.7",
        b"x-forwarded-host": b"Demo:8080",
        b"x-forwarded-proto": b"http",
        b"x-real-ip": b"192.0.2.7",
        b"forwarded": b'for=192.0.2.7;host="Demo:8080";proto=http',
        b"via": b"1.1 beamlit",
    }
    assert len(fields) == 7


def test_hh_08_a_trusted_peer_is_believed_and_added() -> None:
    """HH-08: a trusted peer's forwarding fields stay, and the peer is added to the chain of addresses."""
    fields = request_fields(head(*CLAIMS), LOCAL, peer="2001:db8::7", tls=False, via=b"b", trusted_peer=True)
    assert dict(fields) == {
        b"host": b"demo-local.default.svc.cluster.local",
        b"x-forwarded-for": b"203.0.113.1, 203.0.113.2, 2001:db8::7",
        b"x-forwarded-host": b"site.example",
        b"x-forwarded-proto": b"https",
        b"x-real-ip": b"203.0.113.1",
        b"forwarded": b'for=203.0.113.1, for="[2001:db8::7]";host="Demo:8080";proto=http',
        b"via": b"1.1 b",
    }


@pytest.mark.parametrize("trusted", [False, True])
def test_hh_15_a_client_of_http_1_0_may_have_no_host(trusted: bool) -> None:
    """HH-15: without a Host field, which HTTP/1.0 does not ask for, no forwarding field says anything about a host."""
    request = RequestHead(b"GET", b"/", "", b"", ((b"x-real-ip", b"203.0.113.1"),), 0, None, False)
    fields = request_fields(request, LOCAL, peer="192.0.2.7", tls=False, via=b"b", trusted_peer=trusted)
    assert fields == (
        (b"host", b"demo-local.default.svc.cluster.local"),
        (b"x-forwarded-for", b"192.0.2.7"),
        (b"x-forwarded-proto", b"http"),
        (b"x-real-ip", b"203.0.113.1" if trusted else b"192.0.2.7"),
        (b"forwarded", b"for=192.0.2.7;proto=http"),
        (b"via", b"1.0 b"),
    )


def test_hh_08_a_trusted_peer_may_say_nothing_or_little() -> None:
    """HH-08: a forwarding field that a trusted peer leaves out is set to what the gateway sees."""
    for claims in ((), ((b"x-real-ip", b"203.0.113.1"),)):
        fields = dict(request_fields(head(*claims), LOCAL, peer="192.0.2.7", tls=True, via=b"b", trusted_peer=True))
        assert (fields[b"x-forwarded-for"], fields[b"x-forwarded-proto"]) == (b"192.0.2.7", b"https")


def test_hh_09_one_date() -> None:
    """HH-09: only the first Date of the backend passes, and its Server field passes unchanged."""
    twice = ((b"server", b"m"), (b"date", b"1"), (b"date", b"2"))
    assert response_fields(twice) == ((b"server", b"m"), (b"date", b"1"))
    assert response_fields(()) == ()


def test_hh_10_repeated_fields_stay_separate() -> None:
    """HH-10: each Set-Cookie stays a separate field, in order."""
    cookies = ((b"set-cookie", b"a=1"), (b"date", b"d"), (b"set-cookie", b"b=2"))
    assert response_fields(cookies) == cookies


def test_hh_11_nothing_is_invented() -> None:
    """HH-11: a request without User-Agent and Accept is sent without them."""
    assert sent(head()) == ()


def test_hh_13_expect_is_not_forwarded() -> None:
    """HH-13: Expect is not sent on, because the gateway itself meets it."""
    assert sent(head((b"expect", b"100-continue"))) == ()


def test_hh_15_host_is_the_backends() -> None:
    """HH-15: the first field is the only Host, that of the backend; the client's is in X-Forwarded-Host at most."""
    for appends, host in ((True, [b"Demo:8080"]), (False, [])):
        target = Target.of("run.example:8443", local=False, appends=appends)
        fields = request_fields(head(), target, peer="192.0.2.7", tls=False, via=b"b")
        assert fields[0] == (b"host", b"run.example:8443")
        assert (len(values(fields, b"host")), values(fields, b"x-forwarded-host")) == (1, host)


@pytest.mark.parametrize("trusted", [False, True])
def test_hh_08_a_remote_backend_learns_nothing_of_the_inside(trusted: bool) -> None:
    """HH-08: a remote backend gets no forwarding fields by default, neither the gateway's nor those of a proxy."""
    fields = request_fields(
        head(*CLAIMS, (b"accept", b"*/*")), REMOTE, peer="192.0.2.7", tls=False, via=b"b", trusted_peer=trusted
    )
    assert fields == ((b"host", b"run.example:8443"), (b"accept", b"*/*"), (b"via", b"1.1 b"))


def test_hh_08_each_backend_can_be_given_forwarding_fields_or_none() -> None:
    """HH-08: a remote backend gets forwarding fields where its settings say so, and a local one can go without."""
    far = Target.of("h", local=False, appends=True)
    fields = dict(request_fields(head(*CLAIMS), far, peer="192.0.2.7", tls=False, via=b"b", trusted_peer=True))
    assert (fields[b"x-forwarded-for"], fields[b"x-forwarded-proto"]) == (
        b"203.0.113.1, 203.0.113.2, 192.0.2.7",
        b"https",
    )
    near = Target.of("h", local=True, appends=False)
    assert request_fields(head(*CLAIMS), near, peer="p", tls=False, via=b"b") == ((b"host", b"h"), (b"via", b"1.1 b"))


@pytest.mark.parametrize("name", ["X-Forwarded-Proto", "forwarded", "X-Real-Ip", "X-Forwarded-Host"])
def test_k_08_a_document_can_set_forwarding_fields_that_the_gateway_does_not_write(name: str) -> None:
    """K-08: a forwarding field can be set, added and removed where the gateway writes none, and nowhere else."""
    lower = name.lower().encode()
    for change in ({"set": {name: "v"}}, {"add": {name: "v"}}):
        headers = Headers.model_validate(change)
        target = Target.of("h", local=False, headers=headers)
        fields = request_fields(head((lower, b"mine")), target, peer="p", tls=False, via=b"b")
        assert values(fields, lower) == [b"v"]
        written = Target.of("h", local=False, appends=True, headers=headers)
        fields = request_fields(head(), written, peer="p", tls=False, via=b"b")
        assert b"v" not in values(fields, lower)
    assert sent(head((lower, b"mine")), Target.of("h", local=False, headers=Headers(remove=(name,)))) == ()


@pytest.mark.parametrize("name", [b"x_real_ip", b"x-forwarded_for", b"_"])
def test_hh_16_names_with_underscores_are_dropped(name: bytes) -> None:
    """HH-16: fields with an underscore in their name are dropped, because many servers read it as a hyphen."""
    assert sent(head((name, b"v"))) == ()


IDENTITIES = [
    *(b"x-user", b"x-user-id", b"x-user-email", b"x-tenant", b"x-tenant-id", b"x-remote-user", b"remote-user"),
    *(b"x-forwarded-user", b"x-forwarded-email", b"x-forwarded-groups", b"x-forwarded-preferred-username"),
    *(b"x-forwarded-access-token", b"x-auth-request-user", b"x-auth-request-email", b"x-auth-request-groups"),
    *(b"x-webauth-user", b"x-authenticated-user", b"x-ssl-client-cert", b"x-forwarded-client-cert"),
    *(b"kubeflow-userid", b"kubeflow-groups", b"x-forwarded-tls-client-cert", b"x-forwarded-tls-client-cert-info"),
    *(b"ssl-client-s-dn", b"ssl-client-verify", b"impersonate-user", b"impersonate-extra-scopes", b"impersonate-uid"),
    *(b"x-remote-group", b"x-remote-extra-a", b"client-cert", b"client-cert-chain", b"x-ms-client-principal-id"),
    *(b"x-amzn-oidc-identity", b"x-goog-authenticated-user-email", b"x-consumer-username", b"x-client-dn"),
    *(b"cf-connecting-ip", b"cf-connecting-ipv6", b"fastly-client-ip", b"x-azure-clientip", b"x-azure-socketip"),
    *(b"x-original-uri", b"x-envoy-original-path", b"x-rewrite-uri", b"cloudfront-viewer-address", b"x-sender-ip"),
    *(b"x-appengine-user-ip", b"x-originating-ip", b"x-remote-addr"),
    *(b"x-arr-clientcert", b"x-client-verify", b"x-spiffe-id", b"x-consumer-custom-id", b"x-envoy-peer-metadata"),
    *(b"x-endpoint-api-userinfo", b"tailscale-user-login", b"x-token-subject", b"x-auth-request-access-token"),
]
CREDENTIALS = [
    *(b"authorization", b"cookie", b"api-key", b"x-api-key", b"x-goog-api-key", b"x-auth-token"),
    *(b"x-amz-security-token", b"apikey", b"ocp-apim-subscription-key", b"private-token", b"x-functions-key"),
    *(b"x-serverless-authorization", b"cf-access-client-secret", b"dpop", b"x-goog-iap-jwt-assertion", b"x-auth"),
    *(b"x-session-id", b"bearer", b"x-accesskey", b"x-pwd", b"x-tokens", b"x-api-key-v2", b"x-authz"),
    *(b"x-wsse", b"x-csrf", b"x-ticket", b"x-pin", b"x-sign", b"x-access-code", b"secretid", b"x-creds", b"x-kerberos"),
    *(b"openai-api-key", b"x-vault-token", b"x-access-token", b"x-hub-signature", b"x-client-password"),
]
NEITHER = [
    *(b"accept", b"accept-encoding", b"content-type", b"user-agent", b"x-openai-client-user-agent", b"origin"),
    *(b"idempotency-key", b"x-idempotency-key", b"sec-websocket-key", b"sec-websocket-protocol", b"sec-fetch-user"),
    *(b"anthropic-version", b"anthropic-beta", b"openai-beta", b"openai-version", b"x-stainless-lang"),
    *(
        b"traceparent",
        b"tracestate",
        b"uber-trace-id",
        b"x-session-affinity",
        b"x-title",
        b"http-referer",
        b"x-max-tokens",
    ),
    *(b"range", b"if-none-match", b"cache-control", b"priority", b"x-monkey", b"x-author", b"x-from"),
    *(b"x-chip", b"zip", b"x-equip", b"ip", b"x-source", b"x-client-name", b"mcp-session-id"),
]


@pytest.mark.parametrize("name", IDENTITIES)
def test_hh_17_identity_fields_of_the_client_are_stripped(name: bytes) -> None:
    """HH-17: fields that identify the caller are dropped, unless the settings of the backend set them.

    They reach local backends from a trusted proxy, which has identified the caller, and remote backends never.
    """
    for local in (True, False):
        plain = Target.of("h", local=local)
        assert sent(head((name, b"root")), plain) == ()
        assert sent(head((name, b"alice")), plain, trusted_peer=True) == (((name, b"alice"),) if local else ())
        target = Target.of("h", local=local, headers=Headers(set={name.decode(): "ours"}))
        for trusted in (False, True):
            assert sent(head((name, b"root")), target, trusted_peer=trusted) == ((name, b"ours"),)
        allowed = Target.of("h", local=local, forwards=[name.decode().title()])
        assert sent(head((name, b"root")), allowed) == ((name, b"root"),)


@pytest.mark.parametrize("name", CREDENTIALS)
def test_se_08_the_callers_secrets_stay_in_the_cluster(name: bytes) -> None:
    """SE-08: the caller's credentials are sent to a Service of the cluster, and never to a remote backend.

    They are where the backend's settings name the field.
    """
    request = head((name, b"secret"), (b"accept", b"*/*"))
    assert sent(request) == ((name, b"secret"), (b"accept", b"*/*"))
    assert sent(request, REMOTE) == sent(request, REMOTE, trusted_peer=True) == ((b"accept", b"*/*"),)
    allowed = Target.of("h", local=False, forwards=[name.decode().upper()])
    assert sent(request, allowed) == ((name, b"secret"), (b"accept", b"*/*"))
    own = {name: b"ours"}
    assert sent(request, allowed, extra=own) == ((b"accept", b"*/*"), (name, b"ours"))


@pytest.mark.parametrize("name", NEITHER)
def test_other_fields_pass_to_every_backend(name: bytes) -> None:
    """A field that is neither a credential nor an identity passes, whatever its name sounds like."""
    for target in (LOCAL, REMOTE):
        assert sent(head((name, b"v")), target) == ((name, b"v"),)


@pytest.mark.parametrize(
    "name", [b"referer", b"baggage", b"from", b"jaeger-baggage", b"ot-baggage-cart", b"uberctx-cart"]
)
def test_fields_that_say_where_a_request_comes_from_stay_in_the_cluster(name: bytes) -> None:
    """The address of a page or a person, and what goes along with a trace, reach no remote backend.

    Local backends get them, and a remote backend whose settings name the field.
    """
    request = head((name, b"inside"), (b"traceparent", b"00-1"))
    assert sent(request) == ((name, b"inside"), (b"traceparent", b"00-1"))
    assert sent(request, REMOTE) == sent(request, REMOTE, trusted_peer=True) == ((b"traceparent", b"00-1"),)
    allowed = Target.of("h", local=False, forwards=[name.decode().title()])
    assert sent(request, allowed) == ((name, b"inside"), (b"traceparent", b"00-1"))


ACCOUNTS = [
    *(b"openai-organization", b"openai-project", b"x-org-id", b"x-organisation", b"x-account-id", b"x-workspace-name"),
]


@pytest.mark.parametrize("name", ACCOUNTS)
def test_se_08_accounts_go_where_the_callers_key_goes(name: bytes) -> None:
    """SE-08: a field with an account of the caller goes to local backends, and to remote ones that get Authorization.

    With the gateway's own key a server would refuse it, or bill another account than that of the key.
    """
    request = head((name, b"mine"), (b"accept", b"*/*"))
    assert sent(request) == ((name, b"mine"), (b"accept", b"*/*"))
    assert sent(request, REMOTE) == sent(request, REMOTE, trusted_peer=True) == ((b"accept", b"*/*"),)
    for allowed in ("Authorization", name.decode()):
        target = Target.of("h", local=False, forwards=[allowed])
        assert sent(request, target) == ((name, b"mine"), (b"accept", b"*/*"))
    assert not passes_credentials(request, LOCAL)


@given(st.lists(st.from_regex(rb"[a-z_-]{1,12}", fullmatch=True), max_size=40))
def test_a_verdict_on_a_name_does_not_depend_on_what_came_before(names: list[bytes]) -> None:
    """The first field of a name and a later one have the same fate."""
    target = Target.of("h", local=False)
    before = [sent(head((name, b"v")), Target.of("h", local=False)) for name in names]
    assert [sent(head((name, b"v")), target) for name in names] == before


def test_verdicts_are_bounded() -> None:
    """A client that sends ever new names does not make the gateway remember them all."""
    target = Target.of("h", local=False)
    for number in range(5000):
        assert len(sent(head((b"x-%d" % number, b"v")), target)) == 1
    assert len(target.verdicts) <= 1024


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"/v1/x", b"/v1/x"),
        (b"/v1/x?", b"/v1/x?"),
        (b"/v1/x?api-version=1&b=%2F&&c", b"/v1/x?api-version=1&b=%2F&&c"),
        (b"/v1/x?api-key=1", b"/v1/x"),
        (b"/v1/x?a=1&key=2&b=3", b"/v1/x?a=1&b=3"),
        (b"/v1/x?access_token=2&b=3", b"/v1/x?b=3"),
        (b"/v1/x?b=3&API_KEY=1&apiKey=2&token=3", b"/v1/x?b=3"),
        (b"/v1/x?%61pi%2Dkey=1&b=3", b"/v1/x?b=3"),
        (b"/v1/x?X-Amz-Signature=1&X-Amz-Credential=2&sig=3&b", b"/v1/x?b"),
        (b"/v1/x?pageToken=1&max_tokens=2&monkey=3&q=api-key", b"/v1/x?pageToken=1&max_tokens=2&monkey=3&q=api-key"),
        (b"/v1/x?a=1;api-key=2&b=3;c", b"/v1/x?a=1&b=3;c"),
        (b"/v1/x?api.key=1&api-key[]=2&api[key]=3;pwd=4&code=5", b"/v1/x"),
        (b"/v1/x?b=2&client_assertion=1&secretKey=4&%6bey=5&;", b"/v1/x?b=2&;"),
        (b"*", b"*"),
    ],
)
def test_se_08_credentials_in_the_query_stay_in_the_cluster(before: bytes, after: bytes) -> None:
    """SE-08: query parameters that are credentials do not go to a remote backend, and all other bytes stay."""
    assert query_for(before, LOCAL) == before
    assert query_for(before, REMOTE) == after


@pytest.mark.parametrize(
    ("offered", "selected"),
    [
        ([b"openai-insecure-api-key.sk-1"], b"openai-insecure-api-key.sk-1"),
        ([b"token, 0123abc"], b"token"),
        ([b" , Authorization", b"Bearer,sk-1"], b"Authorization"),
        ([b"realtime, openai-insecure-api-key.sk-1"], None),
        ([b"realtime"], None),
        ([b","], None),
        ([], None),
    ],
)
def test_the_gateway_selects_a_subprotocol_where_a_client_offers_credentials_alone(
    offered: list[bytes], selected: bytes | None
) -> None:
    """The first item of a list with nothing for a remote backend is selected; of others the backend selects one."""
    request = head(*((b"sec-websocket-protocol", value) for value in offered))
    assert selected_subprotocol(request, REMOTE) == selected
    assert selected_subprotocol(request, LOCAL) is None
    for changes in ({"forwards": ["Authorization"]}, {"headers": Headers(remove=("Sec-WebSocket-Protocol",))}):
        assert selected_subprotocol(request, Target.of("h", local=False, **changes)) is None


def test_se_08_a_query_parameter_passes_where_the_backend_names_it() -> None:
    """SE-08: a query parameter passes where the backend's settings name it, in any spelling."""
    target = Target.of("h", local=False, forwards=["API-Key"])
    assert query_for(b"/x?api_key=1&key=2", target) == b"/x?api_key=1"


SUBPROTOCOLS = [
    b"realtime, openai-beta.realtime-v1, gpt-4o-realtime-2024-10-01, v4.base64.channel.k8s.io, sky, basics",
    b"ocpp1.2, v10.stomp, org.openmobilealliance.idmp, graphql-transport-ws, wamp.2.msgpack.batched",
]
"""Lists of subprotocols that have no credentials."""


@pytest.mark.parametrize(
    ("values", "rest"),
    [
        ([b"realtime, openai-insecure-api-key.sk-1, openai-beta.realtime-v1"], b"realtime, openai-beta.realtime-v1"),
        ([b"openai-insecure-api-key.sk-1"], None),
        ([b"base64url.bearer.authorization.k8s.io.dG9r,v5.channel.k8s.io"], b"v5.channel.k8s.io"),
        ([b"token, 0123abc, chat"], b"chat"),
        ([b"graphql-ws, access_token", b"eyJx"], b"graphql-ws"),
        ([b"v1.token.websocket.jupyter.org.0123, v1.kernel.websocket.jupyter.org"], b"v1.kernel.websocket.jupyter.org"),
        ([b"graphql-ws, header-eyJob3N0IjoiZXhhbXBsZSJ9"], b"graphql-ws"),
        ([b"wamp.2.json,mqtt"], b"wamp.2.json,mqtt"),
        ([b"openai-organization.org-1", b"realtime, openai-project.p"], b"realtime"),
        ([b"Authorization, Bearer, sk-1, chat"], b"chat"),
        ([b"auth", b"token", b"0123abc, json"], b"json"),
        ([b"Basic, dXNlcjpw, chat"], b"chat"),
        ([b"basic.dXNlcjpw, chat"], b"chat"),
        ([b"realtime, sk-proj-1"], b"realtime"),
        ([b"realtime, AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY"], b"realtime"),
        ([b"a94a8fe5ccb19ba61c4c0873d391e987, chat"], b"chat"),
        ([b"chat, 550e8400-e29b-41d4-a716-446655440000"], b"chat"),
        ([b"chat, csrf.1, ticket, 0123abc"], b"chat"),
        ([b"token, authtoken12, chat"], b"chat"),
        *(([one], one) for one in SUBPROTOCOLS),
    ],
)
def test_se_08_subprotocols_that_are_credentials_stay_in_the_cluster(values: list[bytes], rest: bytes | None) -> None:
    """SE-08: of the subprotocols of a WebSocket a remote backend gets those that are no credentials, in their order.

    It gets all of them where its settings name Authorization or the field.
    """
    name = b"sec-websocket-protocol"
    request = head(*((name, value) for value in values))
    assert sent(request, REMOTE) == (() if rest is None else ((name, rest),))
    assert sent(request, LOCAL) == tuple((name, value) for value in values)
    for allowed in ("Authorization", "Sec-WebSocket-Protocol"):
        assert sent(request, Target.of("h", local=False, forwards=[allowed])) == sent(request, LOCAL)
    hidden = rest != b", ".join(values)
    assert passes_credentials(request, LOCAL) is hidden
    assert not passes_credentials(request, REMOTE)


@pytest.mark.parametrize(
    ("fields", "path", "local", "remote"),
    [
        ((), b"/", False, False),
        (((b"accept", b"*/*"), (b"idempotency-key", b"1")), b"/x?a=1", False, False),
        (((b"authorization", b"Bearer x"),), b"/", True, False),
        (((b"apikey", b"x"),), b"/", True, False),
        ((), b"/?api-key=1", True, False),
        (((b"x-allowed-key", b"x"),), b"/", True, True),
        ((), b"/?X_Allowed_Key=1", True, True),
    ],
)
def test_a_backend_judges_the_caller_whose_credentials_it_sees(
    fields: Fields, path: bytes, local: bool, remote: bool
) -> None:
    """A request has credentials of the caller for a backend when one of them is forwarded there."""
    request = RequestHead(b"GET", path, "demo", b"demo", fields, 1, None, False)
    assert passes_credentials(request, LOCAL) is local
    assert passes_credentials(request, Target.of("h", local=False, forwards=["x-allowed-key"])) is remote
    replaced = Headers(set=dict.fromkeys(("authorization", "apikey", "x-allowed-key"), "ours"))
    assert passes_credentials(request, Target.of("h", local=True, headers=replaced)) is (local and b"?" in path)


def test_fields_of_a_document_are_applied() -> None:
    """Of a document's fields, `set` replaces, `add` adds and `remove` removes; names are compared without case."""
    changes = Headers(set={"X-Set": "s"}, add={"X-Add": "a"}, remove=("X-Remove",))
    target = Target.of("h", local=False, headers=changes)
    request = head((b"x-set", b"1"), (b"x-set", b"2"), (b"x-add", b"3"), (b"x-remove", b"4"))
    assert sent(request, target) == ((b"x-add", b"3"), (b"x-set", b"s"), (b"x-add", b"a"))


def test_k_08_a_document_cannot_touch_framing_and_forwarding() -> None:
    """K-08: a document can change neither framing nor Host, hop-by-hop and forwarding fields."""
    names = ("Content-Length", "transfer-encoding", "Host", "Connection", "TE", "Upgrade", "X-Forwarded-For", "Via")
    changes = Headers(set=dict.fromkeys(names, "x"), add=dict.fromkeys(names, "x"), remove=names)
    target = Target.of("h", local=True, headers=changes)
    assert (target.set, target.add) == ((), ())
    before = request_fields(head(), Target.of("h", local=True), peer="p", tls=False, via=b"b")
    assert request_fields(head(), target, peer="p", tls=False, via=b"b") == before


def test_own_fields_replace_all_others() -> None:
    """A field that the gateway itself sets replaces those of client and document, and is sent once."""
    target = Target.of("h", local=False, headers=Headers(set={"Authorization": "doc"}, add={"X-Request-Id": "doc"}))
    own = {b"authorization": b"Bearer t", b"x-request-id": b"id"}
    request = head((b"x-request-id", b"theirs"), (b"authorization", b"theirs"))
    assert sent(request, target, extra=own) == tuple(own.items())


def test_c9_nothing_of_one_attempt_reaches_the_next() -> None:
    """C9: fields are made from the original request, so that a remote attempt leaves no trace in a local one."""
    request = head((b"authorization", b"mine"))
    first = sent(request, LOCAL)
    sent(request, REMOTE, extra={b"authorization": b"Bearer remote"})
    assert sent(request, LOCAL) == first == ((b"authorization", b"mine"),)


def test_a_server_cannot_speak_for_the_gateway() -> None:
    """Fields `x-beamlit-…` and x-request-id of a backend's response are dropped: only the gateway sets them."""
    response = ((b"x-beamlit-backend", b"fake"), (b"x-request-id", b"fake"), (b"date", b"d"))
    own = ((b"x-beamlit-backend", b"local"),)
    assert response_fields(response, extra=own) == ((b"date", b"d"), *own)


@pytest.mark.parametrize(
    ("rest", "prefix", "target"),
    [
        (b"/v1/x?a=%2F;b", b"", b"/v1/x?a=%2F;b"),
        (b"/v1//x", b"/ws/m", b"/ws/m/v1//x"),
        (b"/", b"/ws/", b"/ws/"),
        (b"?q", b"/ws", b"/ws/?q"),
        (b"*", b"/ws", b"*"),
    ],
)
def test_the_target_keeps_its_bytes(rest: bytes, prefix: bytes, target: bytes) -> None:
    """The target keeps its bytes behind the prefix of the backend."""
    assert request_target(rest, prefix) == target
