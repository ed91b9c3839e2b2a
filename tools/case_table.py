"""Generator of the page of cases, which finds the tests of each case by their names in the source."""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final

from tools.proxy_cases import GROUPS
from tools.repository import ROOT

TESTS: Final = ROOT / "tests"
FOLDERS: Final = ("unit", "contract", "integration", "chart", "e2e")
_INTRODUCTION: Final = """\
What the gateway does with messages that are wrong, doubtful or hostile, with backends that fail and clients that leave.
Where a request is refused, nothing of it reaches a backend and its connection is closed. Each case is shown by tests
that have its id in their name, over real sockets where bytes are concerned; `pytest -k fr_01` runs those of FR-01."""
_ID: Final = re.compile(r"(?<![a-z0-9])(fr|ur|hh|bs|rt|cp|to|se|rd|k)_(\d\d)(?![0-9])")


def page() -> str:
    """Return the content of docs/reference/proxy-cases.md."""
    found = shown_by()
    lines = [
        "<!-- Generated from tools/proxy_cases.py and the names of tests by `make generate`. -->\n",
        "# Cases of the data path",
        "",
        _INTRODUCTION,
    ]
    for group, cases in GROUPS.items():
        lines += ["", f"## {group}", "", "| id | expected | shown by |", "| --- | --- | --- |"]
        for case in cases:
            shown = "<br>".join(f"`{name}`" for name in found.get(case.id, ()))
            declined = f"Not done. {case.declined}" if case.declined else ""
            cell = "<br>".join(part for part in (declined, shown) if part)
            lines.append(f"| {case.id} | {case.expected} | {cell} |")
    return "\n".join(lines) + "\n"


@cache
def shown_by() -> Mapping[str, tuple[str, ...]]:
    """Return the tests of each id, as `folder/module::test` or `folder/module::test[parameter…]`."""
    found: dict[str, list[str]] = {}
    for folder in FOLDERS:
        for file in sorted((TESTS / folder).rglob("test_*.py")):
            module = file.relative_to(TESTS).as_posix()
            for id_, test in _shown(ast.parse(file.read_text(encoding="utf-8"))):
                name = f"{module}::{test}"
                if name not in found.setdefault(id_, []):
                    found[id_].append(name)
    return {id_: tuple(names) for id_, names in found.items()}


def ids(text: str) -> list[str]:
    """Return the ids in a name: `rt_09` is RT-09."""
    return [f"{group.upper()}-{number}" for group, number in _ID.findall(text)]


def _shown(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield each id with the test that has it in its name, or in the name of a parameter."""
    texts = {name: list(_texts(node)) for node in module.body for name in _names(node)}
    for node in ast.walk(module):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test_"):
            continue
        for id_ in ids(node.name):
            yield id_, node.name
        for decorator in node.decorator_list:
            used = [one.id for one in ast.walk(decorator) if isinstance(one, ast.Name)]
            for text in (*_texts(decorator), *(text for name in used for text in texts.get(name, ()))):
                for id_ in ids(text) if _ID.match(text) else ():
                    yield id_, f"{node.name}[{id_.lower().replace('-', '_')}…]"


def _names(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement of a module defines."""
    if isinstance(node, ast.FunctionDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id


def _texts(node: ast.AST) -> Iterator[str]:
    """Yield the strings in a node, and of an f-string its first part."""
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and isinstance(one.value, str):
            yield one.value
