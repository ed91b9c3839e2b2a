"""Path of a request, end to end: its route and backend, the request sent there, and the client's response."""

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from gateway.api.v1alpha1 import Backend, Credentials, Headers, OAuth2, RouteDocument, SecretKey, Split
from gateway.routes.sources import Snapshot
from program.oauth.credentials import ClientCredentials
from tests.integration.gateway.wire import NoSecrets, document, echo, gateway, local, remote, reply, snapshot
from tests.integration.servers import ServerSide, serving, until

LOOPBACK = {"gateway": {"allowedAddresses": ["127.0.0.0/8"]}}


def get(target: bytes = b"/v1/x", host: bytes = b"gateway", *fields: bytes) -> bytes:
    """Return a GET as it is sent."""
    return b"\r\n".join((b"GET " + target + b" HTTP/1.1", b"Host: " + host, *fields)) + b"\r\n\r\n"


# Routes


@pytest.mark.parametrize(
    "host",
    ["demo.default", "demo.default.svc", "demo.default.svc.cluster.local", "DEMO.Default.SVC", "demo.default.svc.:80"],
)
async def test_se_04_se_05_by_host(host: str) -> None:
    """SE-04, SE-05: every spelling of a Service's name leads to its model; path and query stay as they are."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        response = await running.ask(get(b"/v1/x?a=1;b=%zz", host.encode()))
        assert response.status == 200
        assert response.body.startswith(b"GET /v1/x?a=1;b=%zz HTTP/1.1\r\n")


async def test_se_04_by_path() -> None:
    """SE-04: `/namespace/name/…` leads to the model; the prefix is removed, and that of the backend added."""
    async with (
        serving(echo) as server,
        gateway(document(local(path_prefix="/base")), local_port=server.port) as running,
    ):
        response = await running.ask(get(b"/default/demo/v1/x?q"))
        assert response.body.startswith(b"GET /base/v1/x?q HTTP/1.1\r\n")
        for target in (b"/default/demo", b"/default/demo/"):
            assert (await running.ask(get(target))).body.startswith(b"GET /base")
        for target in (b"/default/demos/v1/x", b"/other/demo/v1/x", b"/default/DEMO/x"):
            response = await running.ask(get(target))
            assert (response.status, response.code) == (404, "route_not_found")


@pytest.mark.parametrize("name", ["demo", "default/demo"])
async def test_by_model(name: str) -> None:
    """The `model` value of a JSON body leads to the model; the body stays as it is, but for a namespace in the name."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        body = b'{ "messages":[], "model" : "%b" }' % name.encode()
        response = await running.post(b"/v1/chat/completions", body)
        assert response.status == 200
        assert response.body.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
        assert response.body.endswith(b'\r\n\r\n{ "messages":[], "model" : "demo" }')


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"model":"other"}', 404, "model_not_found"),
        (b"{}", 400, "model_missing"),
        (b'{"model":1}', 400, "model_missing"),
        (b"not json", 400, "model_missing"),
        (b"", 400, "model_missing"),
    ],
)
async def test_by_model_without_a_model(body: bytes, status: int, code: str) -> None:
    """A body that names no model gets an error in the form that OpenAI clients understand."""
    async with gateway() as running:
        response = await running.post(b"/v1/chat/completions", body)
        assert response.status == status
        error = orjson.loads(response.body)["error"]
        assert error["code"] == code
        assert error["type"] == "invalid_request_error"
        assert error["request_id"].encode() == response.value(b"x-request-id")


async def test_two_namespaces_one_model() -> None:
    """A bare model name of two namespaces gets a 409 that names both full names, which work."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        both = [one for namespace in ("default", "team-b") for one in snapshot([document()], namespace).config_maps]
        running.store.loaded.clear()  # so that the snapshot is in force at once
        running.store.apply(Snapshot(both))
        response = await running.post(b"/v1/completions", b'{"model":"demo"}')
        assert (response.status, response.code) == (409, "ambiguous_model")
        assert b"default/demo" in response.body
        assert b"team-b/demo" in response.body
        response = await running.post(b"/v1/completions", b'{"model":"default/demo"}')
        assert response.status == 200


async def test_models_are_listed() -> None:
    """`/v1/models` lists the models as OpenAI does, and `/v1/models/{id}` shows one."""
    async with gateway(document(), document(local(), name="other")) as running:
        response = await running.ask(get(b"/v1/models"))
        content = orjson.loads(response.body)
        assert content["object"] == "list"
        assert [one["id"] for one in content["data"]] == ["demo", "other"]
        assert content["data"][0] == {"id": "demo", "object": "model", "created": 1767225600, "owned_by": "default"}
        assert orjson.loads((await running.ask(get(b"/v1/models/demo"))).body)["id"] == "demo"
        assert (await running.ask(get(b"/v1/models/none"))).code == "model_not_found"
        assert (await running.post(b"/v1/models", b"{}")).status == 405


@pytest.mark.parametrize(
    "target",
    [b"/default/demo/../x", b"/default/demo/%2e%2e/x", b"/default%2fdemo/x", b"//default/demo/x", b"/default/demo/%00",
     b"/default/demo/%0d%0aX:1", b"/default/demo/\\x", b"/default/demo/%5c", b"/default/demo/%c0%ae"],
)  # fmt: skip
async def test_se_03_an_ambiguous_path(target: bytes) -> None:
    """SE-03: a path that a backend may interpret differently is refused, or is sent byte by byte."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        response = await running.ask(get(target))
        if response.status == 200:
            assert response.body.split(b" ")[1] == target.removeprefix(b"/default/demo")
        else:
            assert response.status in (400, 404)
            assert server.sides == []


@pytest.mark.parametrize(
    "target",
    [b"http://evil/default/demo/x", b"http://user@gateway/default/demo/x", b"http://gateway:81/default/demo/x"],
)
async def test_se_01_an_authority_in_the_target(target: bytes) -> None:
    """SE-01: a target whose authority differs from Host is refused; an equal one is accepted."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        assert (await running.ask(get(target))).status in (400, 421)
        assert server.sides == []
        response = await running.ask(get(b"http://gateway/default/demo/x"))
        assert response.body.startswith(b"GET /x HTTP/1.1\r\n")


async def test_se_06_a_fragment_is_refused() -> None:
    """SE-06: a target with a fragment is refused."""
    async with gateway() as running:
        assert (await running.ask(get(b"/default/demo/x#y"))).status == 400


# The split


@pytest.mark.parametrize("weight", [0, 1, 7, 33, 50, 99, 100])
async def test_the_split_is_exact(weight: int) -> None:
    """Of any 100 consecutive requests the percentage goes to the remote backend, give or take one."""
    route = document(local(100 - weight), remote(weight), split=Split(percentage=weight, reason="Override"))
    async with (
        serving(echo) as near,
        serving(echo) as far,
        gateway(route, local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        client = await running.client()
        backends = []
        for _ in range(130):
            await client.send(get(b"/default/demo/x"))
            response = await client.response()
            assert response.value(b"x-beamlit-reason") == b"Override"
            backends.append(response.value(b"x-beamlit-backend"))
        for start in range(30):
            assert abs(backends[start : start + 100].count(b"remote") - weight) <= 1


async def test_the_table_may_change_between_two_requests() -> None:
    """A new document is in force for the next request on the same connection."""
    async with (
        serving(echo) as near,
        serving(echo) as far,
        gateway(local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        client = await running.client()
        await client.send(get(b"/default/demo/x"))
        assert (await client.response()).value(b"x-beamlit-backend") == b"local"
        running.load(document(local(0), remote(100), split=Split(percentage=100, reason="NoReadyReplicas")))
        await client.send(get(b"/default/demo/x"))
        response = await client.response()
        assert response.value(b"x-beamlit-backend") == b"remote"
        assert response.value(b"x-beamlit-reason") == b"NoReadyReplicas"
        running.load(document(local(0), remote(0)))
        await client.send(get(b"/default/demo/x"))
        response = await client.response()
        assert (response.status, response.code) == (503, "no_backend")
        running.load()
        await client.send(get(b"/default/demo/x"))
        assert (await client.response()).status == 404


# Header fields and bodies


async def test_hh_01_hh_04_hh_10_fields_of_one_connection_stay_there() -> None:
    """HH-01: hop-by-hop fields and those that Connection names are not forwarded; others keep their order."""

    async def script(side: ServerSide) -> None:
        await side.request()
        fields = (b"X-One: 1", b"Connection: X-Hop, keep-alive", b"X-Hop: h", b"Keep-Alive: timeout=9", b"X-Two: 2",
                  b"Proxy-Authenticate: x", b"Trailer: X", b"Set-Cookie: a=1", b"Set-Cookie: b=2")  # fmt: skip
        await side.send(reply(b"", b"200 OK", *fields))

    async with serving(script) as server, gateway(local_port=server.port) as running:
        hop = (b"X-A: 1", b"Connection: X-B, keep-alive", b"X-B: no", b"Keep-Alive: 5", b"TE: trailers, gzip",
               b"Trailer: X-T", b"Proxy-Authorization: no", b"Proxy-Connection: no", b"X-C: 2", b"X-A: 3")  # fmt: skip
        response = await running.ask(get(b"/default/demo/x", b"gateway", *hop))
        received = server.sides[0].received
        assert received.index(b"x-a: 1") < received.index(b"x-c: 2") < received.index(b"x-a: 3")
        for name in (b"x-b:", b"keep-alive", b"te:", b"trailer", b"proxy-"):
            assert name not in received.lower().replace(b"gateway", b"")
        names = [name for name, _ in response.fields]
        assert not {b"x-hop", b"keep-alive", b"proxy-authenticate", b"trailer"} & set(names)
        assert response.values(b"set-cookie") == [b"a=1", b"b=2"]  # HH-10
        assert names.index(b"x-one") < names.index(b"x-two")


async def test_hh_05_via_and_loops() -> None:
    """HH-05: the gateway adds itself to Via; a request that comes back to it gets a 508."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        response = await running.ask(get(b"/default/demo/x", b"gateway", b"Via: 1.0 before"))
        assert b"via: 1.0 before, 1.1 beamlit-gateway\r\n" in response.body
        response = await running.ask(get(b"/default/demo/x", b"gateway", b"Via: 1.1 beamlit-gateway"))
        assert (response.status, response.code) == (508, "loop_detected")


async def test_hh_05_one_installation_behind_another() -> None:
    """HH-05: a request passes two installations with different pseudonyms, and a loop through both is found."""

    def named(name: str) -> dict[str, Any]:
        return {"gateway": {**LOOPBACK["gateway"], "viaPseudonym": name}}

    def leading_to(port: int) -> RouteDocument:
        backend = remote(100, path_prefix="/default/demo")
        return document(backend.model_copy(update={"host": "127.0.0.1", "port": port}))

    async with (
        serving(echo) as server,
        gateway(document(local()), local_port=server.port, settings=named("far")) as far,
        gateway(leading_to(far.port), settings=named("near")) as near,
        gateway(leading_to(far.port), settings=named("near")) as replica,
    ):
        assert b"via: 1.1 near, 1.1 far\r\n" in (await near.ask(get(b"/default/demo/x"))).body
        far.load(leading_to(replica.port))
        response = await near.ask(get(b"/default/demo/x"))
        assert (response.status, response.code) == (508, "loop_detected")


async def test_hh_08_se_08_a_remote_backend_sees_nothing_of_the_caller() -> None:
    """A remote backend gets neither address, Host, identity nor credentials of the caller, in fields or query."""
    fields = (
        b"Authorization: Bearer canary", b"Apikey: canary", b"Ocp-Apim-Subscription-Key: canary",
        b"X-Auth-Request-Access-Token: canary", b"X-Forwarded-Client-Cert: canary", b"Ssl-Client-Subject-Dn: canary",
        b"X-Forwarded-Proto: http", b"Impersonate-User: canary", b"X-Remote-User: canary", b"Cookie: a=canary",
        b"X-AccessKey: canary", b"X-Session-Id: canary", b"X-Api-Token-V2: canary", b"X-Arr-ClientCert: canary",
        b"Idempotency-Key: mine", b"X-My-Key: mine",
    )  # fmt: skip
    backend = remote(100, forward_headers=("x-my-key",))
    async with (
        serving(echo) as far,
        gateway(
            document(backend),
            remote_port=far.port,
            settings={"gateway": {**LOOPBACK["gateway"], "trustedProxies": ["127.0.0.0/8"]}},
        ) as running,
    ):
        target = b"/default/demo/x?api-key=canary&a=1;pwd=canary&access_token=canary&api.key[]=canary&code=canary"
        body = (await running.ask(get(target, b"gateway", *fields))).body
        assert body.startswith(b"GET /x?a=1 HTTP/1.1\r\nhost: remote.test\r\n")
        names = [line.partition(b":")[0] for line in body.split(b"\r\n")[1:-2]]
        assert names == [b"host", b"idempotency-key", b"x-my-key", b"via", b"x-request-id"]


async def test_hh_17_identities_reach_local_backends_from_trusted_proxies() -> None:
    """HH-17: what a trusted proxy says about the caller reaches the local backend, from others nothing does."""
    fields = (b"X-Forwarded-Client-Cert: who", b"Ssl-Client-Verify: who", b"X-Remote-User: who", b"X-Teams: who")
    for proxies, count in (((), 0), (("127.0.0.0/8",), 4)):
        settings = {"gateway": {"trustedProxies": list(proxies)}}
        async with serving(echo) as near, gateway(local_port=near.port, settings=settings) as running:
            assert (await running.ask(get(b"/default/demo/x", b"gateway", *fields))).body.count(b"who") == count


async def test_hh_06_hh_07_options_and_trace() -> None:
    """HH-06, HH-07: TRACE is refused; the gateway responds to OPTIONS for itself and forwards others, a hop less."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        assert (await running.ask(get(b"/default/demo/x").replace(b"GET", b"TRACE"))).status == 405
        options = b"OPTIONS * HTTP/1.1\r\nHost: gateway\r\n\r\n"
        response = await running.ask(options, method=b"OPTIONS")
        assert (response.status, b"POST" in (response.value(b"allow") or b"")) == (204, True)
        assert (await running.ask(options.replace(b"OPTIONS", b"GET"))).status == 400
        target = b"OPTIONS /default/demo/x HTTP/1.1\r\nHost: gateway\r\nMax-Forwards: %d\r\n\r\n"
        assert (await running.ask(target % 0, method=b"OPTIONS")).status == 204
        assert server.sides == []
        assert b"max-forwards: 4\r\n" in (await running.ask(target % 5, method=b"OPTIONS")).body


@pytest.mark.parametrize("trusted", [False, True])
async def test_hh_08_forwarding_fields(trusted: bool) -> None:
    """HH-08: forwarding fields of an unknown client are replaced, those of a trusted proxy are extended."""
    settings = {"gateway": {"trustedProxies": ["127.0.0.0/8"]}} if trusted else {}
    async with serving(echo) as server, gateway(local_port=server.port, settings=settings) as running:
        fields = (b"X-Forwarded-For: 9.9.9.9", b"X-Forwarded-Proto: https", b"X-Real-IP: 9.9.9.9", b"Forwarded: for=1")
        body = (await running.ask(get(b"/default/demo/x", b"gateway", *fields))).body
        assert (b"9.9.9.9" in body) is trusted
        assert b"x-forwarded-for: %b127.0.0.1\r\n" % (b"9.9.9.9, " if trusted else b"") in body
        assert b"x-forwarded-host: gateway\r\n" in body


async def test_hh_09_hh_11_hh_15_nothing_is_invented() -> None:
    """The gateway forwards Date and Server, adds no User-Agent, and sends the backend's name as Host."""

    async def script(side: ServerSide) -> None:
        request = await side.request()
        assert b"user-agent" not in request.lower()
        assert b"\r\nhost: demo-local.default.svc.cluster.local\r\n" in request
        await side.send(reply(b"", b"200 OK", b"Date: then", b"Server: model"))

    async with serving(script) as server, gateway(local_port=server.port) as running:
        response = await running.ask(get(b"/default/demo/x"))
        assert response.value(b"date") == b"then"
        assert response.value(b"server") == b"model"


async def test_hh_16_hh_17_reserved_names() -> None:
    """Fields whose names are reserved for the gateway are forwarded in neither direction."""

    async def script(side: ServerSide) -> None:
        request = await side.request()
        for name in (b"x_real_ip", b"x-tenant", b"x-user", b"kubeflow-userid"):
            assert name not in request.lower()
        await side.send(reply(b"", b"200 OK", b"X-Beamlit-Backend: me", b"X-Request-Id: mine"))

    async with serving(script) as server, gateway(local_port=server.port) as running:
        fields = (b"X_Real_IP: 1", b"X-Tenant: 1", b"X-User: 1", b"Kubeflow-UserId: 1")
        response = await running.ask(get(b"/default/demo/x", b"gateway", *fields))
        assert response.value(b"x-beamlit-backend") == b"local"
        assert response.value(b"x-request-id") != b"mine"


async def test_se_07_a_line_of_the_log_is_one_line() -> None:
    """SE-07: a record is one line of JSON, whatever escapes, right-to-left text and long values a client sends."""
    long = "\u202e".encode() + b"\xff" * 5000
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        for target in (b"/default/demo/%1b%0a%e2%80%ae", b"/default/demo/x"):
            await running.ask(get(target, b"gateway", b"User-Agent: " + long, b"X-Request-Id: " + long))
        await until(lambda: len(running.lines()) == 2)
        text = running.log.getvalue()
        assert text.isascii()
        assert text.isprintable() or set(text) - {"\n"} == {one for one in text if one.isprintable()}
        assert all(len(line) < 2000 for line in text.splitlines())


async def test_a_valid_request_id_is_kept() -> None:
    """A valid request id of the client is used everywhere; an invalid one is replaced."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        response = await running.ask(get(b"/default/demo/x", b"gateway", b"X-Request-Id: abc-1"))
        assert response.value(b"x-request-id") == b"abc-1"
        assert b"x-request-id: abc-1\r\n" in response.body
        response = await running.ask(get(b"/default/demo/x", b"gateway", b"X-Request-Id: a b\x1b"))
        assert response.status in (200, 400)
        assert b"\x1b" not in response.body


async def test_model_name_and_headers_of_a_backend() -> None:
    """A backend gets its own model name in an otherwise unchanged body, and its changes to header fields."""
    headers = Headers(set={"X-Team": "a"}, add={"X-Extra": "b"}, remove=("X-Secret",))
    route = document(local(model="tiny", headers=headers))
    async with serving(echo) as server, gateway(route, local_port=server.port) as running:
        response = await running.post(
            b"/v1/chat/completions", b'{"stream": false, "model" : "demo"}', b"X-Team: client", b"X-Secret: s"
        )
        assert response.body.endswith(b'\r\n\r\n{"stream": false, "model" : "tiny"}')
        assert b"x-team: a\r\n" in response.body
        assert b"x-extra: b\r\n" in response.body
        assert b"x-secret" not in response.body
        assert b"content-length: 35\r\n" in response.body


# Credentials


class _Platform:
    """Remote backend and token endpoint on one port; it refuses every token but the last one it issued."""

    def __init__(self) -> None:
        self.tokens = 0
        self.requests: list[bytes] = []

    async def script(self, side: ServerSide) -> None:
        """Serve the requests of one connection."""
        while True:
            request = await side.request()
            if request.startswith(b"POST /token"):
                self.tokens += 1
                body = orjson.dumps({"access_token": f"t{self.tokens}", "token_type": "Bearer", "expires_in": 3600})
                await side.send(reply(body, b"200 OK", b"content-type: application/json"))
                continue
            self.requests.append(request)
            good = b"authorization: Bearer t%d\r\n" % self.tokens in request
            await side.send(reply(b"ok" if good else b"no", b"200 OK" if good else b"401 Unauthorized"))


class _Secret(NoSecrets):
    """Reader of credentials with one Secret."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def secret(self, namespace: str, name: str) -> Mapping[str, str]:
        """Return the credentials for `remote.test`."""
        assert (namespace, name) == ("default", "remote-credentials")
        url = f"http://127.0.0.1:{self.port}/token"
        return {"clientId": "id", "clientSecret": "s3cr3t-canary", "tokenUrl": url, "hosts": "remote.test"}


def _authenticated() -> Backend:
    return remote(100, credentials=Credentials(oauth2=OAuth2(name="remote-credentials")))


async def test_rt_09_se_08_p18_a_token_for_the_remote_and_no_other() -> None:
    """A remote gets the gateway's token, never the client's; a refused one is renewed once; none is logged."""
    platform = _Platform()
    async with (
        serving(platform.script) as far,
        gateway(
            document(_authenticated()), remote_port=far.port, settings=LOOPBACK, secrets=_Secret(far.port)
        ) as running,
    ):
        fields = (b"Authorization: Bearer caller-canary", b"Cookie: c=1")
        assert (await running.ask(get(b"/default/demo/x", b"gateway", *fields))).body == b"ok"
        platform.tokens += 1  # the last token is no longer valid
        response = await running.post(b"/default/demo/v1/x", b'{"model":"demo"}')
        assert response.status == 200
        assert platform.tokens == 3
        received = b"".join(platform.requests)
        assert b"caller-canary" not in received
        assert received.count(b'{"model":"demo"}') == 2  # the same body again, with a new token
        await until(lambda: len(running.lines()) == 2)
        log = running.log.getvalue()
        for canary in ("s3cr3t-canary", "caller-canary", "Bearer", "t3"):
            assert canary not in log
        assert running.count("beamlit_gateway_token_requests_total", result="ok") == 2


async def test_rt_09_a_key_from_a_secret_is_read_again_after_a_401() -> None:
    """A rotated header value is read after a 401 and sent within the same request; a second 401 is final."""
    keys = {"present": "one", "good": "one"}

    class Keys(NoSecrets):
        async def secret(self, namespace: str, name: str) -> Mapping[str, str]:
            """Return the key for `remote.test`."""
            assert (namespace, name) == ("default", "key")
            return {"k": keys["present"], "hosts": "remote.test"}

    async def script(side: ServerSide) -> None:
        while True:
            good = f"x-api-key: {keys['good']}\r\n".encode() in await side.request()
            await side.send(reply(b"ok" if good else b"no", b"200 OK" if good else b"401 Unauthorized"))

    backend = remote(100, headers=Headers(set_from={"x-api-key": SecretKey(name="key", key="k")}))
    async with (
        serving(script) as far,
        gateway(document(backend), remote_port=far.port, settings=LOOPBACK, secrets=Keys()) as running,
    ):
        assert (await running.post(b"/default/demo/x", b"{}")).status == 200
        keys |= {"present": "two", "good": "two"}
        assert (await running.post(b"/default/demo/x", b"{}")).status == 200
        keys["good"] = "three"
        response = await running.post(b"/default/demo/x", b"{}")
        assert (response.status, response.code) == (502, "credentials_refused")


async def test_rt_09_a_body_too_large_to_keep_is_sent_once() -> None:
    """A body above the replay limit is streamed once; its 401 is not the caller's, and the next request has a token."""
    platform = _Platform()
    settings: dict[str, Any] = {"gateway": {**LOOPBACK["gateway"], "limits": {"replayBytes": 10}}}
    async with (
        serving(platform.script) as far,
        gateway(
            document(_authenticated()), remote_port=far.port, settings=settings, secrets=_Secret(far.port)
        ) as running,
    ):
        assert (await running.ask(get(b"/default/demo/x"))).status == 200
        platform.tokens += 1
        response = await running.post(b"/default/demo/x", b"a" * 11)
        assert (response.status, response.code) == (502, "credentials_refused")
        assert platform.tokens == 3
        assert (await running.post(b"/default/demo/x", b"a" * 11)).status == 200


async def test_no_token_no_request() -> None:
    """Without a token nothing is sent to the backend, and the error names no Secret and no address."""
    async with (
        serving(echo) as far,
        gateway(document(_authenticated()), remote_port=far.port, settings=LOOPBACK) as running,
    ):
        response = await running.ask(get(b"/default/demo/x"))
        assert (response.status, response.code) == (502, "credentials_failed")
        assert b"remote" not in response.body
        assert far.sides == []


@pytest.mark.parametrize(
    ("response", "result"), [(reply(b"", b"401 Unauthorized"), "refused"), (reply(b"", b"500 No"), "failed")]
)
async def test_token_requests_without_a_token_are_counted(response: bytes, result: str) -> None:
    """A token request is counted as refused when the endpoint does not accept the client, otherwise as failed."""

    async def script(side: ServerSide) -> None:
        while True:
            await side.request()
            await side.send(response)

    async with (
        serving(script) as far,
        gateway(
            document(_authenticated()), remote_port=far.port, settings=LOOPBACK, secrets=_Secret(far.port)
        ) as running,
    ):
        assert (await running.ask(get(b"/default/demo/x"))).code == "credentials_failed"
        assert running.count("beamlit_gateway_token_requests_total", result=result) == 1
        assert running.count("beamlit_gateway_token_requests_total", result="ok") == 0


async def test_default_remote_backend() -> None:
    """The default remote backend has host, fields and credentials of the settings, the path of the document."""
    platform = _Platform()
    async with serving(platform.script) as far:
        settings = {
            "defaultRemoteBackend": {
                "host": f"127.0.0.1:{far.port}",
                "scheme": "http",
                "headersToAdd": {"X-Install": "1"},
                "authConfig": {"type": "oauth", "oauthConfig": {"tokenUrl": f"http://127.0.0.1:{far.port}/token"}},
            }
        }
        route = document(Backend(id="remote", default=True, weight=100, path_prefix="/acme/tiny", model="tiny"))
        default = ClientCredentials("id", "secret", f"http://127.0.0.1:{far.port}/token")
        async with gateway(route, settings=settings, default=default) as running:
            response = await running.post(b"/v1/chat/completions", b'{"model":"demo"}')
            assert (response.status, response.value(b"x-beamlit-backend")) == (200, b"remote")
            request = platform.requests[0]
            assert request.startswith(b"POST /acme/tiny/v1/chat/completions HTTP/1.1\r\n")
            assert b"x-install: 1\r\n" in request
            assert b"host: 127.0.0.1:%d\r\n" % far.port in request
            assert request.endswith(b'{"model":"tiny"}')


async def test_se_15_k_02_a_remote_address_is_checked_at_connect() -> None:
    """SE-15: a remote host that resolves to an address of the machine is refused."""
    async with serving(echo) as server:
        route = document(Backend(id="remote", host="127.0.0.1", port=server.port, weight=100))
        async with gateway(route) as running:
            response = await running.ask(get(b"/default/demo/x"))
            assert (response.status, response.code) == (502, "address_refused")
            assert server.sides == []


# Failures, metrics and logs


async def test_se_17_a_backend_that_is_not_there() -> None:
    """SE-17: a refused connection gets a 502 with a stable code and without names or addresses."""
    async with gateway(local_port=1) as running:
        response = await running.ask(get(b"/default/demo/x"))
        assert (response.status, response.code) == (502, "connect_failed")
        assert response.value(b"x-beamlit-backend") == b"local"
        assert response.value(b"connection") is None
        assert b"127.0.0.1" not in response.body
        assert b"demo-local" not in response.body


async def test_se_10_redirects_pass_through() -> None:
    """SE-10: a redirect goes to the client."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(reply(b"", b"302 Found", b"Location: http://evil/"))

    async with serving(script) as server, gateway(local_port=server.port) as running:
        response = await running.ask(get(b"/default/demo/x"))
        assert (response.status, response.value(b"location")) == (302, b"http://evil/")


async def test_rt_03_a_dead_connection_is_replaced() -> None:
    """RT-03: when an idle connection dies before the response, any request is sent on a new one."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(reply(b"%d" % side.number))
        if side.number == 0:
            await side.request()  # the connection ends during the second request

    async with serving(script) as server, gateway(local_port=server.port) as running:
        client = await running.client()
        await client.send(get(b"/default/demo/x"))
        assert (await client.response()).body == b"0"
        response = await running.post(b"/default/demo/x", b"{}")
        assert (response.status, response.body) == (200, b"1")
        assert [side.received.count(b"HTTP/1.1") for side in server.sides] == [2, 1]


async def test_arrivals_are_counted_from_zero_on() -> None:
    """A route counts the requests that have arrived from 0 on, while they are served and when nothing serves them."""
    arrived, labels = "beamlit_gateway_arrived_requests_total", {"namespace": "default", "model": "demo"}
    go = asyncio.Event()

    async def script(side: ServerSide) -> None:
        await side.request()
        await go.wait()
        await side.send(reply(b"done"))

    async with serving(script) as server, gateway(local_port=server.port) as running:
        assert running.metrics.registry.get_sample_value(arrived, labels) == 0
        client = await running.client()
        await client.send(get(b"/default/demo/x"))
        await until(lambda: running.count(arrived, **labels) == 1)
        assert running.count("beamlit_gateway_requests_total", **labels, backend="local", code="200") == 0
        go.set()
        assert (await client.response()).status == 200
        running.load(document(local(0)))
        assert (await running.ask(get(b"/default/demo/x"))).status == 503
        assert (await running.ask(get(b"/default/other/x"))).status == 404
        assert running.count(arrived, **labels) == 2
        running.load()
        assert running.metrics.registry.get_sample_value(arrived, labels) is None


async def test_metrics_and_log_of_a_request() -> None:
    """A request is counted by route, backend and status, and logged with the decision; no label is from a client."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        assert (await running.ask(get(b"/default/demo/x?q=secret"))).status == 200
        assert (await running.ask(get(b"/no/route"))).status == 404
        labels = {"namespace": "default", "model": "demo", "backend": "local"}
        assert running.count("beamlit_gateway_requests_total", **labels, code="200") == 1
        assert running.count("beamlit_gateway_request_seconds_count", **labels) == 1
        assert running.count("beamlit_gateway_first_byte_seconds_count", **labels) == 1
        assert running.count("beamlit_gateway_refused_requests_total", code="route_not_found") == 1
        await until(lambda: len(running.lines()) == 2)
        first, second = running.lines()
        assert (first["route"], first["backend"], first["reason"]) == ("default/demo", "local", "Local")
        assert (first["status"], first["path"], first["host"]) == (200, "/default/demo/x", "gateway")
        assert first["seconds"] >= first["first_byte_seconds"] >= 0
        assert (second["status"], second["code"], second["route"]) == (404, "route_not_found", None)


async def test_what_needs_no_route_is_not_refused() -> None:
    """A request that the gateway serves itself, or whose client leaves before a route is found, is counted by status,
    and not as refused."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        for line in (b"GET /v1/models", b"GET /v1/models/demo", b"HEAD /v1/models", b"OPTIONS *"):
            method = line.partition(b" ")[0]
            response = await running.ask(line + b" HTTP/1.1\r\nHost: gateway\r\n\r\n", method=method)
            assert response.status in (200, 204)
        client = await running.client()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: gateway\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
        await client.send(head)
        assert (await client.some()).startswith(b"HTTP/1.1 100")
        client.reset()
        await until(lambda: running.count("beamlit_gateway_unrouted_requests_total", code="499") == 1)
        assert running.count("beamlit_gateway_unrouted_requests_total", code="200") == 3
        assert running.count("beamlit_gateway_unrouted_requests_total", code="204") == 1
        assert running.count("beamlit_gateway_refused_requests_total", code="none") == 0


async def test_metrics_of_a_route_end_with_it() -> None:
    """The metrics of a removed route are removed."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        assert (await running.ask(get(b"/default/demo/x"))).status == 200
        running.load(document(name="other"))
        assert (await running.ask(get(b"/default/other/x"))).status == 200
        names = {
            sample.labels.get("model") for metric in running.metrics.registry.collect() for sample in metric.samples
        }
        assert "demo" not in names
        assert "other" in names


async def test_many_at_once() -> None:
    """Each of 200 requests on 20 connections gets its own response."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:

        async def one(number: int) -> None:
            client = await running.client()
            for again in range(10):
                await client.send(get(b"/default/demo/%d-%d" % (number, again)))
                assert (await client.response()).body.startswith(b"GET /%d-%d " % (number, again))

        await asyncio.gather(*(one(number) for number in range(20)))
        assert running.upstream.stats.open <= 20
