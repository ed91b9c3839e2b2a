"""Names of models in requests: found wherever OpenAI's API puts them, and written as each backend knows the model."""

import gzip
import zlib

import brotli
import orjson
import pytest
from backports import zstd

from gateway.api.v1alpha1 import RouteDocument, ServedModel
from gateway.model_names import body as bodies
from gateway.model_names import scanner
from tests.integration.gateway.test_websocket import KEY, handshake
from tests.integration.gateway.wire import Response, Running, document, echo, gateway, local, remote, reply
from tests.integration.servers import ServerSide, serving, until

CHAT = b"/v1/chat/completions"
PATH = b"/default/demo/v1/chat/completions"
PLAIN = b'{"model":"demo","messages":[]}'
RENAMED = b'{"model":"tiny","messages":[]}'
MULTIPART = b'Content-Type: multipart/form-data; boundary="a-b"'
PART = (
    b'--a-b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n\0\r\n\xff\r\n'
    b'--a-b\r\nContent-Disposition: form-data; name="model"\r\n\r\ndemo\r\n--a-b--\r\n'
)
JSON = b"Content-Type: application/json"
TINY = document(local(model="tiny"))


async def post(running: Running, target: bytes, body: bytes, *fields: bytes) -> Response:
    """Send a POST with a body and these header fields; return the response."""
    lines = (b"POST %b HTTP/1.1" % target, b"Host: gateway", b"Content-Length: %d" % len(body), *fields)
    return await running.ask(b"\r\n".join(lines) + b"\r\n\r\n" + body, method=b"POST")


def sent(response: Response) -> bytes:
    """Return the body that the echoing backend received."""
    assert response.status == 200, response.body
    return response.body.partition(b"\r\n\r\n")[2]


FOUND = {
    "multipart": (PART, MULTIPART),
    "form": (b"prompt=a+b&model=demo", b"Content-Type: application/x-www-form-urlencoded"),
    "curl": (PLAIN, b"Content-Type: application/x-www-form-urlencoded"),
    "text": (PLAIN, b"Content-Type: text/plain; charset=utf-8"),
    "no type": (PLAIN, b"X-Type: none"),
    "octets": (PLAIN, b"Content-Type: application/octet-stream"),
    "suffix": (PLAIN, b"Content-Type: application/vnd.openai+json"),
    "mark": (b"\xef\xbb\xbf" + PLAIN, JSON),
    "not a number": (b'{"model":"demo","temperature":NaN,"x":-Infinity}', JSON),
    "surrogate": (b'{"model":"demo","messages":["\\ud83d"]}', JSON),
    "escaped": (b'{"\\u006dodel":"\\u0064emo"}', JSON),
    "nested": (b'{"tools":[{"model":"x"}],"model":"demo"}', JSON),
    "long": (b'{"messages":["%b"],"model":"demo"}' % (b"x" * 300_000), JSON),
}
"""Bodies that name the model, each with its field."""


@pytest.mark.parametrize(("body", "field"), FOUND.values(), ids=FOUND)
async def test_the_model_is_found(body: bytes, field: bytes) -> None:
    """A name in each notation leads to the model, with the body as it was, and is replaced where a backend has its own.

    Requests by path and by host are renamed alike.
    """
    new = body.replace(b'"demo"', b'"tiny"').replace(b'"\\u0064emo"', b'"tiny"')
    new = new.replace(b"=demo", b"=tiny").replace(b"\r\ndemo\r\n", b"\r\ntiny\r\n")
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        assert sent(await post(running, CHAT, body, field)) == body
    async with serving(echo) as server, gateway(TINY, local_port=server.port) as running:
        assert sent(await post(running, CHAT, body, field)) == new
        response = await post(running, PATH, body, field)
        assert sent(response) == new
        assert b"\r\ncontent-length: %d\r\n" % len(new) in response.body
        by_host = b"POST /x HTTP/1.1\r\nHost: demo.default\r\n%b\r\nContent-Length: %d\r\n\r\n%b"
        assert sent(await running.ask(by_host % (field, len(body), body))) == new


@pytest.mark.parametrize("size", [1, 1_500_000], ids=["whole", "streamed"])
async def test_the_size_of_a_part_changes_with_the_name(size: int) -> None:
    """A form whose parts have their sizes, as of Spring and OkHttp, has the right ones behind the gateway, too.

    One with a wrong size is refused, also where it streams: a server that goes by sizes would find other parts.
    """
    part = b'--a-b\r\nContent-Disposition: form-data; name="%b"\r\nContent-Length: %d\r\n\r\n%b\r\n'
    file = b"x" * size
    body = part % (b"model", 4, b"demo") + part % (b"file", size, file) + b"--a-b--\r\n"
    long = TINY.model_copy(update={"backends": (local(model="another-name"),)})
    async with serving(echo) as server, gateway(long, local_port=server.port) as running:
        for target in (CHAT, PATH):
            response = await post(running, target, body, MULTIPART)
            assert sent(response) == body.replace(b": 4\r\n\r\ndemo", b": 12\r\n\r\nanother-name")
        wrong = body.replace(b"Length: %d\r\n\r\nx" % size, b"Length: %d\r\n\r\nx" % (size + 1))
        response = await post(running, CHAT, wrong, MULTIPART)
        assert (response.status, response.code) == (400, "model_missing")


ENCODERS = {b"gzip": gzip.compress, b"deflate": zlib.compress, b"br": brotli.compress, b"zstd": zstd.compress}


@pytest.mark.parametrize("coding", ENCODERS, ids=bytes.decode)
@pytest.mark.parametrize(("plain", "field"), [(PLAIN, JSON), (PART, MULTIPART)], ids=["json", "multipart"])
async def test_a_compressed_body(coding: bytes, plain: bytes, field: bytes) -> None:
    """A compressed body is read through; it is sent on as it was, or plain where the name is replaced.

    A form is plain in any case: servers that ignore the coding might find other fields in its bytes.
    """
    body = ENCODERS[coding](plain)
    fields = (field, b"Content-Encoding: " + coding, b"Content-Digest: sha-256=:x:")
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        response = await post(running, CHAT, body, *fields)
        is_form = plain is PART
        assert sent(response) == (plain if is_form else body)
        assert (b"\r\ncontent-encoding: %b\r\n" % coding in response.body) is not is_form
        assert (b"\r\ncontent-digest:" in response.body) is not is_form
    async with serving(echo) as server, gateway(TINY, local_port=server.port) as running:
        for target in (CHAT, PATH):
            response = await post(running, target, body, *fields)
            assert sent(response) == plain.replace(b"demo", b"tiny")
            assert b"content-encoding" not in response.body
            assert b"content-digest" not in response.body


def commented(content: bytes, comment: bytes) -> bytes:
    """Return content that is compressed by gzip, with a comment in the header (RFC 1952 2.3)."""
    whole = gzip.compress(content)
    return b"%b\x10%b%b\0%b" % (whole[:3], whole[4:10], comment, whole[10:])


SECRET = b'\r\n--a-b\r\nContent-Disposition: form-data; name="model"\r\n\r\nsecret\r\n--a-b--\r\n'
FORM = b"Content-Type: application/x-www-form-urlencoded"
HIDING = {
    "comment": (b"model=demo", FORM, b"gzip", commented(b"model=demo", b"&model=secret&")),
    "form with parts": (PART, MULTIPART, b"gzip", commented(PART, SECRET)),
    "frame": (PART, MULTIPART, b"zstd", b"\x50\x2a\x4d\x18" + len(SECRET).to_bytes(4, "little") + SECRET),
}
"""Forms that name another model to servers which ignore content codings: plain body, type, coding, body."""


@pytest.mark.parametrize("case", HIDING)
async def test_a_compressed_form_means_one_model(case: str) -> None:
    """A compressed form reaches no backend with other fields in its bytes, by model or with several names."""
    plain, kind, coding, body = HIDING[case]
    if coding == b"zstd":
        body = zstd.compress(plain) + body
    several = document(local(), models=[ServedModel(name="adapter")])
    for one in (document(local()), several):
        async with serving(echo) as server, gateway(one, local_port=server.port) as running:
            for target in (CHAT, *((PATH,) if one is several else ())):
                response = await post(running, target, body, kind, b"Content-Encoding: " + coding)
                assert b"secret" not in response.body
                if response.status == 200:
                    assert sent(response) == plain
                else:
                    assert (response.code, coding) == ("model_missing", b"zstd")  # several frames


@pytest.mark.parametrize("kind", [FORM, MULTIPART], ids=["form", "multipart"])
async def test_a_compressed_form_is_plain_where_the_query_has_the_name(kind: bytes) -> None:
    """A compressed form without a name goes on plain, too, where the query has the name of the model."""
    plain = b"a=b" if kind is FORM else PART.replace(b'"model"', b'"other"')
    hidden = commented(plain, b"&model=secret&" if kind is FORM else SECRET)
    async with serving(echo) as server, gateway(TINY, local_port=server.port) as running:
        response = await post(running, CHAT + b"?model=demo", hidden, kind, b"Content-Encoding: gzip")
        assert sent(response) == plain
        assert response.body.startswith(b"POST /v1/chat/completions?model=tiny ")


@pytest.mark.parametrize("start", [b'\t{"', b"\t{ ", b'A{"'], ids=["key", "blank", "other"])
async def test_a_body_that_begins_like_json_as_it_is_compressed(start: bytes) -> None:
    """A compressed body that is sent with the beginning of a JSON object is refused: it may be two texts."""
    # The first byte is the head of a block of deflate that is stored as it is, the other two are its size.
    size = int.from_bytes(start[1:], "little")
    content = b'{"model":"demo","x":"%b"}' % (b"x" * (size - 23))
    body = start + bytes(255 - one for one in start[1:]) + content
    assert zlib.decompress(body, -15) == content
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        response = await post(running, CHAT, body, JSON, b"Content-Encoding: deflate")
        if start.startswith(b"\t"):
            assert (response.status, response.code) == (400, "model_missing")
            assert server.sides == []
        else:
            assert sent(response) == body


@pytest.mark.parametrize("kind", [b"audio/mpeg", b"application/octet-stream", b"multipart/mixed; boundary=a", b"a/b"])
@pytest.mark.parametrize("start", [b"\xff\xfb\x90", b"RIFF", b"--a\r\n", b"\x1f\x8b", b"[", b"\0"])
async def test_a_body_that_is_no_text_lacks_a_name(kind: bytes, start: bytes) -> None:
    """A body of another type, such as audio, is told where a name may stand, and not that it must be JSON."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        response = await post(running, b"/v1/listen", start + bytes(range(256)), b"Content-Type: " + kind)
        assert (response.status, response.code) == (400, "model_missing")
        assert orjson.loads(response.body)["error"]["message"] == bodies.MISSING
        assert server.sides == []


@pytest.mark.parametrize("target", [CHAT, PATH])
async def test_text_in_another_encoding(target: bytes) -> None:
    """JSON in Latin-1, as of old versions of PowerShell, is refused with the encoding that it must have."""
    async with serving(echo) as server, gateway(TINY, local_port=server.port) as running:
        for text in (b"\xe9", b"\xfc\xdf", b"\x80"):
            response = await post(running, target, b'{"model":"demo","prompt":"%b"}' % text, JSON)
            assert (response.status, response.code) == (400, "model_missing")
            assert orjson.loads(response.body)["error"]["message"] == "The body must be in UTF-8."
        assert server.sides == []
        assert sent(await post(running, PATH, b'{"prompt":"\xe9"}', JSON)) == b'{"prompt":"\xe9"}'


@pytest.mark.parametrize("target", [CHAT, PATH])
async def test_codings_that_cannot_be_read(target: bytes) -> None:
    """A body whose name is needed gets 415 for an unknown coding, 400 for a broken one, 413 for too much inside."""
    route = document(local(model="tiny"), limits={"bodyBytes": 100_000})
    settings = {"gateway": {"limits": {"bodyBytes": 200_000}}}
    async with serving(echo) as server, gateway(route, local_port=server.port, settings=settings) as running:
        for coding in (b"compress", b"gzip, br"):
            response = await post(running, target, PLAIN, JSON, b"Content-Encoding: " + coding)
            assert (response.status, response.code) == (415, "unsupported_content_coding")
            assert response.value(b"accept-encoding") == b"gzip, deflate, br, zstd"
        response = await post(running, target, PLAIN, JSON, b"Content-Encoding: gzip")
        assert (response.status, response.code) == (400, "malformed_content_coding")
        for size in (150_000, 10_000_000):
            body = gzip.compress(b'{"model":"demo","x":"%b"}' % (b"x" * size))
            response = await post(running, target, body, JSON, b"Content-Encoding: gzip")
            assert (response.status, response.code) == (413, "body_too_large")
        assert server.sides == []


@pytest.mark.parametrize("target", [CHAT, PATH])
@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        (b'{"model":"demo","model":"evil"}', JSON, scanner.DUPLICATE),
        (b'{"model":"demo","\\u006dodel":"evil"}', JSON, scanner.DUPLICATE),
        (b'{"model":"demo","x":"%b","model":"evil"}' % (b"x" * 200_000), JSON, scanner.DUPLICATE),
        (b'{"model":"demo","Model":"evil"}', JSON, scanner.LOOKALIKE),
        (b'{"model":"demo"}{"model":"evil"}', JSON, scanner.NOT_JSON),
        (b'{/*"model":"evil"*/"model":"demo"}', JSON, scanner.NOT_JSON),
        (b'{"model":["demo"]}', JSON, scanner.NOT_A_STRING),
        ('{"model":"evil"}'.encode("utf-16"), JSON, scanner.NOT_UTF_8),
        (PART.replace(b"--a-b--\r\n", PART), MULTIPART, scanner.DUPLICATE),
        (PART.replace(b'name="model"', b"name*=utf-8''model"), MULTIPART, scanner.NOT_A_FORM),
        (PART.replace(b'name="model"', b"name*0=mod; name*1=el"), MULTIPART, scanner.NOT_A_FORM),
        (PART.replace(b'"model"', b'"=?utf-8?Q?mo=64el?="'), MULTIPART, scanner.ENCODED_WORDS),
        (PART.replace(b'"model"', b'"=?UTF-8?b?bW9kZWw=?="'), MULTIPART, scanner.ENCODED_WORDS),
        (PART.replace(b'"model"', b'"=?us-ascii?q?mod?= =?us-ascii?q?el?="'), MULTIPART, scanner.ENCODED_WORDS),
        (PART.replace(b"\r\n", b"\n"), MULTIPART, scanner.NOT_A_FORM),
    ],
)
async def test_one_meaning_or_400(target: bytes, body: bytes, field: bytes, message: str) -> None:
    """A body in which servers may read different names gets 400 with the cause, and nothing is sent to a backend."""
    async with serving(echo) as server, gateway(TINY, local_port=server.port) as running:
        response = await post(running, target, body, field)
        assert (response.status, response.code) == (400, "model_missing")
        assert message.replace('"', '\\"').encode() in response.body
        assert server.sides == []


FORM = b"Content-Type: application/x-www-form-urlencoded"


@pytest.mark.parametrize("coding", [b"gzip", b"zstd"])
async def test_compressed_data_of_several_parts(coding: bytes) -> None:
    """Members of gzip and frames of zstd are one body; a form of several is refused."""
    encode = ENCODERS[coding]
    field = b"Content-Encoding: " + coding
    async with serving(echo) as server, gateway(TINY, local_port=server.port) as running:
        for target in (CHAT, PATH):
            for pieces, kind in (
                ((b'{"mod', b'el":"demo"}'), JSON),
                ((b"", b'{"model":"demo"}', b" "), JSON),
                ((b"model=demo&a=1",), FORM),
            ):
                body = b"".join(map(encode, pieces))
                assert sent(await post(running, target, body, kind, field)) == b"".join(pieces).replace(
                    b"demo", b"tiny"
                )
        seen = len(server.sides)
        for target in (CHAT, PATH):
            for pieces, kind in (
                ((b"model=de", b"mo"), FORM),
                ((b"a=1", b"&model=demo"), FORM),
                ((b"model", b"=demo"), FORM),
                ((b"", b"model=demo"), FORM),
                ((PART[:90], PART[90:]), MULTIPART),
            ):
                response = await post(running, target, b"".join(map(encode, pieces)), kind, field)
                assert (response.status, response.code) == (400, "model_missing")
                assert scanner.SEVERAL_STREAMS.encode() in response.body
            response = await post(running, target, encode(PLAIN) + b"\0\0", JSON, field)
            assert (response.status, response.code) == (400, "malformed_content_coding")
        assert len(server.sides) == seen


@pytest.mark.parametrize("target", [CHAT, PATH])
@pytest.mark.parametrize("mark", [True, False])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize(
    "kind", [b"application/octet-stream", b"image/png", b"application/x-www-form-urlencoded", b"text/plain"]
)
async def test_json_in_other_encodings(kind: bytes, encoding: str, mark: bool, target: bytes) -> None:
    """JSON in UTF-16 or UTF-32, which some servers find out by its first bytes, is 400 under every media type."""
    text = ' \n{ "model": "evil"}'
    body = (("\ufeff" if mark else "") + text).encode(encoding)
    async with serving(echo) as server, gateway(TINY, local_port=server.port) as running:
        for content, coding in ((body, b"identity"), (gzip.compress(body), b"gzip")):
            fields = (b"Content-Type: " + kind, b"Content-Encoding: " + coding)
            response = await post(running, target, content, *fields)
            assert (response.status, response.code) == (400, "model_missing")
            assert scanner.NOT_UTF_8.encode() in response.body
        client = await running.client()
        head = b"POST %b HTTP/1.1\r\nHost: gateway\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
        await client.send(head % (target, kind, len(body)) + body[:1])
        await client.send(body[1:])
        assert (await client.response()).code == "model_missing"
        assert server.sides == []


@pytest.mark.parametrize("coding", [b"zip", b"compress", b"gzip, gzip", b"aws-chunked"])
async def test_json_under_a_coding_that_cannot_be_read_is_refused(coding: bytes) -> None:
    """By path, plain JSON of another media type under an unknown coding is 415: a server may ignore the coding."""
    field = b"Content-Type: application/octet-stream\r\nContent-Encoding: " + coding
    async with serving(echo) as server, gateway(TINY, local_port=server.port) as running:
        response = await post(running, b"/default/demo/v1/chat/completions", b'{"model":"other"}', field)
        assert (response.status, response.code) == (415, "unsupported_content_coding")
        assert server.sides == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", JSON),
        (b'{"prompt":"a"}', JSON),
        (b'{"model":null}', JSON),
        (b"not json", JSON),
        (b'{"id":1}\n{"id":2}\n', b"Content-Type: application/jsonl"),
        (b"\x1f\x8b", b"Content-Type: application/gzip"),
        (b"\0\0\0\x18ftypmp42", b"Content-Type: video/mp4"),
        (b"\0\0" * 50 + b"{\0}\0", b"Content-Type: audio/l16"),
        (b"\xff\xfe\x90\0{}", b"Content-Type: audio/mpeg"),
        ("a; b".encode("utf-16"), b"Content-Type: text/csv"),
        (b"data", b"Content-Encoding: aws-chunked\r\nContent-Type: application/octet-stream"),
        (PART.replace(b"model", b"purpose"), MULTIPART),
        (b"a=1&b=2", b"Content-Type: application/x-www-form-urlencoded"),
    ],
)
async def test_requests_without_a_model_pass(body: bytes, field: bytes) -> None:
    """By path, a body that names no model to any server is sent on as it is, though the backend has its own name."""
    async with serving(echo) as server, gateway(TINY, local_port=server.port) as running:
        assert sent(await post(running, b"/default/demo/tokenize", body, field)) == body


async def test_a_large_file_streams_by_path() -> None:
    """By path, a body that begins like no JSON object reaches the backend before all of it has arrived."""

    async def script(side: ServerSide) -> None:
        await side.reader.readuntil(b"\r\n\r\n")
        side.received = await side.reader.readexactly(10)
        side.received += await side.reader.readexactly(10)
        await side.send(reply(side.received))

    async with serving(script) as server, gateway(TINY, local_port=server.port) as running:
        client = await running.client()
        await client.send(
            b"PUT /default/demo/file HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/octet-stream\r\n"
            b"Content-Length: 20\r\n\r\n",
            b"0123456789",
        )
        await until(lambda: bool(server.sides) and server.sides[0].received.endswith(b"0123456789"))
        await client.send(b"abcdefghij")
        assert (await client.response()).body == b"0123456789abcdefghij"
        client.close()


async def test_a_query_names_the_model() -> None:
    """A name in the query leads to the model, and is replaced in percent-encoding where a backend has its own."""
    target = b"/v1/realtime?intent=x&model=default%2Fdemo"
    route = document(local(model="org/tiny"))
    async with serving(echo) as server, gateway(route, local_port=server.port) as running:
        new = b"GET /v1/realtime?intent=x&model=org%2Ftiny HTTP/1.1\r\n"
        for path in (target, b"/default/demo" + target):
            response = await running.ask(b"GET %b HTTP/1.1\r\nHost: gateway\r\n\r\n" % path)
            assert response.body.startswith(new)
        # Beside a body of another kind, and beside the same name in the body.
        response = await post(running, b"/v1/realtime/calls?model=demo", b"v=0", b"Content-Type: application/sdp")
        assert response.body.startswith(b"POST /v1/realtime/calls?model=org%2Ftiny HTTP/1.1\r\n")
        response = await post(running, b"/v1/x?model=demo", PLAIN, JSON)
        assert response.body.startswith(b"POST /v1/x?model=org%2Ftiny HTTP/1.1\r\n")
        assert sent(response) == PLAIN.replace(b'"demo"', b'"org/tiny"')


@pytest.mark.parametrize("prefix", [b"", b"/default/demo"])
async def test_a_query_with_two_meanings(prefix: bytes) -> None:
    """Two names in a query, and another one than in the body, get 400."""
    async with serving(echo) as server, gateway(TINY, local_port=server.port) as running:
        for query in (b"?model=demo&model=demo", b"?Model=demo", b"?x;model=demo", b"?model=other"):
            response = await post(running, prefix + b"/v1/x" + query, PLAIN, JSON)
            assert (response.status, response.code) == (400, "model_missing")
        assert server.sides == []


async def test_a_websocket_by_model() -> None:
    """The opening handshake of a WebSocket finds its model by the query."""
    async with serving(echo) as server, gateway(TINY, local_port=server.port) as running:
        response = await running.ask(handshake(line=b"GET /v1/realtime?model=demo HTTP/1.1"))
        assert response.body.startswith(b"GET /v1/realtime?model=tiny HTTP/1.1\r\n")
        assert b"sec-websocket-key: " + KEY in response.body
        response = await running.ask(handshake(line=b"GET /v1/realtime?model=other HTTP/1.1"))
        assert (response.status, response.code) == (404, "model_not_found")


async def test_a_request_without_a_model_is_told_where_it_may_be() -> None:
    """A GET without a body gets an error that says where a name can be, and speaks of no JSON object."""
    async with gateway() as running:
        response = await running.ask(b"GET /v1/files HTTP/1.1\r\nHost: gateway\r\n\r\n")
        assert (response.status, response.code) == (400, "model_missing")
        assert bodies.MISSING.replace('"', '\\"').encode() in response.body
        assert b"must be a JSON object" not in response.body


async def test_a_local_server_gets_the_name_without_its_namespace() -> None:
    """A qualified name reaches a backend that has no name of its own as the bare name, in body and query."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        body = PLAIN.replace(b"demo", b"default/demo")
        assert sent(await post(running, CHAT, body, JSON)) == PLAIN
        assert sent(await post(running, CHAT, gzip.compress(body), JSON, b"Content-Encoding: gzip")) == PLAIN
        response = await running.ask(b"GET /v1/realtime?model=default%2Fdemo HTTP/1.1\r\nHost: gateway\r\n\r\n")
        assert response.body.startswith(b"GET /v1/realtime?model=demo HTTP/1.1\r\n")


async def test_each_backend_gets_its_own_name() -> None:
    """After a failure the next backend gets its own name for the model, from the request as it came."""
    route = document(local(100, model="tiny"), remote(0, model="big"))
    settings = {"gateway": {"allowedAddresses": ["127.0.0.0/8"]}}
    async with serving(echo) as server, gateway(route, remote_port=server.port, settings=settings) as running:
        response = await post(running, CHAT, gzip.compress(PLAIN), JSON, b"Content-Encoding: gzip")
        assert sent(response) == PLAIN.replace(b"demo", b"big")
        assert response.value(b"x-beamlit-reason") == b"Failover"


# Several names for one deployment

SEVERAL = document(
    local(50, model="tiny"),
    remote(50, model="big"),
    models=(
        ServedModel(name="lora-a", local_model="adapter-a", remote_model="big-a"),
        ServedModel(name="lora-b"),
        ServedModel(name="org/lora"),
    ),
    requires=("models",),
)
NAMES = {
    "demo": ("tiny", "big"),
    "default/demo": ("tiny", "big"),
    "lora-a": ("adapter-a", "big-a"),
    "default/lora-a": ("adapter-a", "big-a"),
    "lora-b": ("lora-b", "lora-b"),
    "default/lora-b": ("lora-b", "lora-b"),
    "default/org/lora": ("org/lora", "org/lora"),
}
"""Names that clients may send, each with those that the local and the remote backend get."""
OPEN = {"gateway": {"allowedAddresses": ["127.0.0.0/8"]}}


@pytest.mark.parametrize("target", [CHAT, PATH])
@pytest.mark.parametrize(("name", "expected"), NAMES.items(), ids=NAMES)
async def test_each_name_is_renamed_for_each_backend(target: bytes, name: str, expected: tuple[str, str]) -> None:
    """Each name of a deployment reaches each backend as that one knows it, by model and by path."""
    async with (
        serving(echo) as server,
        gateway(SEVERAL, local_port=server.port, remote_port=server.port, settings=OPEN) as running,
    ):
        body = b'{"model":"%b"}' % name.encode()
        by_backend = {}
        for _ in range(4):
            response = await post(running, target, body, JSON)
            by_backend[response.value(b"x-beamlit-backend")] = sent(response)
        local_name, remote_name = expected
        assert by_backend == {
            b"local": b'{"model":"%b"}' % local_name.encode(),
            b"remote": b'{"model":"%b"}' % remote_name.encode(),
        }


@pytest.mark.parametrize("by", ["model", "path", "host"])
@pytest.mark.parametrize("name", ["lora-c", "tiny", "other/demo", "Demo", ""])
async def test_another_name_is_404(by: str, name: str) -> None:
    """Where a deployment has several names, any other gets 404, also by path and host, and reaches no backend."""
    async with serving(echo) as server, gateway(SEVERAL, local_port=server.port) as running:
        head = {
            "model": b"POST /v1/x HTTP/1.1\r\nHost: gateway\r\n",
            "path": b"POST /default/demo/v1/x HTTP/1.1\r\nHost: gateway\r\n",
            "host": b"POST /v1/x HTTP/1.1\r\nHost: demo.default\r\n",
        }[by]
        body = b'{"model":"%b"}' % name.encode()
        response = await running.ask(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body), method=b"POST")
        assert (response.status, response.code) == (404, "model_not_found")
        assert server.sides == []


async def test_a_backend_without_a_name_of_its_own_is_checked_too() -> None:
    """By path, names are checked and qualified ones shortened for a backend that has no name of its own."""
    route = document(local(), models=(ServedModel(name="lora-a"),))
    async with serving(echo) as server, gateway(route, local_port=server.port) as running:
        assert sent(await post(running, PATH, b'{"model":"default/lora-a"}', JSON)) == b'{"model":"lora-a"}'
        assert sent(await post(running, PATH, b'{"prompt":"x"}', JSON)) == b'{"prompt":"x"}'
        assert (await post(running, PATH, b'{"model":"nonsense"}', JSON)).code == "model_not_found"
        assert (await post(running, PATH, b'{"model":"demo","model":"x"}', JSON)).code == "model_missing"
        response = await running.ask(b"GET /default/demo/v1/realtime?model=nonsense HTTP/1.1\r\nHost: gateway\r\n\r\n")
        assert response.code == "model_not_found"
        assert (await running.ask(b"GET /default/demo/health HTTP/1.1\r\nHost: gateway\r\n\r\n")).status == 200


async def test_without_several_names_any_name_passes_by_path() -> None:
    """By path any name is replaced where a backend has its own name, and passes where it has none."""
    async with serving(echo) as server:
        async with gateway(TINY, local_port=server.port) as running:
            assert sent(await post(running, PATH, b'{"model":"nonsense"}', JSON)) == b'{"model":"tiny"}'
        async with gateway(local_port=server.port) as running:
            assert sent(await post(running, PATH, b'{"model":"nonsense"}', JSON)) == b'{"model":"nonsense"}'


async def test_several_names_are_listed() -> None:
    """`/v1/models` lists all names, and each of them has its own entry."""
    async with gateway(SEVERAL) as running:
        response = await running.ask(b"GET /v1/models HTTP/1.1\r\nHost: gateway\r\n\r\n")
        names = [one["id"] for one in orjson.loads(response.body)["data"]]
        assert names == ["default/org/lora", "demo", "lora-a", "lora-b"]
        response = await running.ask(b"GET /v1/models/lora-a HTTP/1.1\r\nHost: gateway\r\n\r\n")
        assert orjson.loads(response.body)["id"] == "lora-a"


BY = {"path": (b"/default/demo", b"gateway"), "host": (b"", b"demo.default")}
"""Ways to a route without a name: what stands before the path, and the host."""
PATHS = [
    (b"GET", b"/v1/models/%b"),
    (b"DELETE", b"/v1/models/%b"),
    (b"POST", b"/v1/engines/%b/completions"),
    (b"POST", b"/v1beta/models/%b:generateContent?alt=sse"),
    (b"POST", b"/openai/deployments/%b/chat/completions?api-version=1"),
]
"""Requests with a name in their path."""


def bare(method: bytes, target: bytes, host: bytes) -> bytes:
    """Return the bytes of a request without a body."""
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (method, target, host)


@pytest.mark.parametrize(("before", "host"), BY.values(), ids=BY)
@pytest.mark.parametrize(("method", "place"), PATHS)
async def test_names_in_paths_are_renamed_for_each_backend(
    before: bytes, host: bytes, method: bytes, place: bytes
) -> None:
    """A name in the path, encoded or not, reaches each backend as that one knows it; the rest of the target stays."""
    async with (
        serving(echo) as server,
        gateway(SEVERAL, local_port=server.port, remote_port=server.port, settings=OPEN) as running,
    ):
        names = {b"demo": ("tiny", "big"), b"lora-a": ("adapter-a", "big-a"), b"l%6Fra-a": ("adapter-a", "big-a")}
        if place.startswith(b"/v1/models"):
            names |= {b"default%2Fdemo": ("tiny", "big"), b"org%2Flora": ("org%2Flora", "org%2Flora")}
            names |= {b"default/org/lora": ("org/lora", "org/lora")}
        for name, expected in names.items():
            by_backend = {}
            for _ in range(2):
                response = await running.ask(bare(method, before + place % name, host), method=method)
                assert response.status == 200
                by_backend[response.value(b"x-beamlit-backend")] = response.body.split(b" ")[1]
            local_name, remote_name = expected
            assert by_backend == {b"local": place % local_name.encode(), b"remote": place % remote_name.encode()}


@pytest.mark.parametrize(("before", "host"), BY.values(), ids=BY)
@pytest.mark.parametrize(("method", "place"), PATHS)
async def test_another_name_in_a_path_is_404(before: bytes, host: bytes, method: bytes, place: bytes) -> None:
    """Where a deployment has several names, any other in a path gets 404, also by a backend's name for the model."""
    async with serving(echo) as server, gateway(SEVERAL, local_port=server.port) as running:
        for name in (b"nonsense", b"tiny", b"adapter-a", b"%61dapter-a", b"Demo", b"demo;x"):
            response = await running.ask(bare(method, before + place % name, host), method=method)
            assert (response.status, response.code) == (404, "model_not_found")
        assert server.sides == []


@pytest.mark.parametrize(
    ("prefix", "target"),
    [
        ("/openai", b"/deployments/%b/chat/completions?api-version=1"),
        ("/v1", b"/models/%b"),
        ("/x/v1", b"/engines/%b/completions"),
        ("/a/publishers/google", b"/models/%b:generateContent"),
        ("/a", b"/model/%b/converse"),
    ],
)
async def test_a_name_in_a_path_behind_the_prefix_of_a_backend(prefix: str, target: bytes) -> None:
    """A name stands in a place of the path that the backend gets: it is renamed there, and another one is 404."""
    there = remote(100, model="big", path_prefix=prefix)
    for several in (True, False):
        models = (ServedModel(name="lora-a", remote_model="big-a"),) if several else ()
        one = document(local(0), there, models=models)
        async with serving(echo) as server, gateway(one, remote_port=server.port, settings=OPEN) as running:
            for name, other in ((b"demo", b"big"), (b"default%2Fdemo", b"big"), (b"lora-a", b"big-a")):
                if b"%2F" in name and b"/models/%b" not in target[:10]:
                    continue
                response = await running.ask(bare(b"POST", b"/default/demo" + target % name, b"gateway"))
                kept = not several and name == b"lora-a"
                line = prefix.encode() + target % (name if kept else other)
                assert response.body.startswith(b"POST %b HTTP/1.1\r\n" % line)
            response = await running.ask(bare(b"POST", b"/default/demo" + target % b"other", b"gateway"))
            assert response.status == (404 if several else 200)
            response = await running.ask(bare(b"GET", b"/default/demo/models", b"gateway"))
            assert (b'"lora-a"' in response.body) is (several and "v1" in prefix)


async def test_a_path_and_a_body_name_one_model() -> None:
    """A path and a body, or a query, with names of different models are 400; both are renamed where they agree."""
    target = b"/default/demo/v1/engines/%b/completions"
    one = document(local(), models=SEVERAL.models)
    async with serving(echo) as server, gateway(one, local_port=server.port) as running:
        response = await post(running, target % b"lora-a", b'{"model":"lora-b"}', JSON)
        assert (response.status, response.code) == (400, "model_missing")
        assert b"The path of the request" in response.body
        response = await running.ask(bare(b"GET", target % b"lora-a" + b"?model=lora-b", b"gateway"))
        assert (response.status, response.code) == (400, "model_missing")
        # A name with its namespace is the same one.
        response = await running.ask(bare(b"GET", target % b"lora-a" + b"?a=1&model=default%2Flora-a", b"gateway"))
        assert response.body.startswith(b"GET /v1/engines/adapter-a/completions?a=1&model=adapter-a HTTP/1.1\r\n")


async def test_names_of_one_model_reach_a_backend_alike() -> None:
    """A name with its namespace in one place and without it in another is shortened in both."""
    one = document(local(), models=SEVERAL.models)
    async with serving(echo) as server, gateway(one, local_port=server.port) as running:
        target = b"/default/demo/v1/engines/default/lora-b/completions"
        response = await post(running, target, b'{"model":"lora-b"}', JSON)
        assert response.body.startswith(b"POST /v1/engines/lora-b/completions HTTP/1.1\r\n")
        assert sent(response) == b'{"model":"lora-b"}'
        response = await post(running, target.replace(b"default/lora", b"lora"), b'{"model":"default/lora-b"}', JSON)
        assert response.body.startswith(b"POST /v1/engines/lora-b/completions HTTP/1.1\r\n")
        assert sent(response) == b'{"model":"lora-b"}'


@pytest.mark.parametrize(("before", "host"), BY.values(), ids=BY)
async def test_without_several_names_the_name_in_a_path_is_that_of_the_backend(before: bytes, host: bytes) -> None:
    """Where a deployment has one name, this one is renamed in paths for a backend with its own; all others pass."""
    async with serving(echo) as server:
        async with gateway(TINY, local_port=server.port) as running:
            for method, place in PATHS:
                for name in (b"demo", b"d%65mo", b"default/demo"):
                    response = await running.ask(bare(method, before + place % name, host), method=method)
                    assert response.body.startswith(b"%b %b HTTP/1.1\r\n" % (method, place % b"tiny"))
                response = await running.ask(bare(method, before + place % b"nonsense", host), method=method)
                assert response.body.startswith(b"%b %b HTTP/1.1\r\n" % (method, place % b"nonsense"))
            response = await running.ask(bare(b"GET", before + b"/v1/models", host))
            assert response.body.startswith(b"GET /v1/models HTTP/1.1\r\n")
        async with gateway(local_port=server.port) as running:
            for name in (b"demo", b"d%65mo", b"default%2Fdemo"):
                response = await running.ask(bare(b"GET", before + b"/v1/models/" + name, host))
                assert response.body.startswith(b"GET /v1/models/%b HTTP/1.1\r\n" % name)


@pytest.mark.parametrize("route", [TINY, document(local())], ids=["renamed", "plain"])
async def test_by_model_a_path_names_no_other_model(route: RouteDocument) -> None:
    """A request by model with another name in its path reaches no backend; the same name is renamed in both places."""
    async with serving(echo) as server, gateway(route, local_port=server.port) as running:
        for place in (b"/v1/engines/%b/completions", b"/v1//%%65ngines/%b/x?a=1", b"/v1/x/v1beta/models/%b:predict"):
            response = await post(running, place % b"other", PLAIN, JSON)
            assert (response.status, response.code) == (404, "model_not_found")
        assert server.sides == []
        response = await post(running, b"/v1/engines/demo/completions", PLAIN, JSON)
        expected = b"demo" if route is not TINY else b"tiny"
        assert response.body.startswith(b"POST /v1/engines/%b/completions HTTP/1.1\r\n" % expected)
        assert sent(response) == PLAIN.replace(b"demo", expected)


@pytest.mark.parametrize(("before", "host"), BY.values(), ids=BY)
async def test_the_list_by_path_and_host_has_the_names_that_work_there(before: bytes, host: bytes) -> None:
    """By path and host `/v1/models` lists the names of the deployment, not those of its servers."""
    async with serving(echo) as server, gateway(SEVERAL, local_port=server.port) as running:
        names = ["demo", "lora-a", "lora-b", "org/lora"]
        for target in (b"/v1/models", b"/v1/models/", b"/v1/models?limit=5"):
            response = await running.ask(bare(b"GET", before + target, host))
            assert [one["id"] for one in orjson.loads(response.body)["data"]] == names
        response = await running.ask(bare(b"HEAD", before + b"/v1/models", host), method=b"HEAD")
        assert (response.status, response.body) == (200, b"")
        assert server.sides == []
        for name in names:
            assert sent(await post(running, PATH, b'{"model":"%b"}' % name.encode(), JSON))
