"""The image as it is built: what it has, what it does not have, and how large it is."""

import io
import os
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.node import base_image, image, image_tests
from tools.repository import ROOT

LARGEST: Final = 100_000_000
"""Bytes that the image may have beside its base."""
USER: Final = ("setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", "--no-new-privs")


def skip(reason: str) -> None:
    """Skip a test by what is missing; in CI that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def archive() -> Path:
    """Return an archive with the image."""
    try:
        return image.build_image()
    except image.Unavailable as exc:
        skip(str(exc))
        raise


@pytest.fixture(scope="session")
def root(archive: Path) -> Iterator[Path]:
    """Yield the root file system of the image."""
    if reason := image_tests.missing():
        skip(reason)
    with base_image.scratch() as folder:
        folder.chmod(0o755)
        image.unpack(archive, folder)
        yield folder


def test_configuration(archive: Path) -> None:
    """The image runs hooks as user 65532, and its labels say what it is."""
    found = image.configuration(archive)["config"]
    assert found["User"] == "65532:65532"
    assert found["Cmd"] == ["python", "-m", "hooks"]
    assert set(found["ExposedPorts"]) == {f"{port}/tcp" for port in (8080, 8081, 8082, 8083)}
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in found["Labels"].items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (labels["title"], labels["version"]) == (project["name"], project["version"])
    assert (labels["description"], labels["licenses"]) == (project["description"], project["license"])
    chart = yaml.safe_load((ROOT / "charts/beamlit-controller/Chart.yaml").read_text())
    assert [labels["source"]] == chart["sources"]
    assert len(labels["revision"]) == 40
    assert "python:3.13-slim" in labels["base.name"]


def test_size(archive: Path) -> None:
    """The image is not much larger than its base."""
    assert image.size_over_base(archive) < LARGEST


def test_nothing_of_the_build_is_left(root: Path) -> None:
    """The image has no compiler, no pip, no uv and no cache."""
    programs = {"as", "cc", "gcc", "c++", "g++", "cpp", "ld", "make", "pip", "pip3", "strip", "uv", "uvx"}
    folders = ("app/bin", "usr/local/bin", "usr/bin", "usr/sbin")
    assert not [name for name in programs for folder in folders if (root / folder / name).exists()]
    assert not [*root.glob("usr/local/lib/python3*/*-packages/pip*"), *root.glob("app/lib/python3*/site-packages/pip*")]
    assert not [*root.glob("usr/**/ensurepip")]
    assert not [*root.glob("root/.cache/*"), *root.glob("var/lib/apt/lists/*"), *root.glob("tmp/*"), *root.glob("src")]


def test_nobody_but_root_writes_to_it(root: Path) -> None:
    """No file of the programs belongs to the user of the image, or can be written by it."""
    for path in (root / "app", *(root / "app").rglob("*")):
        state = path.lstat()
        assert state.st_uid == 0
        assert path.is_symlink() or not state.st_mode & 0o022, path


def test_modules_are_compiled(root: Path) -> None:
    """Modules of the data path are compiled for the Python of the image, and all others have their bytecode."""
    (packages,) = root.glob("app/lib/python3.13/site-packages")
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]
    for module in hatch["build"]["targets"]["wheel"]["hooks"]["mypyc"]["include"]:
        assert list((packages / module).parent.glob(f"{Path(module).stem}.cpython-313-*.so")), module
    for source in packages.rglob("*.py"):
        assert (source.parent / "__pycache__" / f"{source.stem}.cpython-313.pyc").exists(), source


def test_what_is_left_out_is_not_missed(root: Path, archive: Path) -> None:
    """Every module of the programs can be imported by the user of the image, and so can the client of Kubernetes."""
    names = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in ("gateway", "hooks", "program")
        for path in (ROOT / package).rglob("*.py")
    )
    code = f"import importlib\nfor name in {['kubernetes', 'kubernetes.aio', *names]}: importlib.import_module(name)"
    assert image_tests.run(root, [*USER, "python", "-W", "error", "-c", code], image_tests.environment(archive)) == 0


@pytest.mark.parametrize("name", ["hooks", "gateway"])
def test_programs_start_as_their_user(root: Path, archive: Path, name: str) -> None:
    """Both programs start as the user of the image, which may write nowhere."""
    assert image_tests.run(root, [*USER, "python", "-m", name, "--help"], image_tests.environment(archive)) == 0


def layer(members: dict[str, bytes | None]) -> bytes:
    """Return a layer with files, and folders where the content is None."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as file:
        for path, data in members.items():
            member = tarfile.TarInfo(path)
            member.mode = 0o755
            if data is None:
                member.type = tarfile.DIRTYPE
            else:
                member.size = len(data)
            file.addfile(member, io.BytesIO(data or b""))
    return content.getvalue()


def test_layers_take_files_away(tmp_path: Path) -> None:
    """A file, a folder and all that a folder had are gone where a later layer says so."""
    layers: list[dict[str, bytes | None]] = [
        {"a": None, "a/kept": b"1", "a/gone": b"1", "b": None, "b/deep": b"1", "c": None, "c/old": b"1", "d": b"1"},
        {"a/.wh.gone": b"", ".wh.b": b"", "c/.wh..wh..opq": b"", "c/new": b"2", "d": None, "d/inside": b"2"},
    ]
    archive, root = tmp_path / "image.tar", tmp_path / "root"
    root.mkdir()
    manifest: Any = f'[{{"Config": "config.json", "Layers": {[f"{i}.tar" for i in range(2)]}}}]'.replace("'", '"')
    files = {"manifest.json": manifest.encode(), **{f"{i}.tar": layer(members) for i, members in enumerate(layers)}}
    archive.write_bytes(layer(files))
    image.unpack(archive, root)
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert found == {"a/kept", "c/new", "d/inside"}
