"""Quantities: they are read and stored as a real API server did it."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from hooks.kube.quantities import InvalidQuantity, canonical, canonical_resource
from metacontroller.local.apiserver import builtin
from metacontroller.local.apiserver.objects import BUILT_IN
from tests.contract.quantities import FILE, WRITTEN

STORED: dict[str, dict[str, str | None]] = json.loads(FILE.read_text(encoding="utf-8"))


def test_every_spelling_was_recorded() -> None:
    """The record has each of the spellings, and no others."""
    assert list(STORED) == list(WRITTEN)


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize(("place", "function"), [("field", canonical), ("resource", canonical_resource)])
def test_hooks_store_what_the_api_server_stores(place: str, function: Callable[[str], str], written: str) -> None:
    """The canonical form of a quantity is the text that the API server stores, and what it refuses is invalid."""
    stored = STORED[written][place]
    if stored is None:
        with pytest.raises(InvalidQuantity):
            function(written)
    else:
        assert function(written) == stored


@pytest.mark.parametrize("written", [written for written in WRITTEN if STORED[written]["field"] is not None])
def test_the_stand_in_stores_what_the_api_server_stores(written: str) -> None:
    """The stand-in stores a container's limit and the size of a volume as the API server stores them."""
    (kind,) = (kind for kind in BUILT_IN if kind.name == "Deployment")
    container: dict[str, Any] = {"name": "a", "image": "b", "resources": {"limits": {"memory": written}}}
    item = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}}
    volumes = [{"name": "v", "emptyDir": {"sizeLimit": written}}]
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container], "volumes": volumes}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    stored = builtin.stored(kind, {**item, "spec": spec})["spec"]["template"]["spec"]
    assert stored["containers"][0]["resources"]["limits"] == {"memory": STORED[written]["resource"]}
    assert stored["volumes"][0]["emptyDir"] == {"sizeLimit": STORED[written]["field"]}
