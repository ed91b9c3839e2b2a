"""Every setting is one that its program reads, or stands on a list with its reason."""

import ast
from collections.abc import Mapping
from typing import Final

import pytest

import gateway.settings
import hooks.settings
from tests.contract.test_configuration_docs import leaves
from tools.repository import ROOT

MANAGER: Final = "a switch of the original's manager, whose part Metacontroller has"
NOT_OBEYED: Final[Mapping[str, str]] = {
    "enableHTTP2": MANAGER,
    "secureMetrics": MANAGER,
    "enableLeaderElection": MANAGER,
    "metricsAddr": MANAGER,
    "probeAddr": MANAGER,
    "proxyService.adminPort": "the original told its proxy the routes there; here they are in ConfigMaps",
}
"""Settings without effect, by their key in the file, each with the reason."""


def read(package: str) -> set[str]:
    """Names of all attributes that a package's code reads."""
    return {
        node.attr
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


READ: Final = {package: read(package) for package in ("hooks", "gateway", "program")}
SETTINGS: Final = {
    (package, key): path[-1]
    for package, model in (("hooks", hooks.settings.Settings), ("gateway", gateway.settings.Settings))
    for path, key, _ in leaves(model)
}


@pytest.mark.parametrize(("package", "key"), SETTINGS)
def test_a_setting_is_read(package: str, key: str) -> None:
    """The program's code, or what both share, reads an attribute of its name; and nobody does for what is listed.

    What both programs know is read by one of them at least.
    """
    programs = {package for package, known in SETTINGS if known == key}
    found = any(SETTINGS[package, key] in READ[one] for one in (*programs, "program"))
    assert found is (key not in NOT_OBEYED)


def test_what_is_listed_is_there() -> None:
    """The list names settings."""
    assert NOT_OBEYED.keys() <= {key for _, key in SETTINGS}
