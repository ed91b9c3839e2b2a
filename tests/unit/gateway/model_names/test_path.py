"""Names in paths: found where APIs have them, and replaced."""

from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.model_names import path

NAMES = frozenset({"demo", "lora-a", "org/lora", "gemma:2b", "grüße %", "default/demo", "default/org/lora"})

PLACES = [
    "/v1/models/%s",
    "/v1/models/%s/",
    "/v1/models/%s?a=/v1/models/x",
    "/openai/v1/models/%s",
    "/v1//models//%s",
    "/v1/%%6dodels/%s",
    "/V1/Models/%s",
    "/v1/models;a=b/%s",
    "/v1/engines/%s/completions",
    "/v1beta/models/%s:generateContent",
    "/v1alpha/models/%s:streamGenerateContent?alt=sse",
    "/v2/models/%s/versions/1/infer",
    "/v1/models/%s:predict",
    "/openai/deployments/%s/chat/completions?api-version=1",
    "/v1/projects/p/locations/l/publishers/google/models/%s:generateContent",
    "/model/%s/invoke",
    "/x/Model/%s/converse-stream",
]


@pytest.mark.parametrize("name", sorted(NAMES))
@pytest.mark.parametrize("safe", ["", "/:"])
@pytest.mark.parametrize("place", PLACES)
def test_a_name_in_a_path_is_found_and_replaced(place: str, safe: str, name: str) -> None:
    """A name is found in each place, encoded or not, and nothing but the name changes where it is replaced."""
    target = (place % quote(name, safe=safe)).encode()
    found = path.in_target(target, NAMES)
    assert found is not None
    assert found.name == name
    expected = place % quote("a/b c", safe="/" if "/" in quote(name, safe=safe) else "")
    assert path.renamed(target, found, "a/b c") == expected.encode()


@pytest.mark.parametrize(
    ("prefix", "target", "name"),
    [
        (b"/v1", b"/models/demo", "demo"),
        (b"/openai/v1/", b"/models/other", "other"),
        (b"/openai", b"/deployments/demo/chat/completions?a=/v1/models/x", "demo"),
        (b"/v1/models", b"/demo:predict", "demo"),
        (b"/v1/publishers", b"/google/models/other", "other"),
        (b"/a/model", b"/demo/invoke", "demo"),
        (b"/prefix", b"/v1/models/demo", "demo"),
        (b"/openai/deployments/demo", b"/chat/completions", None),
        (b"/openai/deployments/demo", b"/v1/models/other", "other"),
        (b"/v1/models/demo", b"/versions/1/infer", None),
        (b"/v1/models", b"", None),
        (b"/v1", b"*", None),
        (b"/x1", b"/models/demo", None),
        (b"/model", b"/demo/other", None),
    ],
)
def test_a_place_may_begin_in_the_prefix_of_a_backend(prefix: bytes, target: bytes, name: str | None) -> None:
    """A name is found behind what a backend has in front of every target, and none is found in that itself."""
    found = path.in_target(target, NAMES, prefix)
    assert (None if found is None else found.name) == name
    if found is not None:
        assert path.renamed(target, found, "b") == target.replace(found.name.encode(), b"b", 1)


@pytest.mark.parametrize("name", ["other", "Demo", "demo2", "org", "demo;a=b", "demo%2F..", "%FF", "x:demo", "demo%00"])
@pytest.mark.parametrize("place", PLACES)
def test_another_name_is_found_as_such(place: str, name: str) -> None:
    """Whatever else stands in the place of a name is found as a name that is none of those known."""
    target = (place % name).encode()
    found = path.in_target(target, NAMES)
    assert found is not None
    assert found.name not in NAMES
    assert target[found.start :].startswith(name.encode())


@pytest.mark.parametrize("name", ["..", ".", "../admin", "a/../../b", "a/.", "../.."])
@pytest.mark.parametrize("target", [b"/v1/models/demo", b"/v1/models/org/lora"])
def test_a_name_with_dot_segments_is_not_written(target: bytes, name: str) -> None:
    """A backend's name for the model leads out of no path."""
    found = path.in_target(target, NAMES)
    assert found is not None
    with pytest.raises(errors.ModelNotFound):
        path.renamed(target, found, name)


@pytest.mark.parametrize(
    "target",
    [
        *(b"/", b"*", b"/v1/models", b"/v1/models/", b"/v1/models?model=other", b"/v1/engines", b"/models/load"),
        *(b"/v1/chat/completions", b"/api/models/x", b"/apis/apps/v1/deployments/x", b"/v1/x?a=/v1/models/other"),
        *(b"/v1/fine_tuning/models/x", b"/openai/deployments", b"/v1/mymodels/x", b"/%41"),
    ],
)
def test_other_paths_have_no_name(target: bytes) -> None:
    """A path without a place for a name is not looked at."""
    assert path.in_target(target, NAMES) is None


@given(st.text(min_size=1, max_size=8).filter(lambda name: name.strip("/") == name and "//" not in name), st.booleans())
def test_every_name_is_found_however_it_is_encoded(name: str, every: bool) -> None:
    """A name of whatever characters is found, encoded as far as it must be or in every byte."""
    written = "".join(f"%{byte:02X}" for byte in name.encode()) if every else quote(name, safe="")
    target = f"/v1/models/{written}".encode()
    found = path.in_target(target, {name})
    assert found is not None
    assert found.name == name
    assert target[found.start : found.end] == written.encode()
    assert unquote(path.renamed(target, found, name).decode()) == f"/v1/models/{name}"


def test_long_paths_are_looked_through_in_linear_time() -> None:
    """A path of many segments is no work."""
    target = b"/v1/models" + b"/x:y" * 16_000
    found = path.in_target(target, NAMES)
    assert found is not None
    assert found.name == "x:y"


@pytest.mark.parametrize("target", sorted(path.PLACELESS))
def test_usual_targets_have_no_place(target: bytes) -> None:
    """The targets that are not searched have no place for a name, whatever the names are."""
    assert path.in_target(target, {*NAMES, *target.decode().split("/")}) is None
