"""Names of models in bodies: found whatever the media type and the content coding, and replaced."""

import gzip
import json
from itertools import product
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway import errors
from gateway.model_names import body as bodies
from gateway.model_names import media_type, scanner
from gateway.model_names.scanner import FoundName
from tests.unit.gateway.model_names.test_json_scanner import Pairs, objects

FORM = b"application/x-www-form-urlencoded"
MULTIPART = b"multipart/form-data; boundary=xx"
PART = b'--xx\r\nContent-Disposition: form-data; name="model"\r\n\r\na\r\n--xx--\r\n'


def found(
    content: bytes, kind: bytes | None = b"application/json", *more: tuple[bytes, bytes], required: bool = True
) -> FoundName | None:
    """Return the name in a body, found as for a request with these fields."""
    fields = (*(() if kind is None else ((b"content-type", kind),)), *more)
    name = bodies.plain_name(fields, content)
    if name is not None:
        return bodies.PLAIN._replace(name=name)
    reader = bodies.BodyReader(bodies.describe(fields), 1 << 20)
    for _ in reader.steps(content):
        pass
    return reader.name(required=required)


def model_of(content: bytes) -> str:
    """Return the name in a JSON body."""
    name = found(content)
    if name is None:
        raise errors.ModelMissing
    return name.name


def replace_model(content: bytes, new: str) -> bytes:
    """Return a JSON body with another name."""
    name = found(content)
    assert name is not None
    return bodies.renamed(content, name, new)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=8) | st.just("model"), inner, max_size=4), max_leaves=12
)  # fmt: skip


@given(
    st.dictionaries(st.text(max_size=8), JSON, max_size=5),
    st.text(),
    st.text(),
    st.booleans(),
    st.sampled_from([None, 1, "\t"]),
    st.integers(0, 5),
)
def test_only_the_model_value_is_replaced(
    others: dict[str, Any], old: str, new: str, ascii_only: bool, indent: int | str | None, place: int
) -> None:
    """In any object only the model's value is replaced, and all other bytes stay the same."""
    items = [(key, value) for key, value in others.items() if key != "model"]
    items.insert(min(place, len(items)), ("model", old))
    try:
        body = json.dumps(dict(items), ensure_ascii=ascii_only, indent=indent).encode()
        expected = json.dumps({**dict(items), "model": new}).encode()
    except UnicodeEncodeError:
        assume(False)
        raise
    assert model_of(body) == old
    replaced = replace_model(body, new)
    assert json.loads(replaced) == json.loads(expected)
    token = json.dumps(old, ensure_ascii=ascii_only).encode()
    new_length = len(replaced) - len(body) + len(token)
    start = next(i for i in range(len(body)) if body[:i] == replaced[:i] and body[i:].startswith(token)
                 and replaced[i + new_length :] == body[i + len(token) :])  # fmt: skip
    assert start > 0


@pytest.mark.parametrize(
    ("body", "after"),
    [
        (b'{"model" :\n "a" , "x": {"model": "b"}}', b'{"model" :\n "new" , "x": {"model": "b"}}'),
        (b'{"x": ["model", {"model": 1}], "model":"a"}', b'{"x": ["model", {"model": 1}], "model":"new"}'),
        (b'{"a": "\\"model\\": \\"x\\"", "model": "m"}', b'{"a": "\\"model\\": \\"x\\"", "model": "new"}'),
        (b'{"\\u006dodel": "a\\\\"}', b'{"\\u006dodel": "new"}'),
        (b'{"x": 1.50, "model": "", "x": 1e2}', b'{"x": 1.50, "model": "new", "x": 1e2}'),
        (b'{"k\\\\": "model", "model": "a"}', b'{"k\\\\": "model", "model": "new"}'),
    ],
)
def test_the_model_value_is_found(body: bytes, after: bytes) -> None:
    """The model's value is found beside nested keys, escapes and strings that look like keys, which stay unchanged."""
    assert replace_model(body, "new") == after


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"model"',
        b"{",
        b"{}",
        b'{"model": 1}',
        b'{"model": null}',
        b'{"model": {"model": "x"}}',
        b'{"x": {"model": "a"}}',
        b'{"model": "a", "model": "b"}',
        b'{"model": "a", "\\u006dodel": "b"}',
        b'{"model": 1, "model": "b"}',
        b'{"model": "a"} x',
        b'{"model": "\xff"}',
        b'{"model": NaN}',
    ],
)
def test_what_names_no_model_is_refused(body: bytes) -> None:
    """A body that is no object, or whose model is no string or is there twice, is refused."""
    with pytest.raises(errors.ModelMissing):
        model_of(body)


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,\\ model1', max_size=60).map(str.encode))
def test_any_bytes_are_a_model_or_refused(body: bytes) -> None:
    """Any bytes either name a model or raise ModelMissing."""
    try:
        name = model_of(body)
    except errors.ModelMissing:
        return
    assert json.loads(body)["model"] == name


@given(objects.map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_the_shortest_way_agrees_with_the_scanner(content: bytes) -> None:
    """A name that is found by the shortest way is the one that the scanner finds, at the place where it is replaced."""
    name = bodies.plain_name((), content)
    if name is None:
        return
    reader = bodies.BodyReader(bodies.describe(()), 1 << 20)
    assert not list(reader.steps(content))
    other = reader.name(required=True)
    assert other is not None
    assert other.name == name
    assert bodies.renamed(content, bodies.PLAIN, "new") == bodies.renamed(content, other, "new")


@pytest.mark.parametrize("rest", ["", ',"a":"\\n"', ',"a":"\\u1234"', ',"a":"ä"', ',"ä":1', ',"\\u00e4":1'])
def test_the_shortest_way_takes_no_key_in_other_letters(rest: str) -> None:
    """A body with a key that some readers take for `model` is left to the scanner, whatever else is in the body."""
    for letters in product(*zip("model", "MODEL", strict=True)):
        key = "".join(letters)
        name = bodies.plain_name((), f'{{"model":"a","{key}":"b"{rest}}}'.encode())
        assert name is None
    assert bodies.plain_name((), f'{{"model":"a","modes":"b"{rest}}}'.encode()) == "a"


@given(objects.map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_one_meaning_or_none(content: bytes) -> None:
    """After a name is replaced no reader finds the old one: neither by the first nor by the last of equal keys."""
    try:
        name = found(content, required=False)
    except errors.ModelMissing:
        return
    if name is None:
        return
    after = bodies.renamed(content, name, "new").decode("utf-8", "surrogatepass").removeprefix("\ufeff")
    pairs = json.loads(after, object_pairs_hook=Pairs)
    assert [value for key, value in pairs if key.lower() == "model"] == ["new"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"model":"a"}', None),
        (b'{"model":"a"}', b""),
        (b'\xef\xbb\xbf {"model":"a"}', b"application/json; charset=utf-8"),
        (b'{"model":"a","t":NaN,"u":"\\ud83d"}', b"application/vnd.api+json"),
        (b'{"model":"a","x":{"model":"b"}}', b"text/plain;charset=ISO-8859-1"),
        (b'{"model":"a"}', b"application/octet-stream"),
        (b'{"model":"a"}', FORM),
        (b"x=1&model=a", FORM + b"; charset=UTF-8"),
        (PART, MULTIPART),
        (PART, b'Multipart/Form-Data; charset=utf-8; boundary="xx"'),
        (b'{"messages":"%b","model":"a"}' % (b"x" * 200_000), b"application/json"),
    ],
)
def test_the_name_is_found_and_replaced(content: bytes, kind: bytes | None) -> None:
    """The name is found in each notation and under each media type, and a new one takes its place."""
    name = found(content, kind)
    assert name is not None
    assert name.name == "a"
    new = bodies.renamed(content, name, "org/new")
    again = found(new, kind)
    assert again is not None
    assert again.name == "org/new"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"messages":[]}', b"application/json"),
        (b'{"model":null}', b"application/json"),
        (b'[{"model":"a"}]', b"application/json"),
        (b"not json", b"application/json"),
        (b'{"x":{"model":"a"}}\n{"x":1}\n', FORM),
        (b'{"id":1}\n{"id":2}\n', b"application/jsonl"),
        (b"\xff\xfe binary", b"application/octet-stream"),
        (b"{{template}}", b"text/x-template"),
        (b"x=1&models=a", FORM),
        (PART.replace(b"model", b"file"), MULTIPART),
    ],
)
def test_other_bodies_name_no_model(content: bytes, kind: bytes) -> None:
    """A body that names no model to any server is no mistake where none is required."""
    assert found(content, kind, required=False) is None


@pytest.mark.parametrize(
    ("content", "kind", "problem"),
    [
        (b'{"model":"a","model":"b"}', b"application/octet-stream", scanner.DUPLICATE),
        (b'{"Model":"a"}', b"image/png", scanner.LOOKALIKE),
        (b'{"model":"a"}\n{"x":1}', b"application/x-ndjson", scanner.NOT_JSON),
        (b'{"model":"a"} // comment', b"application/octet-stream", scanner.NOT_JSON),
        (b"{'model':'a'}", b"application/json", scanner.NOT_JSON),
        (b'{"model":"a","x":[1,]}', b"application/json", scanner.NOT_JSON),
        ('{"model":"a"}'.encode("utf-16"), b"application/json", scanner.NOT_UTF_8),
        (b'{"model":"a"}', b"application/json; charset=utf-7", scanner.NOT_UTF_8),
        (PART, b"multipart/form-data; charset=utf-7; boundary=xx", scanner.NOT_UTF_8),
        (PART, b"multipart/form-data; boundary=xx; charset=cp037", scanner.NOT_UTF_8),
        (b'{"model":"a"}', b"application/json, multipart/form-data; boundary=x", media_type.TWO_TYPES),
        (PART, b"multipart/form-data", media_type.NO_BOUNDARY),
        (PART, b"multipart/form-data; boundary=xx; boundary=yy", media_type.NO_BOUNDARY),
        (PART, b"multipart/form-data; boundary*=xx", media_type.NO_BOUNDARY),
        (b'{"model":"a"}', MULTIPART, scanner.NOT_A_FORM),
        (b'{"x":1}&model=a', FORM, scanner.NOT_JSON),
        (b'{"x":"&model=b&","model":"a"}', FORM, scanner.DUPLICATE),
        (b"model=a&model=a", FORM, scanner.DUPLICATE),
    ],
)
def test_what_servers_may_read_differently(content: bytes, kind: bytes, problem: str) -> None:
    """A body in which servers may read different names is refused with the cause, also where no name is required."""
    for required in (False, True):
        with pytest.raises(errors.ModelMissing) as caught:
            found(content, kind, required=required)
        assert caught.value.message == problem


def test_two_media_types_are_refused() -> None:
    """Two different media types are refused, and the same one twice is one."""
    assert found(b'{"model":"a"}', b"application/json", (b"content-type", b"application/json")) is not None
    with pytest.raises(errors.ModelMissing, match="one media type"):
        found(b'{"model":"a"}', b"application/json", (b"content-type", MULTIPART))


@pytest.mark.parametrize("kind", [b"application/json", FORM, MULTIPART, b"application/octet-stream"])
def test_a_compressed_body_is_read_through(kind: bytes) -> None:
    """A compressed body of each kind is read through; what is renamed is its decoded form."""
    plain = {FORM: b"model=a", MULTIPART: PART}.get(kind, b'{"model":"a"}')
    description = bodies.describe(((b"content-type", kind), (b"content-encoding", b"gzip")))
    reader = bodies.BodyReader(description, 1000)
    for _ in reader.steps(gzip.compress(plain)):
        pass
    name = reader.name(required=True)
    assert name is not None
    assert (name.name, reader.decoded) == ("a", plain)


def test_a_name_that_would_end_its_part_is_refused() -> None:
    """A name that begins with the delimiter of the form is not written into it."""
    name = found(PART, MULTIPART)
    assert name is not None
    with pytest.raises(errors.ModelMissing):
        bodies.renamed(PART, name, "--xx-tiny")
