"""HTTP/1.1 messages of both sides by the rules of RFC 9112, compared with h11."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.http import messages
from gateway.http.messages import Framing, ResponseHead

NAMES = st.sampled_from([b"x-a", b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"x_b"])
VALUES = st.sampled_from(
    [b"", b"a", b"gateway", b"3", b"03", b"-1", b"3, 3", b"chunked", b"gzip", b"close", b"upgrade", b"100-continue"]
) | st.binary(max_size=6)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=5).map(tuple)
TARGETS = st.sampled_from(
    [b"/", b"/a?b", b"*", b"http://gateway/a", b"http://gateway", b"http://other/a", b"https://u@gateway/", b"a", b""]
) | st.binary(max_size=6)


@given(st.sampled_from([*sorted(messages.METHODS), b"TRACE", b"CONNECT", b"BREW"]), TARGETS,
       st.sampled_from(["1.1", "1.0", "0.9", "2.0"]), FIELDS)  # fmt: skip
def test_a_checked_request_has_one_meaning(
    method: bytes, target: bytes, version: str, fields: tuple[tuple[bytes, bytes], ...]
) -> None:
    """A request that passes the check has one host (or none, by HTTP/1.0), one framing, an origin-form target and no
    ambiguous name; any other raises an error of the gateway."""
    try:
        head = messages.check_request(method, target, version, fields)
    except errors.RequestError:
        return
    names = [name for name, _ in head.fields]
    assert method in messages.METHODS
    assert version in ("1.1", "1.0")
    if version == "1.0" and b"host" not in names:
        assert (head.host, head.authority) == ("", b"")
    else:
        assert names.count(b"host") == 1
        assert head.host == messages.parse_host(head.authority)
    assert head.target == b"*" or head.target.startswith(b"/")
    assert b" " not in head.target
    assert not any(b"_" in name for name in names)
    assert (head.content_length is None) or not head.chunked
    assert head.chunked == (b"transfer-encoding" in names)


WEBSOCKET = (
    (b"host", b"gateway"),
    (b"connection", b"keep-alive, Upgrade"),
    (b"upgrade", b"WebSocket"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
)
OFFERS = st.sampled_from(
    [b"h2c", b"websocket, h2c", b"h2c, WebSocket", b"TLS/1.0", b"websocket/13", b"websocket", b"", b","]
)
HANDSHAKES = st.lists(
    st.sampled_from(
        [*WEBSOCKET, (b"connection", b"upgrade"), (b"connection", b"close"), (b"x-a", b"1"),
         (b"content-length", b"0"), (b"content-length", b"1"), (b"transfer-encoding", b"chunked"),
         (b"expect", b"100-continue"),
         (b"http2-settings", b"A"), (b"sec-websocket-version", b"8"), (b"sec-websocket-key", b"short")]
    )
    | st.tuples(st.just(b"upgrade"), OFFERS),
    max_size=3,
)  # fmt: skip


def names_websocket_alone(upgrades: list[bytes]) -> bool:
    """Return whether the values of Upgrade fields, read as one list, have WebSocket in them and nothing else."""
    members = [one.strip().lower() for one in b",".join(upgrades).split(b",") if one.strip()]
    return bool(members) and {one.split(b"/")[0] for one in members} == {b"websocket"}


@given(st.sampled_from([b"GET", b"POST", b"HEAD", b"CONNECT"]), st.sampled_from(["1.1", "1.0"]), HANDSHAKES,
       st.sets(st.sampled_from(WEBSOCKET), max_size=3))  # fmt: skip
def test_fr_19_an_upgrade_is_one_handshake_or_refused_or_ignored(
    method: bytes, version: str, added: list[tuple[bytes, bytes]], left_out: set[tuple[bytes, bytes]]
) -> None:
    """FR-19: a request that offers WebSocket alone passes only as the handshake of RFC 6455 4.2.1, without a body; with
    any other offer it is what it is without one."""
    fields = (*(line for line in WEBSOCKET if line not in left_out), *added)
    upgrades = [value for name, value in fields if name == b"upgrade"]
    try:
        head = messages.check_request(method, b"/", version, fields)
    except errors.UpgradeRefused:
        assert names_websocket_alone(upgrades)
        good = method == b"GET" and version == "1.1" and not left_out and (b"content-length", b"1") not in added
        assert not (good and {name for name, _ in added} <= {b"connection", b"x-a", b"content-length"})
        return
    except errors.RequestError:
        plain = tuple(line for line in fields if line[0] != b"upgrade")
        with pytest.raises(errors.RequestError):
            messages.check_request(method, b"/", version, plain)
        return
    assert head.websocket == names_websocket_alone(upgrades)
    if not head.websocket:
        plain = tuple(line for line in fields if line[0] != b"upgrade")
        assert head._replace(fields=plain) == messages.check_request(method, b"/", version, plain)
        return
    assert (method, version, head.has_body) == (b"GET", "1.1", False)
    assert [value.lower() for value in upgrades] == [b"websocket"]
    for name in (b"host", b"sec-websocket-version", b"sec-websocket-key"):
        assert [line for line in fields if line[0] == name] == [line for line in WEBSOCKET if line[0] == name]
    assert not {b"transfer-encoding", b"expect", b"http2-settings"} & {name for name, _ in fields}
    assert [value for name, value in fields if name == b"content-length"] in ([], [b"0"])


@given(st.binary(max_size=30))
def test_a_switch_is_checked_against_its_key(reason: bytes) -> None:
    """A 101 response passes only with the accept value of its key (RFC 6455 1.3 and 4.1) and without control bytes."""
    key, accept = b"dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    fields = ((b"upgrade", b"websocket"), (b"connection", b"upgrade"), (b"sec-websocket-accept", accept))
    for offered in (key, b"AAAAAAAAAAAAAAAAAAAAAA==", None):
        try:
            head = messages.check_upgrade(reason, "1.1", fields, offered)
        except errors.BadResponse:
            assert offered != key or any((byte < 32 and byte != 9) or byte == 127 for byte in reason)
        else:
            assert offered == key
            assert head == ResponseHead(101, reason, fields, None)


def test_a_switch_cannot_be_broken_apart() -> None:
    """A 101 response with a line break in a value is never written."""
    wire = messages.upgrade_head(((b"sec-websocket-accept", b"x"),), b"now")
    assert wire.endswith(b"\r\ndate: now\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
    assert b"date: now" not in messages.upgrade_head(((b"date", b"then"),), b"now")
    with pytest.raises(errors.BadResponse):
        messages.upgrade_head(((b"x-a", b"b\r\nc: d"),), b"now")


@given(
    st.integers(0, 700),
    st.sampled_from([b"OK", b"", b"a\r\nx: y", b"\0"]),
    st.sampled_from(["1.1", "1.0", "0.9"]),
    FIELDS,
    st.sampled_from([b"GET", b"HEAD", b"POST"]),
)
def test_a_checked_response_ends_in_one_way(
    status: int, reason: bytes, version: str, fields: tuple[tuple[bytes, bytes], ...], method: bytes
) -> None:
    """The framing of a response is that of RFC 9112 6.3, and framing fields are not among those that are sent on."""
    try:
        head, framing = messages.check_response(status, reason, version, fields, method)
    except errors.BadResponse:
        return
    assert 200 <= status <= 599
    assert not {b"content-length", b"transfer-encoding"} & {name for name, _ in head.fields}
    chunked = any(name == b"transfer-encoding" for name, _ in fields)
    if method == b"HEAD" or status in (204, 304):
        assert framing is Framing.NONE
    elif chunked:
        assert framing is Framing.CHUNKED
    else:
        assert framing is (Framing.CLOSE if head.content_length is None else Framing.LENGTH)


SAFE = st.binary(max_size=8).map(lambda raw: bytes(byte for byte in raw if byte in b"abc ;=,\r\n\0\t").strip(b" \t"))


@given(
    st.sampled_from([200, 204, 304, 404, 599, 199, 600]),
    st.lists(st.tuples(st.sampled_from([b"x-a", b"date", b"set-cookie"]), SAFE), max_size=4).map(tuple),
    st.none() | st.integers(0, 10**12),
    st.sampled_from([b"GET", b"HEAD"]),
    st.sampled_from([0, 1]),
    st.booleans(),
)
def test_a_written_response_has_the_intended_meaning(
    status: int,
    fields: tuple[tuple[bytes, bytes], ...],
    length: int | None,
    method: bytes,
    minor: int,
    close: bool,
) -> None:
    """A written response head is read by h11 with the same meaning, and a value that would break it is never
    written."""
    head = ResponseHead(status, b"Fine", fields, length)
    hidden = any(byte in value for _, value in fields for byte in b"\r\n\0")
    try:
        wire = messages.response_head(head, method, minor, close=close, date=b"now")
    except errors.BadResponse:
        assert hidden or status in (199, 600)
        return
    assert not hidden
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(wire)
    event = connection.next_event()
    assert isinstance(event, h11.Response)
    read = [(bytes(name), bytes(value)) for name, value in event.headers]
    assert read[: len(fields)] == [(name, value.strip(b" \t")) for name, value in fields]
    ours = dict(read[len(fields) :])
    assert (b"date" in ours) is (not any(name == b"date" for name, _ in fields))
    assert (b"connection" in ours) is close
    bodiless = status in (204, 304)
    assert ours.get(b"content-length") == (None if bodiless or length is None else b"%d" % length)
    assert (b"transfer-encoding" in ours) is (not bodiless and length is None and method != b"HEAD" and minor == 1)


@pytest.mark.parametrize(
    ("value", "host"),
    [(b"A.b", "a.b"), (b"a.", "a"), (b"a:80", "a"), (b"a:", "a"), (b"[::1]:80", "[::1]"), (b"10.0.0.1", "10.0.0.1")],
)
def test_hosts(value: bytes, host: str) -> None:
    """A host (RFC 9110 7.2) is read in lower case, without port and trailing dot."""
    assert messages.parse_host(value) == host


HOST = (b"host", b"gateway")


@pytest.mark.parametrize(
    ("target", "version", "fields", "word"),
    [
        ("/é".encode(), "1.1", (HOST,), "percent-encoded"),
        (b"/v1/x#y", "1.1", (HOST,), "percent-encoded"),
        (b"/a b", "1.1", (HOST,), "percent-encoded"),
        (b"http://user:password@gateway/", "1.1", (HOST,), "password"),
        (b"/", "1.1", (), "Host"),
        (b"/", "1.0", (HOST, HOST), "Host"),
        (b"/", "1.1", (HOST, HOST), "Host"),
        (b"/", "1.1", ((b"host", "gäteway".encode()),), "Punycode"),
        (b"/", "1.1", ((b"host", b""),), "Host"),
        (b"/", "1.1", (HOST, (b"content-length", b"1, 1")), "Content-Length"),
        (b"/", "1.1", (HOST, (b"content-length", b"1"), (b"content-length", b"1")), "Content-Length"),
        (b"/", "1.1", (HOST, (b"transfer-encoding", b"gzip, chunked")), "chunked"),
        (b"/", "1.0", (HOST, (b"transfer-encoding", b"chunked")), "chunked"),
        (b"/", "1.1", (HOST, (b"transfer-encoding", b"chunked"), (b"content-length", b"1")), "not both"),
    ],
)
def test_a_refusal_names_its_cause(
    target: bytes, version: str, fields: tuple[tuple[bytes, bytes], ...], word: str
) -> None:
    """The message of a refused request names what is wrong, and nothing of what the client has sent."""
    with pytest.raises(errors.MalformedRequest) as caught:
        messages.check_request(b"GET", target, version, fields)
    assert word in caught.value.message
    assert caught.value.message != errors.MalformedRequest.sentence
