"""SECURITY.md gives the limits that the code has."""

import inspect
from typing import Any, Final

import pytest
import yaml

from gateway import health
from gateway.access import claims, issuer, issuer_client, remembered, signing_keys, tokens
from gateway.downstream.budget import WAIT_SECONDS
from gateway.routes import store
from gateway.routes.sources import directory
from gateway.settings import Settings as GatewaySettings
from gateway.upstream.resolver import Resolver
from hooks import middlewares
from hooks.reconcile import validation
from hooks.settings import Settings as HooksSettings
from program import bounded_yaml, problems
from tools.repository import ROOT

TEXT: Final = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
GATEWAY: Final = GatewaySettings().gateway
LIMITS, TIMEOUTS, RETRY = GATEWAY.limits, GATEWAY.timeouts, GATEWAY.retry
HOOKS: Final = HooksSettings().hooks
LOOK_UPS: Final = {name: one.default for name, one in inspect.signature(Resolver).parameters.items()}

ROWS: Final[dict[str, str]] = {
    "head of a request": f"{LIMITS.head_bytes:,} bytes, {LIMITS.fields} fields, a URL of {LIMITS.url_bytes:,} bytes,"
    f" within {TIMEOUTS.head_seconds:g} s",
    "body of a request": f"{LIMITS.body_bytes:,} bytes, {TIMEOUTS.body_seconds:g} s between two reads,"
    f" {LIMITS.body_bytes_per_second} bytes per second after that",
    "memory for bodies that are held and responses that wait": f"{LIMITS.memory_bytes:,} bytes, half of it for one"
    " route or for one client whose route is not known, three quarters for one namespace;"
    f" {WAIT_SECONDS:g} s of waiting for room",
    "requests of one route at the same time": "half of the clients' connections; all of one namespace: three quarters",
    "body that is held to be sent again": f"{LIMITS.replay_bytes:,} bytes",
    "clients' connections": f"{LIMITS.connections:,}",
    "a client that does not read": f"{TIMEOUTS.write_stall_seconds:g} s",
    "attempts that are repeated elsewhere": f"{RETRY.budget_percentage} % of a route's requests, or"
    f" {RETRY.budget_per_second} a second",
    "token of a caller": f"{tokens.MOST_BYTES:,} bytes, {claims.MOST_GROUPS} groups, a name of {claims.LONGEST_NAME}"
    f" characters; {remembered.MOST_TOKENS:,} tokens are remembered",
    "keys of an issuer": f"{issuer_client.RESPONSE_BYTES:,} bytes, {signing_keys.MOST_KEYS} keys,"
    f" {issuer_client.TIMEOUT_SECONDS:g} s; loaded every {issuer.PAUSE_SECONDS:g} s at most",
    "look-ups of names": f"{LOOK_UPS['per_route']} at a time for a route, {LOOK_UPS['per_tenant']} for a namespace,",
    "health checks": f"{health.AT_ONCE} at a time for a route, each at most as long as its interval",
    "file of routes": f"{directory.MAX_FILE_BYTES:,} bytes and {bounded_yaml.MAX_VALUES:,} values, nested"
    f" {bounded_yaml.MAX_DEPTH} levels deep",
    "route document": f"{store.DOCUMENT_BYTES:,} bytes, {problems.MOST_VALUES:,} values",
    "request to hooks": f"{HOOKS.body_bytes:,} bytes, all in flight together as well, within"
    f" {middlewares.BODY_SECONDS:g} s; {HOOKS.in_flight} in flight",
    "manifest of a ModelDeployment or Policy": f"{problems.MOST_VALUES:,} values",
    "child that hooks make": f"{validation.MAX_CHILD_BYTES:,} bytes",
}


def rows() -> dict[str, str]:
    """Return the limits in the table, by what they are of."""
    lines = TEXT.partition("## Limits\n")[2].partition("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {row[0]: row[1] for row in cells[2:]}


@pytest.mark.parametrize("name", ROWS)
def test_a_limit_is_that_of_the_code(name: str) -> None:
    """A limit in the table is the default that the code has."""
    assert rows()[name].startswith(ROWS[name])


def test_every_limit_is_checked() -> None:
    """The table has no limit that the tests do not know."""
    assert rows().keys() == ROWS.keys()


@pytest.mark.parametrize(("component", "amount"), [("hooks", "512 MiB"), ("gateway", "1 GiB")])
def test_memory_is_that_of_the_chart(component: str, amount: str) -> None:
    """The memory that the page names is what the chart gives."""
    values: Any = yaml.safe_load((ROOT / "charts/beamlit-controller/values.yaml").read_text())
    assert values[component]["resources"]["limits"]["memory"] == amount.replace(" ", "").removesuffix("B")
    assert amount in TEXT
