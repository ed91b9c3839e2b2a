"""Hooks asked what their OpenAPI document allows, by schemathesis, and real requests that were changed in a few places.

`FUZZ_CASES=10000` asks that many in all; without it a few hundred. Whatever they are asked, hooks answer with the
schema that they publish, never with an error of their own, and never with fewer children than they wanted before.
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

CASES: Final = int(os.environ.get("FUZZ_CASES", "360"))
"""In all tests of this module together."""
SYNC: Final = "/modeldeployments/sync"
PATHS: Final = (
    SYNC,
    "/modeldeployments/finalize",
    "/modeldeployments/customize",
    "/policies/sync",
    "/policies/finalize",
)
REFUSED: Final = frozenset({400, 422})
"""What hooks say of a body that is no request of Metacontroller, or of another kind."""
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
    """What the document says of a hook."""
    return _SCHEMA[path]["POST"]


def ask(path: str, body: object) -> tuple[int, Json]:
    """Status and answer of a hook."""

    async def asked() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(_APP, raise_app_exceptions=False), base_url="http://hooks"
        ) as client:
            return await client.post(path, content=orjson.dumps(body), headers={"content-type": "application/json"})

    response = _LOOP.run(asked())
    content: Json = response.json()
    return response.status_code, content


_LOOP: Final = asyncio.Runner()


def check(path: str, body: object) -> Json | None:
    """What holds of every answer; the answer when it is one."""
    try:
        status, answer = ask(path, body)
    except orjson.JSONEncodeError:  # lone surrogates and the like are no JSON that anybody could send
        return None
    if status in REFUSED:
        return None
    if status == 500 and _has_children(body):
        # Meant: what was decided last cannot be read from a child, so nothing may change.
        assert "last-applied" in answer["error"], answer
        return None
    assert status == 200, answer
    published = _DOCUMENT["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(answer, published)
    return answer


def _has_children(body: object) -> bool:
    return isinstance(body, dict) and bool(body.get("children")) and any(body["children"].values())


def child_key(item: Json) -> tuple[str, str]:
    """What a child is called."""
    return item["kind"], item["metadata"]["name"]


def accepted(answer: Json | None) -> str:
    """How deep a case came."""
    if answer is None:
        return "refused"
    said = {one["type"]: one["status"] for one in answer.get("status", {}).get("conditions", ())}
    return f"Accepted={said['Accepted']}" if "Accepted" in said else "answered"


@pytest.mark.parametrize("path", PATHS)
def test_what_the_document_allows_is_answered(path: str, record_property: Any) -> None:
    """No error of hooks, no answer outside of the schema, for whatever the document allows."""
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
    """Every place below an object."""
    inner = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    return [path for key, value in inner for path in ((*before, key), *paths(value, (*before, key)))]


def put(item: Any, path: tuple[Any, ...], value: Any, *, remove: bool) -> None:
    """Replace a place, or remove it."""
    for key in path[:-1]:
        item = item[key]
    if remove:
        del item[path[-1]]
    else:
        item[path[-1]] = value


def bases() -> list[Json]:
    """Requests as Metacontroller sends them, with the children that are there."""
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
    """A real request with some fields of its specification from the schema, and some places replaced or removed; and
    whether its children were left alone.
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


def test_a_real_request_that_was_changed(record_property: Any) -> None:
    """Neither junk in it nor another specification makes hooks fail, or forget a child: what is not accepted keeps all
    that it has, and what is accepted gets no less than it would get if nothing were there yet.
    """
    depth: Counter[str] = Counter()

    @_fuzzed
    @given(mutated())
    def run(case: tuple[Json, bool]) -> None:
        body, whole = case
        answer = check(SYNC, body)
        depth[accepted(answer)] += 1
        if answer is None or not whole:
            return
        wanted = {child_key(one) for one in answer["children"]}
        if accepted(answer) == "Accepted=True":
            fresh = check(SYNC, body | {"children": {}})
            assert fresh is not None
            assert wanted >= {child_key(one) for one in fresh["children"]}
        else:
            there = {child_key(one) for group in body["children"].values() for one in group.values()}
            assert wanted >= there

    run()
    print("changed", dict(depth))
    record_property("depth", dict(depth))
    assert depth["Accepted=True"] > depth.total() * 0.3, depth
