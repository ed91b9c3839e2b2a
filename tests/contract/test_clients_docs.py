"""The pages for clients: every error code has a row, and the figures are those of the settings."""

import re

import pytest

from gateway.settings import TimeoutSettings
from tools.error_table import ADVICE, errors
from tools.repository import ROOT

PAGE = (ROOT / "docs/clients.md").read_text(encoding="utf-8")
ERRORS = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")


def test_every_code_has_one_row() -> None:
    """Each code of gateway/errors.py has one row with its status, its meaning and what to do, and no other has one."""
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| .+\.? \| .+\. \|$", ERRORS, re.MULTILINE)
    assert len(rows) == len(dict(rows))
    assert {(one.code, str(one.status)) for one in errors()} == set(rows)
    assert {one.code for one in errors()} == ADVICE.keys()


@pytest.mark.parametrize("code", sorted(set(re.findall(r"\d{3} `(\w+)`", PAGE))))
def test_the_codes_that_the_page_names_exist(code: str) -> None:
    """A code that docs/clients.md names is one of the gateway's."""
    assert code in ADVICE


def test_the_timeouts() -> None:
    """The timeouts that the page names have the defaults of the settings."""
    defaults = TimeoutSettings().model_dump(by_alias=True)
    named = re.findall(r"\| `gateway\.timeouts\.(\w+)` \| (\d+) s", PAGE)
    assert len(named) == 5
    for key, seconds in named:
        assert defaults[key] == float(seconds), key
