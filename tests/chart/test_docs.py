"""The pages about the chart: their commands render, their values exist, and their manifests are accepted."""

import json
import re
import shlex
from pathlib import Path
from typing import Final

import pytest
import yaml

from hooks.cli import render
from hooks.settings import Settings
from tests.builders import NOW
from tests.chart.helm import kind, template
from tests.chart.test_values import ORIGINAL
from tools.chart_reference import is_value, schema
from tools.repository import ROOT

PAGES: Final = (
    *("README.md", "docs/quickstart.md", "docs/install.md", "docs/migrating.md", "docs/troubleshooting.md"),
    "SECURITY.md",
)
INSTALL: Final = (ROOT / "docs/install.md").read_text(encoding="utf-8")
VALUES: Final = json.loads(schema())
FOREIGN: Final = ("metacontroller.image.", "metacontroller.imagePullSecrets", "config.yaml")
"""Values of the dependency, and a file, which look like values of the chart."""


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def helm_commands() -> list[list[str]]:
    """Return every `helm install` and `helm upgrade` with this chart in the pages, as words."""
    lines = [
        line
        for page in PAGES
        for block in blocks((ROOT / page).read_text(encoding="utf-8"), "sh")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    commands = [shlex.split(re.sub(r"\$[A-Z_]+", "word", line)) for line in lines if "oci://" in line]
    return [words for words in commands if words[:2] in (["helm", "install"], ["helm", "upgrade"])]


def values_files() -> dict[str, str]:
    """Return every file of values in the documentation, by its page and its number there: a block that says so, or the
    settings of the gateway that are values below `config`."""
    found = {}
    for path in sorted((ROOT / "docs").rglob("*.md")):
        page = path.relative_to(ROOT / "docs").with_suffix("").as_posix()
        for number, block in enumerate(blocks(path.read_text(encoding="utf-8"), "yaml")):
            head = block.partition("\n")[0]
            if head == "# values.yaml":
                found[f"{page}-{number}"] = block
            elif "config.gateway" in head:
                found[f"{page}-{number}"] = yaml.safe_dump({"config": yaml.safe_load(block)})
    return found


@pytest.mark.parametrize("words", helm_commands(), ids=" ".join)
def test_a_command_renders(chart: Path, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chart renders with the values that a command in the pages sets."""
    (tmp_path / "ca.crt").write_text("PEM")
    monkeypatch.chdir(tmp_path)
    flags: list[str] = []
    for flag, value in zip(words, [*words[1:], ""], strict=True):
        if flag.startswith("--set"):
            flags += [flag, value]
    name = next(one["metadata"]["name"] for one in template(chart, *flags) if one["kind"] == "Deployment")
    assert name.startswith("beamlit")


def test_there_are_commands() -> None:
    """The commands in the pages are found."""
    assert len(helm_commands()) >= 6
    assert any("--set-file" in words for words in helm_commands())
    assert {name.rpartition("-")[0] for name in values_files()} >= {"gateway", "install", "monitoring"}


def test_all_pages_with_commands_are_looked_at() -> None:
    """No other page of the documentation has a command of helm with this chart."""
    command = re.compile(r"^ *helm (install|upgrade|template)\b.*oci://", re.MULTILINE)
    pages = (path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
    assert {page for page in pages if command.search((ROOT / page).read_text(encoding="utf-8"))} <= set(PAGES)


@pytest.mark.parametrize("block", values_files().values(), ids=values_files().keys())
def test_a_values_file_renders(chart: Path, block: str, tmp_path: Path) -> None:
    """The chart renders with each file of values in the documentation."""
    (tmp_path / "values.yaml").write_text(block)
    assert template(chart, "--values", str(tmp_path / "values.yaml"))


def test_the_first_model(chart: Path, tmp_path: Path) -> None:
    """The first model of the page is accepted under the chart's configuration, and its children have the names in the
    page's commands."""
    (block,) = [one for one in blocks(INSTALL, "yaml") if one.startswith("# my-model.yaml")]
    (tmp_path / "my-model.yaml").write_text(block)
    (tmp_path / "config.yaml").write_text(kind(template(chart), "ConfigMap", "-config")["data"]["config.yaml"])
    defaults = Settings.load(tmp_path / "config.yaml", environment={}).install_defaults
    with (tmp_path / "children.yaml").open("w") as output:
        assert render([tmp_path / "my-model.yaml"], defaults, now=NOW, output=output) == 0
    children = {(one["kind"], one["metadata"]["name"]) for one in yaml.safe_load_all(
        (tmp_path / "children.yaml").read_text())}  # fmt: skip
    assert {("Deployment", "my-model"), ("Service", "ask-my-model"), ("ConfigMap", "my-model-route")} <= children


@pytest.mark.parametrize(
    "page", ["docs/install.md", "docs/migrating.md", "docs/troubleshooting.md", "SECURITY.md", "docs/monitoring.md"]
)
def test_values_that_are_named_exist(page: str) -> None:
    """Every value that a page names is one of the chart."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    text = text.rpartition("## Installing\n")[2]  # settings of the programs come before it
    for word in re.findall(r"`([a-zA-Z]+(?:\.[a-zA-Z]+)+)(?:=[^`]*)?`", text):
        if word.partition(".")[0] in VALUES["properties"] and not word.startswith(FOREIGN):
            assert is_value(word), f"{page}: {word}"


def test_a_value_that_is_none_is_found_out() -> None:
    """A name that is no value of the chart is recognized, so the check above can fail."""
    assert is_value("config.gateway.clusterRanges")
    assert not is_value("config.gateway.clusterRange")
    assert not is_value("hooks.tls.secret")


def test_every_value_of_the_original_is_in_the_table() -> None:
    """The table for users of the original has each of its values."""
    table = (ROOT / "docs/migrating.md").read_text(encoding="utf-8")
    values = yaml.safe_load(ORIGINAL)
    config = values.pop("config")
    for key in (*values, *(f"config.{key}" for key in config)):
        assert f"`{key}" in table, key
