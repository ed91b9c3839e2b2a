"""Kinds and CompositeControllers of this machine, read from files."""

from pathlib import Path

from metacontroller.local import errors
from metacontroller.local.apiserver import yaml
from metacontroller.local.apiserver.objects import BUILT_IN, Kind, Object


def read_kinds(folder: Path) -> tuple[Kind, ...]:
    """Return the built-in kinds and those of the CustomResourceDefinitions in a folder; raise errors.SetupError where a
    file is invalid."""
    found = [kind for item in _read(folder, "CustomResourceDefinition") for kind in _kinds(item)]
    if not found:
        raise errors.SetupError(f"--crds {folder}: there is no CustomResourceDefinition in it")
    return (*BUILT_IN, *found)


def read_controllers(folder: Path) -> tuple[Object, ...]:
    """Return the CompositeControllers in a folder; raise errors.SetupError where there is none."""
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
        except (yaml.DocumentError, OSError) as exc:
            raise errors.SetupError(f"{path}: {exc}") from exc
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
