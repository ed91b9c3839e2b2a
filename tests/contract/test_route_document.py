"""The route document: a writer and a reader of the same version and of different ones."""

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any, Final

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.v1alpha1 import API_VERSION, Backend, DocumentError, Headers, RouteDocument, SecretKey, Use, read
from tools.repository import ROOT

SCHEMA: Final = json.loads((ROOT / "gateway/api/v1alpha1.schema.json").read_text(encoding="utf-8"))
FIRST: Final = (ROOT / "tests/contract/route_document_first.json").read_text(encoding="utf-8").strip()

labels = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
header_names = st.from_regex(r"[A-Za-z_]([A-Za-z0-9_-]{0,12})", fullmatch=True)
header_values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)
seconds = st.none() | st.floats(min_value=0.001, max_value=86400) | st.integers(min_value=1, max_value=86400)
model_names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)

served_models = st.fixed_dictionaries(
    {"name": st.from_regex(r"lora[!-~]{1,5}", fullmatch=True)},
    optional={"localModel": model_names, "remoteModel": model_names},
)


def _name(served_model: Any) -> str:
    return str(served_model["name"])


def header_map(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy for mappings whose keys differ by more than case."""
    pairs = st.lists(st.tuples(header_names, values), max_size=3, unique_by=lambda pair: pair[0].lower())
    return pairs.map(dict)


secret_keys = st.fixed_dictionaries({"name": labels, "key": st.text(st.characters(codec="utf-8"), max_size=9)})
header_changes = st.fixed_dictionaries(
    {},
    optional={
        "set": header_map(header_values),
        "setFrom": header_map(secret_keys),
        "add": header_map(header_values),
        "remove": st.lists(header_names, max_size=3),
    },
)
places = st.one_of(
    labels.map(lambda name: {"service": name}), labels.map(lambda name: {"host": name}), st.just({"default": True})
)


OF_THE_SETTINGS = frozenset({"port", "tls", "credentials"})
"""Fields that the default remote backend has from the gateway's settings alone."""


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """Draw documents in any order and case, with and without the values that are the default."""
    ids = draw(st.lists(labels, max_size=4, unique=True))
    heavy = draw(st.sampled_from([*ids, None]))
    backends = []
    for id_ in ids:
        extra = draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "headers": header_changes,
                    "forwardHeaders": st.lists(header_names, max_size=3),
                    "forwarded": st.sampled_from(["none", "append"]),
                    "endpoints": st.sampled_from(["pods", "service"]),
                    "port": st.integers(1, 65535),
                    "scheme": st.sampled_from(["http", "https"]),
                    "pathPrefix": st.sampled_from(["", "/v1", "/w%20s/m"]),
                    "credentials": labels.map(lambda name: {"oauth2": {"name": name}}),
                    "tls": labels.map(lambda name: {"serverName": name}),
                    "model": model_names,
                },
            )
        )
        others = draw(st.lists(st.sampled_from([Use.FAILOVER.value, Use.OVERFLOW.value]), max_size=2))
        place = draw(places)
        if "default" in place:  # the gateway's settings say the rest of it
            extra = {key: value for key, value in extra.items() if key not in OF_THE_SETTINGS}
        backends.append({"id": id_, "weight": 100 if id_ == heavy else 0, "use": [*others, "weighted"]} | place | extra)
    rest = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "serviceNames": st.lists(labels, max_size=3),
                "clusterIps": st.lists(st.ip_addresses().map(str), max_size=2),
                "path": labels,
                "model": model_names,
                "models": st.lists(served_models, max_size=3, unique_by=_name),
                "timeouts": st.fixed_dictionaries(
                    {}, optional=dict.fromkeys(("connect", "firstByte", "firstToken", "idle"), seconds)
                ),
                "keepAlive": st.fixed_dictionaries(
                    {}, optional={"after": seconds | st.just(0), "beforeHead": st.none() | st.booleans()}
                ),
                "limits": st.fixed_dictionaries({}, optional={"bodyBytes": st.none() | st.integers(0, 2**40)}),
                "affinity": st.fixed_dictionaries(
                    {}, optional={"type": st.sampled_from(["none", "conversation", "prefix"]), "header": header_names}
                ),
                "statefulPaths": st.sampled_from(["local", "refuse"]),
                "drill": st.fixed_dictionaries(
                    {},
                    optional={
                        "interval": st.floats(0, 86400),
                        "request": st.sampled_from(["none", "models", "completion"]),
                    },
                ),
                "split": st.fixed_dictionaries({}, optional={"percentage": st.integers(0, 100)}),
            },
        )
    )
    return {"name": draw(labels), "backends": backends} | rest


def objects_of(value: Any, path: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Return the objects in a document that have a type of their own, unlike mappings of header names."""
    if isinstance(value, list):
        return [inner for item in value for inner in objects_of(item, path)]
    if not isinstance(value, dict):
        return []
    below = [inner for name, member in value.items() for inner in objects_of(member, (*path, name))]
    return below if path and path[-1] in {"set", "setFrom", "add"} and "headers" in path[-2:] else [value, *below]


def shuffled(value: Any, order: Callable[[list[Any]], list[Any]]) -> Any:
    """Return the same JSON with the members of all objects in another order."""
    if isinstance(value, dict):
        return {name: shuffled(value[name], order) for name in order(list(value))}
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value


# ------------------------------------------------------------------------------------------------- the writer


@given(bodies())
def test_what_is_written_is_read_as_it_was_meant(body: dict[str, Any]) -> None:
    """A reader of the same version knows every field, and writing the document again gives the same bytes."""
    written = RouteDocument.model_validate(body).canonical_json()
    document, unknown = read(written)
    assert unknown == 0
    assert document.canonical_json() == written


@given(bodies())
def test_what_is_written_satisfies_the_published_schema(body: dict[str, Any]) -> None:
    """Every document that is written satisfies the published JSON Schema."""
    written = json.loads(RouteDocument.model_validate(body).canonical_json())
    assert list(jsonschema.Draft202012Validator(SCHEMA).iter_errors(written)) == []


def test_the_published_schema_is_a_json_schema() -> None:
    """The published schema is a valid JSON Schema."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@given(bodies(), st.randoms(use_true_random=False))
def test_equal_meaning_is_equal_bytes(body: dict[str, Any], random: Any) -> None:
    """Order of keys and sets, case of header names and explicit defaults do not change the bytes."""
    document = RouteDocument.model_validate(body)

    def order(names: list[Any]) -> list[Any]:
        return random.sample(names, len(names))  # type: ignore[no-any-return]

    other = document.model_dump(mode="json", by_alias=True)  # with every default
    other["serviceNames"] = order(other["serviceNames"]) * 2
    other["clusterIps"] = order(other["clusterIps"])
    other["path"] = document.path_segment
    other["model"] = document.client_model
    other["hash"] = "0" * 16
    for backend in other["backends"]:
        headers = backend["headers"]
        backend["use"] = order(backend["use"])
        backend["forwardHeaders"] = order([name.swapcase() for name in backend["forwardHeaders"]]) * 2
        headers["remove"] = order([name.upper() for name in headers["remove"]])
        for change in ("set", "setFrom", "add"):
            headers[change] = {name.swapcase(): value for name, value in headers[change].items()}
    again = RouteDocument.model_validate(shuffled(other, order))
    assert again.canonical_json() == document.canonical_json()


@given(bodies())
def test_canonical_json_contains_nothing_needless(body: dict[str, Any]) -> None:
    """Canonical JSON has sorted keys, no white space between them, no null and no empty values."""
    written = RouteDocument.model_validate(body).canonical_json()
    value = json.loads(written)
    assert written == json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for item in objects_of(value):
        assert [name for name, member in item.items() if member in (None, [], {})] == []


@given(bodies())
def test_the_hash_is_that_of_the_rest(body: dict[str, Any]) -> None:
    """The hash is the first 16 hexadecimal digits of the SHA-256 digest of the canonical JSON without it."""
    value = json.loads(RouteDocument.model_validate(body).canonical_json())
    stated = value.pop("hash")
    rest = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert stated == hashlib.sha256(rest.encode()).hexdigest()[:16]


def test_other_meaning_is_another_hash() -> None:
    """Documents that differ in a weight, a reason or a header value have different hashes."""
    backend = {"id": "local", "service": "s", "weight": 100}
    variants: list[dict[str, Any]] = [
        {"name": "a"},
        {"name": "b"},
        {"name": "a", "split": {"reason": "Override"}},
        {"name": "a", "backends": [backend]},
        {"name": "a", "backends": [backend | {"weight": 0}]},
        {"name": "a", "backends": [backend | {"headers": {"set": {"a": "1"}}}]},
        {"name": "a", "backends": [backend | {"headers": {"add": {"a": "1"}}}]},
        {"name": "a", "backends": [backend | {"use": ["weighted"]}]},
    ]
    hashes = {json.loads(RouteDocument.model_validate(body).canonical_json())["hash"] for body in variants}
    assert len(hashes) == len(variants)


def test_zero_and_false_are_written_where_they_are_not_the_default() -> None:
    """A limit of 0 bytes is written."""
    document = RouteDocument.model_validate({"name": "a", "limits": {"bodyBytes": 0}})
    assert json.loads(document.canonical_json())["limits"] == {"bodyBytes": 0}


# ------------------------------------------------------------------------------- an old reader and a new writer


@given(bodies(), st.data())
def test_k_13_unknown_fields_are_ignored_and_counted(body: dict[str, Any], data: st.DataObject) -> None:
    """A reader ignores and counts fields of a newer writer at any depth."""
    plain = RouteDocument.model_validate(body).canonical_json()
    newer = json.loads(plain)
    targets = data.draw(st.lists(st.sampled_from(range(len(objects_of(newer)))), unique=True))
    objects = objects_of(newer)
    for index in targets:
        objects[index]["zNewer"] = data.draw(st.sampled_from([None, 1, "x", [1], {"deep": {"deeper": 1}}]))
    document, unknown = read(json.dumps(newer))
    assert document.canonical_json() == plain
    assert unknown == len(targets)


@pytest.mark.parametrize("rest", [{}, {"name": 5}, {"backends": "of another shape"}, {"apiVersion": "x/v2"}])
def test_k_13_k_34_a_required_feature_that_is_unknown_rejects_the_document(rest: dict[str, Any]) -> None:
    """A document with an unknown feature is refused for that feature, even if the rest is wrong, too."""
    with pytest.raises(
        DocumentError, match=r"^requires mirroring, shadowing, which this gateway does not have; upgrade"
    ):
        read(json.dumps({"name": "a", "requires": ["shadowing", "mirroring"]} | rest))


def test_a_known_use_is_not_enough_for_an_unknown_one() -> None:
    """A document whose backend has an unknown use is refused, although it has known uses, too."""
    with pytest.raises(
        DocumentError, match=r"^backends\[0\]\.use\[1\] must be weighted, failover or overflow, not 'mirror'$"
    ):
        read('{"name":"a","backends":[{"id":"b","default":true,"use":["weighted","mirror"]}]}')


def test_the_first_document_ever_is_still_read() -> None:
    """A document of the first version is read and written again with the same bytes."""
    document, unknown = read(FIRST)
    assert unknown == 0
    assert document.canonical_json() == FIRST


# ------------------------------------------------------------------------------------ documents that are wrong


@pytest.mark.parametrize(
    ("own", "named"),
    [
        ({"tls": {"caBundle": "-----BEGIN CERTIFICATE-----\n"}}, "tls"),
        ({"tls": {"serverName": "impostor.example"}}, "tls"),
        ({"tls": {"clientCertificate": "mine"}}, "tls"),
        ({"port": 8443}, "port"),
        ({"credentials": {"oauth2": {"name": "mine"}}}, "credentials"),
        ({"port": 8443, "tls": {"serverName": "impostor.example"}}, "port and tls"),
        ({"host": "impostor.example"}, None),
        ({"service": "impostor"}, None),
    ],
)
def test_a_document_says_nothing_about_the_default_remote_backend(own: dict[str, Any], named: str | None) -> None:
    """A document that says where the default remote backend is, or by what it is known, is refused: the installation's
    token goes there."""
    expected = "exactly one of service, host and default" if named is None else f"'b' must not have {named}: "
    with pytest.raises(DocumentError, match=expected):
        read(json.dumps({"name": "a", "backends": [{"id": "b", "default": True} | own]}))


@pytest.mark.parametrize("text", ["llm.b", "b/llm", "10.0.0.1.b", "", "10.0.0.1/32", "127.1", "fe80::1%eth0", "[::1]"])
def test_cluster_ips_are_addresses(text: str) -> None:
    """A document with a cluster IP that is no IP address is refused: it could be a host name of another namespace."""
    with pytest.raises(DocumentError, match="clusterIps must be IP addresses"):
        read(json.dumps({"name": "a", "clusterIps": ["10.0.0.1", text]}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "route.json is not JSON: it is empty"),
        (b"\xff", "route.json is not JSON: it must be text in UTF-8"),
        ("[" * 100_000, "route.json is not JSON: see line 1, column 1026"),
        ('{"name":"a","timeouts":{"idle":NaN}}', "route.json is not JSON: see line 1, column 32"),
        ('{"name":"a","model":"\\ud800"}', "route.json is not JSON"),
        ("[]", "route.json must be a JSON object"),
        ("{}", "name is required: the name of an object"),
        ('{"name":"a","requires":"x"}', "requires must be a list of names"),
        (
            '{"name":"A"}',
            "name must be the name of an object: lower-case letters, digits, dashes and dots, such as demo, not 'A'",
        ),
        ('{"name":"a","apiVersion":"gateway.beamlit.com/v2"}', "apiVersion must be gateway.beamlit.com/v1alpha1, not"),
        ('{"name":"a","timeouts":{"idle":0}}', "timeouts.idle must be a number above 0, at most 86400, not 0"),
        ('{"name":"a","backends":[{"id":"b"}]}', "backends[0]: backend 'b' needs exactly one of service"),
        (
            '{"name":"a","backends":[{"id":"b","service":"s","host":"h"}]}',
            "backends[0]: backend 'b' needs exactly one of service",
        ),
        (
            '{"name":"a","backends":[{"id":"b","default":true},{"id":"b","host":"h"}]}',
            "route.json: backend ids must differ, got b, b",
        ),
        (
            '{"name":"a","backends":[{"id":"b","default":true,"weight":99}]}',
            "route.json: the weights of the backends must sum up to 100 or 0, got 99",
        ),
        (
            '{"name":"a","backends":[{"id":"b","default":true,"weight":100,"use":["failover"]}]}',
            "route.json: backend 'b' has a weight but is not for weighted use",
        ),
        (
            '{"name":"a","backends":[{"id":"b","default":true,"headers":{"set":{"A":"1","a":"2"}}}]}',
            "backends[0].headers.set: names must differ by more than case, got A, a",
        ),
        (
            '{"name":"a","backends":[{"id":"b","default":true,"headers":{"add":{"a":"\\r\\n"}}}]}',
            "backends[0].headers.add.a must be printable ASCII characters",
        ),
        (
            '{"name":"a","backends":[{"id":"b","default":true,"pathPrefix":"x"}]}',
            "backends[0].pathPrefix must be a path whose segments begin with /",
        ),
        (
            '{"name":"a","backends":[{"id":"b","default":true,"port":0}]}',
            "backends[0].port must be a whole number from 1 to 65535, not 0",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_field(text: str | bytes, message: str) -> None:
    """A document that cannot be served is refused, and the message begins with the field that is wrong."""
    with pytest.raises(DocumentError) as caught:
        read(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "prefix",
    ["/", "x", "/a//b", "/a/", "//", "/a?b", "/a#b", "/a b", "/a\\b", "/ä", "/a\n", "/a\r\nX: 1", "/" + "a" * 1024],
)
def test_k_07_a_prefix_that_is_no_path(prefix: str) -> None:
    """K-07: a prefix that could end a request line, begin a query or be ambiguous rejects the document."""
    text = json.dumps({"name": "a", "backends": [{"id": "b", "default": True, "pathPrefix": prefix}]})
    with pytest.raises(DocumentError, match=r"^backends\[0\]\.pathPrefix must be a path"):
        read(text)


@pytest.mark.parametrize("byte", range(256))
def test_k_08_every_byte_in_a_field(byte: int) -> None:
    """K-08: names are tokens (RFC 9110 5.6.2), values visible ASCII and space; everything else rejects the document."""
    token = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    sign = chr(byte)
    for changes, good in (({f"a{sign}": "v"}, byte in token), ({"a": f"v{sign}"}, 0x20 <= byte <= 0x7E)):
        text = json.dumps({"name": "a", "backends": [{"id": "b", "default": True, "headers": {"set": changes}}]})
        if good:
            read(text)
        else:
            with pytest.raises(DocumentError):
                read(text)


@pytest.mark.parametrize(
    "rest",
    [
        {"timeouts": {"firstByte": 864001}},
        {"timeouts": {"connect": 0}},
        {"timeouts": {"idle": 1e400}},
        {"keepAlive": {"after": -1}},
        {"keepAlive": {"after": 86401}},
        {"limits": {"bodyBytes": -1}},
        {"queue": {"size": 10**9}},
        {"queue": {"wait": -1}},
        {"breaker": {"open": 1e9}},
        {"breaker": {"consecutiveFailures": 0}},
        {"retry": {"bodyBytes": -1}},
    ],
)
def test_k_28_values_beyond_their_bounds(rest: dict[str, Any]) -> None:
    """K-28: times, sizes and counts beyond their bounds are refused."""
    with pytest.raises(DocumentError):
        read(json.dumps({"name": "a"} | rest))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=9), children, max_size=3),
    max_leaves=12,
)


@given(bodies(), st.data())
def test_k_12_damage_never_raises_anything_else(body: dict[str, Any], data: st.DataObject) -> None:
    """A document with one wrong value anywhere is read, or refused by a DocumentError."""
    damaged = json.loads(RouteDocument.model_validate(body).canonical_json())
    target = data.draw(st.sampled_from(objects_of(damaged)))
    target[data.draw(st.sampled_from([*target, "requires", "headers"]))] = data.draw(json_values)
    try:
        document, unknown = read(json.dumps(damaged))
    except DocumentError:
        return
    assert unknown >= 0
    assert read(document.canonical_json())[0] == RouteDocument.model_validate(json.loads(document.canonical_json()))


@given(st.binary(max_size=64) | json_values.map(lambda value: json.dumps(value).encode()))
def test_k_12_any_bytes_are_read_or_refused(text: bytes) -> None:
    """Any bytes are read, or refused by a DocumentError."""
    try:
        document, _ = read(text)
    except DocumentError:
        return
    assert document.api_version == API_VERSION


# ---------------------------------------------------------------------------------------------- names


def test_names_clients_use_default_to_the_name() -> None:
    """Path and model default to the name of the ModelDeployment."""
    plain = RouteDocument(name="a")
    named = RouteDocument(name="a", path="p", model="M")
    assert (plain.path_segment, plain.client_model) == ("a", "a")
    assert (named.path_segment, named.client_model) == ("p", "M")


def test_the_wire_is_in_camel_case() -> None:
    """Fields are written in camel case."""
    changes = Headers(set_from={"X": SecretKey(name="s", key="k")})
    document = RouteDocument(name="a", backends=(Backend(id="b", default=True, path_prefix="/p", headers=changes),))
    assert '"pathPrefix":"/p"' in document.canonical_json()
    assert '"setFrom":{"x":{"key":"k","name":"s"}}' in document.canonical_json()


def test_the_example_of_the_reference_page_is_a_document() -> None:
    """The example of the reference page is canonical, has its hash, and has no unknown field."""
    page = (ROOT / "docs/reference/route-document.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    document, unknown = read(example)
    assert unknown == 0
    assert json.loads(document.canonical_json()) == json.loads(example)


def test_every_field_is_documented() -> None:
    """Every field of the published schema, and so of the reference page, has a description."""
    silent = [
        f"{name}.{field}"
        for name, node in (("RouteDocument", SCHEMA), *SCHEMA["$defs"].items())
        for field, child in node.get("properties", {}).items()
        if not child.get("description")
    ]
    assert silent == []


def test_a_document_of_too_many_values_is_refused() -> None:
    """A document of more values than any has is refused before it is validated."""
    with pytest.raises(DocumentError, match="has more than 50000 values"):
        read(json.dumps({"name": "a", "backends": [{}] * 50_001}))
