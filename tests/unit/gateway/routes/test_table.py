"""Routing table: matches of hosts, paths and model names."""

import json
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import errors
from gateway.api.v1alpha1 import Backend, DocumentError, HealthCheck, RouteDocument, ServedModel, read
from gateway.routes.table import BareHostnames, Entry, Route, RoutingTable, check_path


def entry(namespace: str, name: str, *, created: str = "2026-01-01T00:00:00Z", services: tuple[str, ...] = ()) -> Entry:
    """Return an entry for a document without backends."""
    return Entry(namespace, f"{name}-route", created, RouteDocument(name=name, service_names=services))


def table(*entries: Entry, namespaces: frozenset[str] | None = None) -> RoutingTable:
    """Return the table of a gateway that serves `namespaces`, or all."""
    return RoutingTable.build(entries, namespaces=namespaces, cluster_domain="cluster.local")


@pytest.mark.parametrize("host", ["web.a", "web.a.svc", "web.a.svc.cluster.local"])
def test_full_spellings_of_a_service_lead_to_its_model(host: str) -> None:
    """Every spelling of a host with a namespace matches in a gateway of many namespaces."""
    route = table(entry("a", "demo", services=("web",))).match_host(host)

    assert route is not None
    assert route.key == "a/demo"


def test_routes_with_health_checks_are_known() -> None:
    """The table lists the routes that have health checks."""
    checked = Backend(id="local", service="x", health=HealthCheck(path="/"))
    entries = (entry("a", "demo"), Entry("a", "r", "", RouteDocument(name="checked", backends=(checked,))))
    assert [route.key for route in table(*entries).checked] == ["a/checked"]


def test_a_bare_host_counts_where_one_namespace_is_served() -> None:
    """A bare Service name matches in a gateway of one namespace."""
    route = table(entry("a", "demo"), namespaces=frozenset({"a"})).match_host("demo")

    assert route is not None


def test_a_bare_host_is_ambiguous_where_many_are_served() -> None:
    """A bare Service name in a gateway of many namespaces is an error that names the full spelling."""
    with pytest.raises(errors.AmbiguousHost, match=r"demo\.a\.svc\.cluster\.local"):
        table(entry("a", "demo")).match_host("demo")


@pytest.mark.parametrize(
    ("target", "rest"),
    [(b"/a/demo/v1/x?q=1", b"/v1/x?q=1"), (b"/a/demo", b"/"), (b"/a/demo?q", b"/?q")],
)
def test_a_path_loses_its_two_segments(target: bytes, rest: bytes) -> None:
    """The two segments that selected the route are removed from the target."""
    matched = table(entry("a", "demo")).match_path(target)

    assert matched is not None
    assert matched[1] == rest


@pytest.mark.parametrize("target", [b"/a/demos/v1", b"/a", b"/a/", b"/", b"/b/demo/v1"])
def test_a_path_matches_whole_segments(target: bytes) -> None:
    """A path matches by whole segments only."""
    assert table(entry("a", "demo")).match_path(target) is None


def test_a_bare_model_of_two_namespaces_is_a_conflict() -> None:
    """A bare model name of two namespaces is an error that names both full names, which match."""
    both = table(entry("a", "demo"), entry("b", "demo"))

    with pytest.raises(errors.AmbiguousModel, match="a/demo or b/demo"):
        both.match_model("demo")
    assert both.match_model("b/demo").namespace == "b"


def with_models(namespace: str, name: str, *models: str) -> Entry:
    """Return an entry for a document with further names."""
    document = RouteDocument(name=name, models=tuple(ServedModel(name=one) for one in models))
    return Entry(namespace, f"{name}-route", "", document)


def test_further_names_lead_to_their_model() -> None:
    """Each name of a document leads to its route, bare where it is unique and with the namespace always."""
    built = table(with_models("a", "demo", "lora", "x"), with_models("b", "other", "lora"), entry("a", "plain"))

    assert built.match_model("x").key == built.match_model("a/x").key == built.match_model("a/lora").key == "a/demo"
    assert built.match_model("b/lora").key == "b/other"
    with pytest.raises(errors.AmbiguousModel, match="a/lora or b/lora"):
        built.match_model("lora")
    listed = [(name, route.key) for name, route in built.models()]
    assert listed == [
        ("a/lora", "a/demo"), ("b/lora", "b/other"), ("demo", "a/demo"), ("other", "b/other"), ("plain", "a/plain"),
        ("x", "a/demo"),
    ]  # fmt: skip


def test_a_further_name_claims_nothing_of_another_namespace() -> None:
    """A further name with a slash leads to its route with the namespace in front only, and is listed so."""
    built = table(with_models("a", "demo", "b/llm"))

    with pytest.raises(errors.ModelNotFound):
        built.match_model("b/llm")
    assert built.match_model("a/b/llm").key == "a/demo"
    assert [name for name, _ in built.models()] == ["a/b/llm", "demo"]


_NAMESPACES = ("a", "b", "svc", "local")
_labels = st.sampled_from(["llm", "a", "b", "svc", "cluster", "local"])
_spellings = st.one_of(
    _labels,
    st.lists(_labels, min_size=1, max_size=5).map(".".join),
    st.lists(_labels, min_size=1, max_size=3).map("/".join),
    st.sampled_from(["10.96.0.7", "::1", "%2F", "b%2Fllm", "b//llm", "/b/llm", "LLM.B", "b/LLM", "[::1]", "llm.b."]),
    st.text(max_size=6),
)


def _hostile(namespace: str, created: str, fields: dict[str, object]) -> Entry | None:
    """Return the entry of a document with these fields; None where the reader refuses it."""
    try:
        document, _ = read(json.dumps(fields))
    except DocumentError:
        return None
    return Entry(namespace, "hostile-route", created, document)


def _matches(built: RoutingTable, service: str, model: str, namespace: str) -> dict[str, Route | None]:
    """Return the route of every name that a Service and a model have in a namespace."""
    full = f"{service}.{namespace}"
    found: dict[str, Route | None] = {
        spelling: built.match_host(spelling) for spelling in (full, f"{full}.svc", f"{full}.svc.cluster.local")
    }
    by_path = built.match_path(f"/{namespace}/{model}/v1".encode())
    found["path"] = None if by_path is None else by_path[0]
    try:
        found["model"] = built.match_model(f"{namespace}/{model}")
    except errors.ModelNotFound:
        found["model"] = None
    return found


@given(
    st.sampled_from(_NAMESPACES),
    st.sampled_from(_NAMESPACES),
    st.sampled_from(["namespace", "unique"]),
    st.sampled_from([None, frozenset(_NAMESPACES), frozenset({"a"})]),
    st.sampled_from(["", "2020-01-01T00:00:00Z", "2030-01-01T00:00:00Z"]),
    st.booleans(),
    st.fixed_dictionaries(
        {"name": _spellings},
        optional={
            "serviceNames": st.lists(_spellings, max_size=2),
            "clusterIps": st.lists(_spellings, max_size=2),
            "path": _spellings,
            "model": _spellings,
            "models": st.lists(_spellings.map(lambda name: {"name": name}), max_size=2),
        },
    ),
    _labels,
)
@example("a", "b", "namespace", None, "", False, {"name": "x", "model": "b/llm"}, "llm")
@example("a", "b", "unique", None, "", False, {"name": "x", "clusterIps": ["llm.b"]}, "llm")
@example("a", "b", "unique", None, "", False, {"name": "llm.b"}, "llm")
@example("svc", "b", "namespace", None, "", False, {"name": "llm.b"}, "llm")
@example("local", "b", "namespace", None, "", True, {"name": "llm.b.svc.cluster"}, "llm")
def test_nothing_in_a_document_claims_a_name_of_another_namespace(
    of: str,
    other: str,
    bare: BareHostnames,
    namespaces: frozenset[str] | None,
    created: str,
    served: bool,
    fields: dict[str, object],
    name: str,
) -> None:
    """Whatever a document says, it gets no request for a host, path or model that names another namespace, whether or
    not that namespace has such a model, and takes none from it."""
    hostile = _hostile(of, created, fields)
    if hostile is None or of == other:
        return
    victim = [entry(other, name)] if served else []

    def build(*entries: Entry) -> RoutingTable:
        return RoutingTable.build(entries, namespaces=namespaces, cluster_domain="cluster.local", bare_hostnames=bare)

    assert _matches(build(hostile, *victim), name, name, other) == _matches(build(*victim), name, name, other)


def test_a_name_with_a_slash_needs_its_namespace_in_front() -> None:
    """A model whose own name has a slash is found with the namespace in front only, and is listed so."""
    built = table(Entry("a", "r", "", RouteDocument(name="demo", model="b/llm")))

    with pytest.raises(errors.ModelNotFound):
        built.match_model("b/llm")
    assert built.match_model("a/b/llm").key == "a/demo"
    assert [name for name, _ in built.models()] == ["a/b/llm"]


def test_the_older_document_keeps_a_further_name() -> None:
    """Of two documents of one namespace the older one keeps a name, whether its own or a further one."""
    old = Entry("a", "r", "2025-01-01T00:00:00Z", RouteDocument(name="old", models=(ServedModel(name="young"),)))
    built = table(old, entry("a", "young"))

    assert built.match_model("young").key == "a/old"
    assert [(one.winner, one.loser) for one in built.conflicts] == [("a/old", "a/young")]


@given(st.permutations([0, 1, 2]))
def test_k_05_the_older_document_keeps_a_name_in_any_order(order: list[int]) -> None:
    """The oldest document gets a name, in whatever order the documents come."""
    entries = [
        entry("a", "young", created="2026-03-01T00:00:00Z", services=("web",)),
        entry("a", "old", created="2026-01-01T00:00:00Z", services=("web",)),
        entry("a", "middle", created="2026-02-01T00:00:00Z", services=("web",)),
    ]

    built = table(*(entries[index] for index in order))

    assert built.hosts["web.a"].name == "old"
    assert {conflict.loser for conflict in built.conflicts} == {"a/young", "a/middle"}


# fmt: off
REFUSED = (
    b"/a/../b", b"/%2e%2E/b", b"/a/.%2e", b"/.;x/b", b"/..%3bx/b", b"/%2e%2e%3B/b", b"/a%2fb", b"/a%2Fb",
    b"/a%5cb", b"/a%5Cb", b"/a\\b", b"/a%00", b"/a%0d%0ab", b"/a%1Fb", b"/a%7f", b"/a\x7f",
    # An encoded slash is data in the id of a model, and nothing else is.
    b"/v1/models/a%2F..%2Fb", b"/v1/models/%2e%2e%2Fb", b"/v1/models/..%2f", b"/v1/models/a%2F.%3bx%2Fb",
    b"/v1/models/a%5cb", b"/v1/models/a%2F%0a", b"/v1/models/..", b"/v1%2Fmodels/a", b"/v1/models%2fa",
    b"/v1/models/a%2Fb/c", b"/v1/models/a%2Fb/", b"/a%2Fb/models/c", b"/xmodels/a%2Fb", b"/v1/files/a%2Fb",
    b"/v1/engines/a%2F..%2Fb/x", b"/v1/engines/a%5Cb/x", b"/v1/engines/a/b%2Fc", b"/xengines/a%2Fb", b"/engines%2Fa/b",
    b"/openai/deployments/..%2fx/y", b"/deployments/a%2Fb/x", b"/openai/deployments/a/x%2Fy",
    b"/openai/deployments/%2F.",
    b"/model/a%2F..%2Fb/invoke", b"/model/a%2Fb", b"/model/a%2Fb/other", b"/model/a%2Fb/c/invoke", b"/model/a%2Finvoke",
    b"/model/a/invoke/b%2Fc", b"/model/a%2Fb/invoke/x", b"/model%2Fa/invoke", b"/xmodel/a%2Fb/invoke",
    b"/model/a%5Cb/invoke",
)
"""Targets whose paths a backend may read in another way than the gateway."""

ACCEPTED = (
    b"/v1/models/default%2Fdemo", b"/v1/models/a%2fb%2Fc", b"/v1/models/%2Fdata%2Fllama.gguf", b"/models/a%2Fb?x=%2F",
    b"/v1beta/models/a%2Fb", b"/v1/models/a%2F.hidden", b"/v1/models/a%20b", b"/v1/models/a%2F..b",
    b"/v1/engines/default%2Fdemo/completions", b"/engines/a%2fb", b"/openai/deployments/default%2Fdemo/x",
    b"/x/openai/deployments/a%2Fb%2Fc?x=%2F",
    b"/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.a-v1%3A0/invoke", b"/x/model/a%2fb/converse",
    b"/model/a%2Fb/converse-stream", b"/model/a%2Fb/invoke-with-response-stream?x=%2F",
    # What is encoded twice is data that nobody may decode twice.
    b"/a%252Fb", b"/%252e%252e/b", b"/a%255cb", b"/v1/models/a%252F..b", b"/a%2525", b"/a%3Fb",
    b"/a/b?c=../%2e%2e/%5c", "/größe".encode(), b"/gr%C3%B6%C3%9Fe", b"/a%", b"/a%2", b"/a%zz", b"/...", b"/a..b/.c",
)
# fmt: on


@pytest.mark.parametrize("target", REFUSED)
def test_paths_that_a_backend_may_read_differently_are_refused(target: bytes) -> None:
    """A path that a backend may interpret differently is refused."""
    with pytest.raises(errors.MalformedRequest):
        check_path(target)


@pytest.mark.parametrize("target", ACCEPTED)
def test_paths_with_one_meaning_pass(target: bytes) -> None:
    """A path that everybody reads in one way passes, whatever is encoded in it."""
    check_path(target)


@given(
    st.sampled_from([b"/v1/models/", b"/v1/engines/", b"/openai/deployments/", b"/model/"]),
    st.lists(st.sampled_from([b".", b"%2e", b"%2E", b"/", b"%2f", b"%2F", b";", b"%3b", b"a", b"models", b"%25"])),
    st.sampled_from([b"", b"/invoke"]),
)
def test_a_path_that_passes_has_no_dot_segment_however_it_is_decoded(
    place: bytes, parts: list[bytes], end: bytes
) -> None:
    """A path that passes has no dot segment once it is decoded, with encoded slashes as separators or as data."""
    path = place + b"".join(parts) + end
    try:
        check_path(path)
    except errors.MalformedRequest:
        return
    for segments in (unquote_to_bytes(path).split(b"/"), [unquote_to_bytes(one) for one in path.split(b"/")]):
        assert not {one.partition(b";")[0] for one in segments} & {b".", b".."}
