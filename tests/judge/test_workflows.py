"""The workflows of GitHub and what is beside them, judged by programs of others."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.deadlines import SECONDS
from tests.judge.conftest import needed
from tools.repository import ROOT

GITHUB: Final = ROOT / ".github"
WORKFLOWS: Final = sorted((GITHUB / "workflows").glob("*.yml"))
each = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def test_actionlint_has_no_complaint() -> None:
    """actionlint finds no mistake in syntax, expressions and types of the workflows."""
    flags = ("-no-color", "-shellcheck=", "-pyflakes=")
    result = subprocess.run(
        [needed("actionlint"), *flags, *map(str, WORKFLOWS)], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS
    )
    assert (result.returncode, result.stdout) == (0, "")


def test_zizmor_has_no_complaint() -> None:
    """zizmor finds nothing insecure in the workflows, not even by its pickiest rules."""
    program = os.environ.get("ZIZMOR") or shutil.which("zizmor")
    if program is None:
        pytest.skip("zizmor is missing: `make judge` brings it")
    command = [program, "--offline", "--persona=pedantic", "--no-progress", "--color=never", str(GITHUB)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "No findings to report" in result.stdout + result.stderr


@each
def test_actions_are_pinned_by_digest(path: Path) -> None:
    """Each action is named by a commit, with the version that it is of behind it, and everywhere by the same."""
    lines = re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))
    assert [line for line in lines if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


def test_an_action_has_one_version() -> None:
    """No action is used in two versions."""
    used: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for name, version in re.findall(r"uses: (\S+)@(.*)", path.read_text(encoding="utf-8")):
            used.setdefault(name, set()).add(version)
    assert {name for name, versions in used.items() if len(versions) > 1} == set()
    assert len(used) >= 8


@each
def test_commands_of_workflows_exist(path: Path) -> None:
    """Each target of the Makefile that a workflow runs exists, and so do the scripts."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"\bmake ([a-z0-9-]+)", re.sub(r"apt-get.*", "", text))) <= targets
    assert all((ROOT / script).is_file() for script in re.findall(r"bash (\S+)", text))


def test_the_base_of_the_tests_is_that_of_the_image() -> None:
    """The container in which everything is tested is the base of the image."""
    (base,) = re.findall(r"^ARG BASE=(\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"image: {base}\n" in (GITHUB / "workflows/test.yml").read_text(encoding="utf-8")


def test_updates_reach_every_place() -> None:
    """Dependabot looks at every folder that has a lock file, and at the Dockerfile and the workflows."""
    configured: dict[str, set[str]] = {}
    updates: Any = yaml.safe_load((GITHUB / "dependabot.yml").read_text(encoding="utf-8"))["updates"]
    for one in updates:
        folders = one.get("directories") or [one["directory"]]
        matching = (found for folder in folders for found in ([ROOT] if folder == "/" else ROOT.glob(folder[1:])))
        configured[one["package-ecosystem"]] = {str(found.relative_to(ROOT)) for found in matching}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for ecosystem, name in (
        ("uv", "uv.lock"),
        ("gomod", "go.sum"),
        ("npm", "package-lock.json"),
        ("docker", "Dockerfile"),
    ):
        folders = {str(Path(path).parent) for path in tracked if Path(path).name == name}
        assert folders <= configured[ecosystem], ecosystem
    assert "github-actions" in configured


@pytest.mark.parametrize("path", sorted((GITHUB / "ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda path: path.name)
def test_forms_of_issues(path: Path) -> None:
    """A form has a name, a description and fields with ids of their own, each with a label."""
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form["name"]
    assert form["description"]
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids) >= 3
    assert all(field["attributes"]["label"] for field in form["body"])
