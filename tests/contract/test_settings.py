"""Settings: each is read by a program, or is on a list with the reason why not."""

import ast
import functools
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
"""Settings that have no effect, by their key in the file, each with the reason."""


@functools.cache
def read(package: str) -> set[str]:
    """Return the names of all attributes that the code of a package reads."""
    return {
        node.attr
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


SETTINGS: Final = {
    (package, key): path[-1]
    for package, model in (("hooks", hooks.settings.Settings), ("gateway", gateway.settings.Settings))
    for path, key, _ in leaves(model)
}


@pytest.mark.parametrize(("package", "key"), SETTINGS)
def test_a_setting_is_read(package: str, key: str) -> None:
    """An attribute with the name of a setting is read by a program that has the setting, or by their shared code.

    For a setting that is listed as without effect no attribute is read.
    """
    programs = {package for package, known in SETTINGS if known == key}
    is_read = any(SETTINGS[package, key] in read(one) for one in (*programs, "program"))
    assert is_read is (key not in NOT_OBEYED)


def test_what_is_listed_is_there() -> None:
    """The list of settings without effect names only settings that exist."""
    assert NOT_OBEYED.keys() <= {key for _, key in SETTINGS}
