"""Reasons are API: words for programs, each documented."""

import ast
import re
from pathlib import Path

from hooks import reasons
from hooks.backends import readiness

SOURCE = ast.parse(Path(reasons.__file__).read_text(encoding="utf-8")).body
WORDS = {name: value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, str)}


def test_each_reason_is_documented() -> None:
    """A sentence stands under every constant."""
    for statement, below in zip(SOURCE, [*SOURCE[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign):
            assert isinstance(below, ast.Expr), ast.unparse(statement)
            assert isinstance(below.value, ast.Constant), ast.unparse(statement)


def test_each_reason_is_one_word_that_a_route_document_may_hold() -> None:
    """Reasons are letters only, at most 64, and no two are the same."""
    assert all(re.fullmatch(r"[A-Z][A-Za-z]{1,63}", word) for word in WORDS.values())
    assert len(set(WORDS.values())) == len(WORDS)


def test_readiness_has_no_other_reasons() -> None:
    """Every reason for which nothing is ready is known as such, so that a kept route can go back."""
    assert set(readiness.MESSAGES) - {reasons.REPLICAS_READY} <= reasons.READINESS
