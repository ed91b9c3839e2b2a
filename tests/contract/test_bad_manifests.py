"""Specifications that cannot be used: the message about each says what to write instead."""

import re
from typing import Any, Final

import pytest
import yaml

from hooks.protocol import POLICY_KIND, SyncRequest
from hooks.reconcile import policy
from tests import builders
from tools.repository import ROOT

TABLE: Final[dict[str, list[builders.Json]]] = yaml.safe_load(
    (ROOT / "tests/contract/bad_manifests.yaml").read_text(encoding="utf-8")
)
FOREIGN: Final = re.compile(
    r"should|valid |input|dictionar|tuple|instance|timezone|fraction|regular|pattern|\^|\\", re.IGNORECASE
)
"""Words of libraries, and signs of regular expressions."""


def rows(kind: str) -> pytest.MarkDecorator:
    """Parametrize a test with the rows about a kind."""
    return pytest.mark.parametrize("row", TABLE[kind], ids=[row["message"] for row in TABLE[kind]])


def accepted(status: Any) -> builders.Json:
    """Return reason and message of the condition Accepted, which must be False."""
    (condition,) = [one for one in status["conditions"] if one["type"] == "Accepted"]
    assert condition["status"] == "False"
    return {"reason": condition["reason"], "message": condition["message"]}


@rows("ModelDeployment")
def test_a_bad_model_deployment(row: builders.Json) -> None:
    """A ModelDeployment that cannot be used is not accepted, and the message says what to write instead."""
    response = builders.sync(builders.model_deployment(**row["spec"]))
    assert {"spec": row["spec"], **accepted(response.status)} == row


@rows("Policy")
def test_a_bad_policy(row: builders.Json) -> None:
    """A Policy that cannot be used is not accepted, and the message says what to write instead."""
    request = SyncRequest.from_json({"parent": {**builders.policy(), "spec": row["spec"]}}, POLICY_KIND)
    decision = policy.decide_sync(request, builders.DEFAULTS, account=None, now=builders.NOW)
    response = decision.response(decision.registration)
    assert {"spec": row["spec"], **accepted(response.status)} == row


def test_every_message_is_a_sentence_for_people() -> None:
    """No message has a word of a library or a sign of a regular expression, and each ends with a full stop."""
    for row in (*TABLE["ModelDeployment"], *TABLE["Policy"]):
        assert not FOREIGN.search(row["message"]), row
        assert row["message"].endswith(".")
