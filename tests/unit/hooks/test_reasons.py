"""Reasons are part of the API: each is one word and documented."""

import ast
import re
from pathlib import Path

from hooks import reasons
from hooks.backends import readiness

SOURCE = ast.parse(Path(reasons.__file__).read_text(encoding="utf-8")).body
WORDS = {name: value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, str)}


def test_each_reason_is_documented() -> None:
    """Every reason has a docstring."""
    for statement, below in zip(SOURCE, [*SOURCE[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign):
            assert isinstance(below, ast.Expr), ast.unparse(statement)
            assert isinstance(below.value, ast.Constant), ast.unparse(statement)


def test_each_reason_is_one_word_that_a_route_document_may_hold() -> None:
    """A reason has only letters, at most 64, and no two reasons are equal."""
    assert all(re.fullmatch(r"[A-Z][A-Za-z]{1,63}", word) for word in WORDS.values())
    assert len(set(WORDS.values())) == len(WORDS)


def test_readiness_has_no_other_reasons() -> None:
    """READINESS has every reason of readiness, so that a last applied route can return to the local backend."""
    assert set(readiness.MESSAGES) - {reasons.REPLICAS_READY} <= reasons.READINESS
