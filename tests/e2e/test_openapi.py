"""The record of Kubernetes' kinds that the chart is judged by is what the API server publishes."""

import json
import os

import pytest

from tests.e2e.controlplane import ControlPlane
from tests.judge.openapi import RECORD, described


@pytest.mark.own_plane
def test_the_record_is_what_the_api_server_publishes(plane: ControlPlane) -> None:
    """The recorded types are those of the API server; E2E_RECORD=1 writes them."""
    types = described(lambda path: plane.kubectl("get", "--raw", f"/openapi/v3/{path}"))
    text = json.dumps(types, indent=1, sort_keys=True) + "\n"
    if os.environ.get("E2E_RECORD") == "1":
        RECORD.write_text(text)
    assert RECORD.read_text() == text
