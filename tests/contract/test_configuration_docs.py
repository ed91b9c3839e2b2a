"""docs/configuration.md lists every setting of both programs, with the default that the code has."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from gateway import settings

PAGE = (Path(__file__).resolve().parents[2] / "docs/configuration.md").read_text(encoding="utf-8")


def table(title: str) -> dict[str, tuple[str, str]]:
    """The table of a section: key to default and environment variable."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = [[cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in section.splitlines() if "|" in line]
    return {row[0]: (row[2], row[4]) for row in rows if row[0] not in {"key", "---"}}


def leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Every setting that is not a section: the path of field names, its key in the file, and its default."""
    for name, info in model.model_fields.items():
        inner = next((one for one in candidates(info.annotation) if issubclass(one, BaseModel)), None)
        if inner is not None:
            yield from ((path, f"{info.alias}.{key}", value) for path, key, value in leaves(inner, (*path, name)))
        else:
            value = None if info.is_required() else info.get_default(call_default_factory=True)
            yield (*path, name), str(info.alias), value


def candidates(annotation: Any) -> list[type]:
    """The classes that a field's annotation names."""
    return [one for one in (annotation, *getattr(annotation, "__args__", ())) if isinstance(one, type)]


def shown(value: Any) -> str:
    """A default as the page shows it."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or value == "" or value == () or value == {}:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(value) if isinstance(value, tuple) else str(value)


GATEWAY = list(leaves(settings.Settings))


@pytest.mark.parametrize(("path", "key", "default"), GATEWAY, ids=[key for _, key, _ in GATEWAY])
def test_gateway_setting(path: tuple[str, ...], key: str, default: object) -> None:
    """A setting of the gateway is on the page with its default and the variable that sets it."""
    rows = table("gateway" if key.startswith("gateway.") else "Both programs")
    assert rows[key] == (shown(default), "BEAMLIT_" + "__".join(path).upper())


def test_nothing_else() -> None:
    """The page lists no setting that the gateway does not have, and all keys it leaves to hooks."""
    assert table("Both programs").keys() | table("gateway").keys() == {key for _, key, _ in GATEWAY}
    tops = {key.partition(".")[0] for key in table("hooks")}
    assert tops == settings.CONTROLLER_KEYS - {"hooks"}


def test_the_example(tmp_path: Path) -> None:
    """The page's example is a configuration that the gateway takes."""
    example = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "config.yaml").write_text(example[0])
    read = settings.Settings.load(tmp_path / "config.yaml", environment={})
    assert read.default_remote_backend.workspace == "my-workspace"
