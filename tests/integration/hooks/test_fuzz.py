"""Requests that the OpenAPI document of hooks allows, made by schemathesis, and real requests changed in a few places.

`FUZZ_CASES=10000` sends that many in all; without it a few hundred are sent. Every response has the schema that hooks
publish, is no error of hooks, and has no fewer children than were desired before.
"""

import asyncio
import copy
import os
from collections import Counter
from datetime import timedelta
from typing import Any, Final

import httpx
import jsonschema
import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hooks.app import create_app
from hooks.settings import Settings
from hooks.telemetry import Metrics
from tests.builders import NOW, Json, model_deployment, observed, policy, request_body, workload

pytestmark = pytest.mark.long

CASES: Final = int(os.environ.get("FUZZ_CASES", "360"))
"""Number of requests in all tests of this module together."""
SYNC: Final = "/modeldeployments/sync"
PATHS: Final = (
    SYNC,
    "/modeldeployments/finalize",
    "/modeldeployments/customize",
    "/policies/sync",
    "/policies/finalize",
)
REFUSED: Final = frozenset({400, 422})
"""Statuses for a body that is no webhook request, or is about another kind."""
_APP: Final = create_app(Settings.model_validate({"namespaces": ""}), Metrics(), clock=lambda: NOW)
_DOCUMENT: Final[Json] = _APP.openapi()
_SCHEMA: Final = schemathesis.openapi.from_dict(copy.deepcopy(_DOCUMENT))
_fuzzed = settings(
    max_examples=-(-CASES // (len(PATHS) + 1)),
    deadline=timedelta(seconds=10),
    database=None,
    derandomize="FUZZ_SEED" not in os.environ,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


def operation(path: str) -> Any:
    """Return the operation of a webhook in the OpenAPI document."""
    return _SCHEMA[path]["POST"]


def ask(path: str, body: object) -> tuple[int, Json]:
    """Return the status and the decoded body of a response."""

    async def post() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(_APP, raise_app_exceptions=False), base_url="http://hooks"
        ) as client:
            return await client.post(path, content=orjson.dumps(body), headers={"content-type": "application/json"})

    response = _LOOP.run(post())
    content: Json = response.json()
    return response.status_code, content


_LOOP: Final = asyncio.Runner()


def check(path: str, body: object) -> Json | None:
    """Check what holds for every response, and return it; None when the request was refused."""
    try:
        status, response = ask(path, body)
    except orjson.JSONEncodeError:  # Lone surrogates and the like are no JSON that a client could send.
        return None
    if status in REFUSED:
        return None
    if status == 500 and _has_children(body):
        # This is meant: what was applied last cannot be read from a child, so nothing may change.
        assert "last-applied" in response["error"], response
        return None
    assert status == 200, response
    published = _DOCUMENT["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(response, published)
    return response


def _has_children(body: object) -> bool:
    return isinstance(body, dict) and bool(body.get("children")) and any(body["children"].values())


def child_key(item: Json) -> tuple[str, str]:
    """Return kind and name of a child."""
    return item["kind"], item["metadata"]["name"]


def accepted(response: Json | None) -> str:
    """Return how far a request came, to count such requests."""
    if response is None:
        return "refused"
    statuses = {one["type"]: one["status"] for one in response.get("status", {}).get("conditions", ())}
    return f"Accepted={statuses['Accepted']}" if "Accepted" in statuses else "responded"


@pytest.mark.parametrize("path", PATHS)
def test_requests_that_the_document_allows(path: str, record_property: Any) -> None:
    """Every request that the document allows gets a response with the published schema."""
    depth: Counter[str] = Counter()

    @_fuzzed
    @given(case=operation(path).as_strategy())
    def run(case: Any) -> None:
        depth[accepted(check(path, case.body))] += 1

    run()
    print(path, dict(depth))
    record_property("depth", dict(depth))
    assert depth.total() > depth["refused"], "no case was a request"


FIELDS: Final = sorted(
    _DOCUMENT["paths"][SYNC]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]["parent"][
        "properties"
    ]["spec"]["properties"]
)
JUNK: Final = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 1 << 40), st.text(max_size=8), st.just([]), st.just({}),
    st.just("127.0.0.1"), st.just("\u0000"), st.floats(allow_nan=False, allow_infinity=False),
)  # fmt: skip


def paths(item: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value below an object."""
    inner = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    return [path for key, value in inner for path in ((*before, key), *paths(value, (*before, key)))]


def put(item: Any, path: tuple[Any, ...], value: Any, *, remove: bool) -> None:
    """Replace or remove the value at a path."""
    for key in path[:-1]:
        item = item[key]
    if remove:
        del item[path[-1]]
    else:
        item[path[-1]] = value


def bases() -> list[Json]:
    """Return requests as Metacontroller sends them, with observed children."""
    template = {"spec": {"containers": [{"name": "a", "image": "a:1", "resources": {"limits": {"cpu": "1"}}}]}}
    metric = {"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": 1}}}
    backend = {"host": "models.example.com", "scheme": "https"}
    parents = [
        model_deployment(),
        model_deployment(offloadingConfig=None),
        model_deployment(modelSourceRef=None, server={"replicas": 1, "port": 8000, "template": template}),
        model_deployment(gateway={"serviceName": "ask-demo"}, offloadingConfig={"remoteBackend": backend,
                         "metrics": [metric], "behavior": {"percentage": 40}}),
        model_deployment(policies=[{"refType": "localPolicy", "name": "eu"}]),
    ]  # fmt: skip
    found = []
    for parent in parents:
        related = [workload(), policy("eu")]
        first = ask(SYNC, request_body(parent, related=related))[1]
        children = [observed(one) for one in first["children"]]
        status = ask(SYNC, request_body(parent, children=children, related=related))[1]["status"]
        found.append(request_body(parent | {"status": status}, children=children, related=related))
    return found


_BASES: Final = bases()


@st.composite
def mutated(draw: st.DrawFn) -> tuple[Json, bool]:
    """Draw a real request with a few values replaced or removed, and whether its children were left unchanged.

    Some fields of its specification may come from the schema.
    """
    body = copy.deepcopy(draw(st.sampled_from(_BASES)))
    case = draw(st.one_of(st.none(), operation(SYNC).as_strategy()))
    generated = case.body["parent"]["spec"] if case is not None and isinstance(case.body, dict) else {}
    for name in draw(st.lists(st.sampled_from(FIELDS), max_size=3, unique=True)):
        if name in generated:
            body["parent"]["spec"][name] = generated[name]
    whole = True
    for _ in range(draw(st.integers(0, 3))):
        top = draw(st.sampled_from(["parent", "parent", "related", "children"]))
        places = paths(body[top])
        if top == "parent":
            places = [one for one in places if one[0] in ("spec", "status") or one[:2] == ("metadata", "labels")]
        if not places:
            continue
        whole = whole and top != "children"
        put(body[top], draw(st.sampled_from(places)), draw(JUNK), remove=draw(st.booleans()))
    return body, whole


def test_changed_real_requests(record_property: Any) -> None:
    """A changed request never makes hooks fail or drop a child.

    A specification that is not accepted keeps all its children, and one that is accepted gets no fewer than it would
    get without any observed child.
    """
    depth: Counter[str] = Counter()

    @_fuzzed
    @given(mutated())
    def run(case: tuple[Json, bool]) -> None:
        body, whole = case
        response = check(SYNC, body)
        depth[accepted(response)] += 1
        if response is None or not whole:
            return
        desired = {child_key(one) for one in response["children"]}
        if accepted(response) == "Accepted=True":
            fresh = check(SYNC, body | {"children": {}})
            assert fresh is not None
            assert desired >= {child_key(one) for one in fresh["children"]}
        else:
            there = {child_key(one) for group in body["children"].values() for one in group.values()}
            assert desired >= there

    run()
    print("changed", dict(depth))
    record_property("depth", dict(depth))
    assert depth["Accepted=True"] > depth.total() * 0.3, depth
