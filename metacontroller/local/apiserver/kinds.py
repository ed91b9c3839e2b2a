"""What is installed on this machine: custom kinds from CRD files, and the CompositeControllers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metacontroller.local import errors
from metacontroller.local.apiserver import yaml
from metacontroller.local.apiserver.objects import BUILT_IN, Kind, Object

if TYPE_CHECKING:
    from pathlib import Path


def read_kinds(folder: Path) -> tuple[Kind, ...]:
    """The built-in kinds and those of the CustomResourceDefinitions in a folder; raises errors.SetupError."""
    found = [kind for item in _read(folder, "CustomResourceDefinition") for kind in _kinds(item)]
    if not found:
        raise errors.SetupError(f"--crds {folder}: there is no CustomResourceDefinition in it")
    return (*BUILT_IN, *found)


def read_controllers(folder: Path) -> tuple[Object, ...]:
    """The CompositeControllers in a folder; raises errors.SetupError when there is none."""
    found = tuple(_read(folder, "CompositeController"))
    if not found:
        raise errors.SetupError(f"--controllers {folder}: there is no CompositeController in it")
    return found


def _read(folder: Path, kind: str) -> list[Object]:
    paths = sorted(path for suffix in ("yaml", "yml", "json") for path in folder.glob(f"*.{suffix}"))
    found = []
    for path in paths:
        try:
            found += [item for item in yaml.read(path.read_text(encoding="utf-8")) if item.get("kind") == kind]
        except (yaml.DocumentError, OSError) as error:
            raise errors.SetupError(f"{path}: {error}") from error
    return found


def _kinds(definition: Object) -> list[Kind]:
    spec = definition["spec"]
    return [
        Kind(
            group=spec["group"],
            version=version["name"],
            name=spec["names"]["kind"],
            plural=spec["names"]["plural"],
            namespaced=spec["scope"] == "Namespaced",
            status="status" in (version.get("subresources") or {}),
            generation=True,
            schema=version["schema"]["openAPIV3Schema"],
        )
        for version in spec["versions"]
        if version.get("storage")
    ]
