"""Objects in stored form."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks.kube.stored import canonical, canonical_json


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ({"volumes": [{"name": "v", "emptyDir": {}}]}, {"volumes": [{"name": "v", "emptyDir": {}}]}),
        ({"resources": {}}, {"resources": {}}),
        ({"securityContext": {}}, {"securityContext": {}}),
        ({"resources": {"limits": {}, "requests": {}}}, {"resources": {}}),
        ({"resources": {"limits": {"cpu": 1}}}, {"resources": {"limits": {"cpu": "1"}}}),
        ({"resources": {"limits": {"memory": "1024Mi"}}}, {"resources": {"limits": {"memory": "1Gi"}}}),
        ({"resources": {"limits": {"cpu": None}}}, {"resources": {}}),
        ({"resources": {"limits": {"cpu": "fast"}}}, {"resources": {"limits": {"cpu": "fast"}}}),
        ({"resources": {"limits": {"cpu": {"a": 1}}}}, {"resources": {"limits": {"cpu": {"a": 1}}}}),
        ({"emptyDir": {"sizeLimit": "1024Ki"}}, {"emptyDir": {"sizeLimit": "1Mi"}}),
        ({"resourceFieldRef": {"divisor": 0}}, {"resourceFieldRef": {"divisor": "0"}}),
        ({"metadata": {"labels": {}, "annotations": {}}}, {"metadata": {}}),
        ({"metadata": {"labels": {"a": None}}}, {"metadata": {}}),
        ({"nodeSelector": {}}, {}),
        ({"tolerations": [], "args": None}, {}),
        ({"args": [None]}, {}),
        ({"args": ["a", None, "b"]}, {"args": ["a", "b"]}),
        ({"env": [{"name": "A", "value": ""}]}, {"env": [{"name": "A"}]}),
        ({"hostNetwork": False, "tty": False}, {}),
        ({"hostNetwork": True}, {"hostNetwork": True}),
        ({"storageClassName": ""}, {"storageClassName": ""}),
        ({"httpHeaders": [{"name": "A", "value": ""}]}, {"httpHeaders": [{"name": "A", "value": ""}]}),
        (
            {"metadata": {"annotations": {"value": "", "tty": ""}}},
            {"metadata": {"annotations": {"value": "", "tty": ""}}},
        ),
        ({"metadata": {"labels": {"labels": "limits"}}}, {"metadata": {"labels": {"labels": "limits"}}}),
        ({"terminationGracePeriodSeconds": 0}, {"terminationGracePeriodSeconds": 0}),
        ({"enableServiceLinks": False}, {"enableServiceLinks": False}),
    ],
)
def test_stored_form(written: dict[str, Any], stored: dict[str, Any]) -> None:
    """The stored form drops and rewrites exactly what the API server drops and rewrites."""
    assert canonical(written) == stored


def test_the_argument_is_not_changed() -> None:
    """Making the stored form does not change the original object."""
    written = {"metadata": {"labels": {"a": None}}, "args": [None], "resources": {"limits": {"cpu": 1}}}
    before = copy.deepcopy(written)
    canonical(written)
    assert written == before


keys = st.sampled_from(["labels", "limits", "emptyDir", "env", "value", "tty", "args", "csi", "name", "sizeLimit"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3000) | st.sampled_from(["", "1000m", "1024Mi", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(keys, values, max_size=4))
def test_the_stored_form_is_its_own_stored_form(written: dict[str, Any]) -> None:
    """The stored form of a stored form is the same, so that a second sync writes nothing."""
    assert canonical(canonical(written)) == canonical(written)


def test_json_has_sorted_keys_and_no_white_space() -> None:
    """Canonical JSON has sorted keys and no white space, so that equal values give equal bytes."""
    assert canonical_json({"b": [1, 2], "a": {"d": "ü", "c": None}}) == '{"a":{"c":null,"d":"ü"},"b":[1,2]}'.encode()
