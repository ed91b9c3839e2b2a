"""The page docs/configuration.md lists every setting of both programs, with the default that the code has."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_origin

import pytest
from pydantic import BaseModel, SecretStr

import gateway.settings
import hooks.settings
from program.settings import Shared
from tools.repository import ROOT

PAGE = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")


def table(title: str) -> dict[str, tuple[str, str]]:
    """Return the table of a section of the page: default and environment variable by key."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = [[cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in section.splitlines() if "|" in line]
    return {row[0]: (row[2], row[4]) for row in rows if row[0] not in {"key", "---"}}


def leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Yield path of field names, key in the file and default of every setting that is not a section."""
    for name, info in model.model_fields.items():
        inner = next((one for one in candidates(info.annotation) if issubclass(one, BaseModel)), None)
        if inner is not None:
            yield from ((path, f"{info.alias}.{key}", value) for path, key, value in leaves(inner, (*path, name)))
        else:
            value = None if info.is_required() else info.get_default(call_default_factory=True)
            yield (*path, name), str(info.alias), value


def candidates(annotation: Any) -> list[type]:
    """Return the classes that the annotation of a field names, and none for a list, which is one setting."""
    if get_origin(annotation) is tuple:
        return []
    return [one for one in (annotation, *getattr(annotation, "__args__", ())) if isinstance(one, type)]


def shown(value: Any) -> str:
    """Return a default as the page shows it."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or value == "" or value == () or value == {}:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(value) if isinstance(value, tuple) else str(value)


SHARED = {key for _, key, _ in leaves(Shared)}
SETTINGS = {
    "hooks": {key: (path, default) for path, key, default in leaves(hooks.settings.Settings)},
    "gateway": {key: (path, default) for path, key, default in leaves(gateway.settings.Settings)},
}
CASES = [(program, key) for program, known in SETTINGS.items() for key in known]


@pytest.mark.parametrize(("program", "key"), CASES)
def test_setting(program: str, key: str) -> None:
    """A setting is on the page, with its default and the environment variable that sets it."""
    path, default = SETTINGS[program][key]
    row = table("Both programs" if key in SHARED else program)[key]
    assert row == (shown(default), "BEAMLIT_" + "__".join(path).upper())


def test_nothing_else() -> None:
    """The page lists no setting that no program has."""
    assert table("Both programs").keys() == SHARED
    for program, known in SETTINGS.items():
        assert table(program).keys() == known.keys() - SHARED


def test_the_example(tmp_path: Path) -> None:
    """The example on the page is a configuration that both programs accept."""
    example = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "config.yaml").write_text(example[0])
    for program in (hooks.settings.Settings, gateway.settings.Settings):
        read = program.load(tmp_path / "config.yaml", environment={})
        assert read.default_remote_backend.workspace == "my-workspace"
        assert read.default_remote_backend.location.country == "us"
