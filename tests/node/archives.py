"""Images as archives, written without an engine: of a few files, or of another image with a few files more.

The form is that of `docker save`, which containerd, docker and podman read.
https://github.com/moby/docker-image-spec/blob/main/v1.2.md#combined-image-json--filesystem-changeset-format
"""

import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_ANY: Final = 0o755


def write(
    archive: Path, name: str, files: Mapping[str, Path], command: Sequence[str], links: Mapping[str, str] | None = None
) -> Path:
    """Write an image of files and nothing else, and return the path of the archive.

    Args:
        archive: where it goes.
        name: of the image, with its tag.
        files: files of this machine by their path in the image.
        command: what a container of the image runs.
        links: targets of symbolic links by their path in the image.
    """
    layer = _layer(files, links or {})
    configuration = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": list(command), "Env": ["PATH=/usr/bin:/bin"]},
    }
    return _write(archive, name, configuration, [], layer)


def extend(
    archive: Path,
    name: str,
    base: Path,
    files: Mapping[str, Path],
    command: Sequence[str],
    environment: Mapping[str, str],
) -> Path:
    """Write the image of another archive with more files and another command, and return the path of the archive."""
    with tarfile.open(base) as content:
        about = manifest(content)
        configuration = json.loads(read(content, about["Config"]))
        layers = [read(content, path) for path in about["Layers"]]
    settings = configuration["config"]
    settings["Entrypoint"], settings["Cmd"] = list(command), []
    settings["Env"] = [*settings.get("Env", ()), *(f"{key}={value}" for key, value in environment.items())]
    return _write(archive, name, configuration, layers, _layer(files, {}))


def libraries(program: Path) -> dict[str, Path]:
    """Return the files that a program of this machine needs to run elsewhere, itself among them, by their paths."""
    result = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True)
    paths = re.findall(r"(/\S+) \(0x", result.stdout)
    return {path: Path(path) for path in (*paths, str(program))}


def _layer(files: Mapping[str, Path], links: Mapping[str, str]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as layer:
        for folder in _folders((*files, *links)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else _ANY
            layer.addfile(entry)
        for target, source in files.items():
            entry = tarfile.TarInfo(target.lstrip("/"))
            content = source.read_bytes()
            entry.size, entry.mode = len(content), _ANY
            layer.addfile(entry, io.BytesIO(content))
        for path, target in links.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
            layer.addfile(entry)
    return stream.getvalue()


def _folders(paths: Iterable[str]) -> list[str]:
    parents = {str(parent) for path in paths for parent in Path(path.lstrip("/")).parents}
    return sorted((parents | {"tmp"}) - {"."})


def _write(archive: Path, name: str, configuration: dict[str, Any], layers: list[bytes], layer: bytes) -> Path:
    """Write an image with a layer above others."""
    content = {f"{_digest(one)}/layer.tar": one for one in (*layers, layer)}
    configuration["rootfs"] = {"type": "layers", "diff_ids": [f"sha256:{_digest(one)}" for one in (*layers, layer)]}
    # It names every layer of the base once, and its own is none of them.
    configuration.pop("history", None)
    encoded = json.dumps(configuration).encode()
    stored = f"{_digest(encoded)}.json"
    about = [{"Config": stored, "RepoTags": [name], "Layers": list(content)}]
    files = {"manifest.json": json.dumps(about).encode(), stored: encoded, **content}
    with tarfile.open(archive, "w") as image:
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            image.addfile(entry, io.BytesIO(data))
    return archive


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def manifest(content: tarfile.TarFile) -> Any:
    """Return the names of the files of the one image in an archive: its `Config`, and its `Layers` in their order."""
    (about,) = json.loads(read(content, "manifest.json"))
    return about


def read(content: tarfile.TarFile, path: str) -> bytes:
    """Return the content of a file of an archive."""
    stream = content.extractfile(path)
    assert stream is not None, path
    return stream.read()
