"""The image, built from the Dockerfile as it stands.

`python -m tests.node.image` builds it with docker or podman, where there is one that works, else with buildah, and
prints the path of an archive that `docker load`, `podman load` and `ctr images import` take. It builds nothing while
nothing that goes into the image has changed.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests import dockerfile
from tests.node import archives, base_image, namespaces
from tools.repository import ROOT
from tools.version import version

_FOLDER: Final = ROOT / "build" / "image"
_WHITEOUT: Final = ".wh."
"""Beginning of the name of a file that stands for one that a layer takes away."""
_STORE: Final = base_image.CACHE / "containers"
"""Folder in which buildah keeps images and layers."""
_LAYERS: Final = 30
"""Number of layers in that folder above which all are made anew; one build of changed sources makes four."""
_SECONDS: Final = 60
"""Seconds for an engine to say whether it works, and to begin to send the base image."""


class Unavailable(Exception):
    """The image cannot be built here. The message says what is missing."""


class BuildError(Exception):
    """The build of the image failed. The message has the end of what the engine printed."""


def name() -> str:
    """Return the name by which the chart of this version asks for the image."""
    values = yaml.safe_load((ROOT / "charts/beamlit-controller/values.yaml").read_text())
    return f"{values['image']['repository']}:{version()}"


def build_image(tag: str | None = None) -> Path:
    """Build the image where it is not built yet, and return the path of an archive with it.

    Args:
        tag: name of the image in the archive; by default the one by which the chart asks for it.

    Raises:
        Unavailable: no engine works here, or the base image can neither be pulled nor made.
        BuildError: the build failed.
    """
    tag = tag or name()
    with base_image.alone("image"):
        return _built(tag)


def _built(tag: str) -> Path:
    archive = _FOLDER / f"{tag.replace('/', '_').replace(':', '_')}.tar"
    key, inputs = archive.with_suffix(".inputs"), dockerfile.digest()
    if archive.is_file() and key.is_file() and key.read_text() == inputs:
        return archive
    engine = find_engine()
    engine.clear()
    base = _base(engine)
    arguments = {"BASE": base, "VERSION": version(), "REVISION": _revision()}
    flags = [word for item in arguments.items() for word in ("--build-arg", "=".join(item))]
    began = time.monotonic()
    print(f"building {tag} with {engine.program}", flush=True)
    engine.run("build", *engine.build, *flags, "--file", str(dockerfile.PATH), "--tag", tag, str(ROOT))
    print(f"built in {time.monotonic() - began:.0f} s", flush=True)
    _FOLDER.mkdir(parents=True, exist_ok=True)
    key.unlink(missing_ok=True)
    archive.unlink(missing_ok=True)
    engine.save(tag, archive)
    key.write_text(inputs)
    return archive


@dataclass(frozen=True)
class Engine:
    """A program that builds images and keeps them."""

    program: str
    options: tuple[str, ...] = ()
    """Options before each of its commands."""
    build: tuple[str, ...] = ()
    """Options of its command `build`."""
    before: tuple[str, ...] = ()
    """Words before each of its commands."""

    def run(self, *words: str) -> str:
        """Run a command to its end and return what it prints.

        Raises:
            BuildError: the command failed.
        """
        result = self._result(*words, seconds=3600)
        if result.returncode:
            raise BuildError(f"{self.program} {words[0]} failed:\n{(result.stdout + result.stderr)[-6000:]}")
        return result.stdout

    def works(self) -> bool:
        """Return whether the program is here, with the engine behind it where it needs one."""
        return shutil.which(self.program) is not None and self._succeeds("info")

    def clear(self) -> None:
        """Remove what builds that were killed left in a store of ours, and all layers when there are many."""
        if self.program != "buildah":
            return
        self.run("rm", "--all")
        if len(list((_STORE / "overlay").glob("?" * 64))) > _LAYERS:
            self.run("rmi", "--all", "--force")

    def has(self, image: str) -> bool:
        """Return whether an image is in the engine's store."""
        kind = () if self.program == "docker" else ("--type", "image")
        return self._succeeds("inspect", *kind, image)

    def pull(self, image: str) -> bool:
        """Return whether an image could be pulled."""
        return self._succeeds("pull", "--quiet", image, seconds=5 * _SECONDS)

    def load_base(self, archive: Path, image: str) -> None:
        """Keep a root file system as an image.

        Raises:
            BuildError: the engine refused it.
        """
        pairs = [f"{key}={value}" for key, value in base_image.ENVIRONMENT.items()]
        if self.program != "buildah":
            changes = [word for pair in pairs for word in ("--change", f"ENV {pair}")]
            self.run("import", *changes, "--change", 'CMD ["python3"]', str(archive), image)
            return
        container = self.run("from", "scratch").strip()
        try:
            self.run("add", "--quiet", container, str(archive), "/")
            flags = [word for pair in pairs for word in ("--env", pair)]
            self.run("config", *flags, "--cmd", '["python3"]', container)
            self.run("commit", "--quiet", container, image)
        finally:
            self.run("rm", container)

    def save(self, image: str, archive: Path) -> None:
        """Write an image to an archive.

        Raises:
            BuildError: it cannot be written.
        """
        match self.program:
            case "docker":
                self.run("save", "--output", str(archive), image)
            case "podman":
                self.run("save", "--format", "docker-archive", "--output", str(archive), image)
            case _:
                self.run("push", image, f"docker-archive:{archive}:{image}")

    def _succeeds(self, *words: str, seconds: float = _SECONDS) -> bool:
        try:
            return self._result(*words, seconds=seconds).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def _result(self, *words: str, seconds: float) -> subprocess.CompletedProcess[str]:
        command = [*self.before, self.program, *self.options, *words]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
        )


def find_engine() -> Engine:
    """Return an engine that works here.

    Raises:
        Unavailable: there is none.
    """
    buildah = Engine(
        "buildah",
        # A store of its own, so that what tests make is not in that of the user.
        ("--root", str(_STORE), "--runroot", "/run/beamlit-containers"),
        ("--isolation", "chroot", "--layers", "--quiet"),
        # It mounts what it builds in, and leaves that mounted where it is killed.
        tuple(namespaces.own("--mount-proc")),
    )
    engines = [Engine("docker"), Engine("podman", build=("--layers",))]
    if os.geteuid() == 0:
        engines.append(buildah)
    for engine in engines:
        if engine.works():
            return engine
    remedy = "apt-get install buildah" if os.geteuid() == 0 else "run as root for buildah"
    raise Unavailable(f"neither docker, podman nor buildah works here: {remedy}")


def size_over_base(archive: Path) -> int:
    """Return the bytes that the image in an archive has beside its base."""
    with tarfile.open(archive) as content:
        layers = archives.manifest(content)["Layers"]
        return sum(content.getmember(layer).size for layer in layers[-dockerfile.layers() :])


def configuration(archive: Path) -> dict[str, Any]:
    """Return the configuration of the image in an archive (https://github.com/opencontainers/image-spec, config.md)."""
    with tarfile.open(archive) as content:
        found: dict[str, Any] = json.loads(archives.read(content, archives.manifest(content)["Config"]))
        return found


def unpack(archive: Path, root: Path) -> None:
    """Write the root file system of the image in an archive to a folder. It takes root."""
    with tarfile.open(archive) as content:
        for layer in archives.manifest(content)["Layers"]:
            stream = content.extractfile(layer)
            assert stream is not None
            with tarfile.open(fileobj=stream) as files:
                _apply(files, root)


def _apply(layer: tarfile.TarFile, root: Path) -> None:
    kept = []
    for member in layer:
        path = root / member.name
        if path.name == ".wh..wh..opq":
            _remove_all(list(path.parent.iterdir()) if path.parent.is_dir() else ())
        elif path.name.startswith(_WHITEOUT):
            _remove_all([path.with_name(path.name.removeprefix(_WHITEOUT))])
        else:
            kept.append(member)
            if path.is_symlink() or path.is_dir() != member.isdir():
                _remove_all([path])
    layer.extractall(root, kept, numeric_owner=True, filter="fully_trusted")


def _remove_all(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _base(engine: Engine) -> str:
    """Return the name of the base image in the engine's store: the pinned one if it can be had, else one made here."""
    pinned = dockerfile.argument("BASE")
    made = base_image.name()
    if engine.has(made):
        return made
    if engine.has(pinned) or engine.pull(pinned):
        return pinned
    try:
        root_file_system = base_image.root_file_system()
    except base_image.Unavailable as exc:
        raise Unavailable(f"{pinned} cannot be pulled, and {exc}") from exc
    engine.load_base(root_file_system, made)
    return made


def _revision() -> str:
    """Return the commit that is checked out, for the image's label."""
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"


def main() -> int:
    """Build the image and print the path of its archive."""
    try:
        archive = build_image()
    except Unavailable as exc:
        print(f"skipped: {exc}", file=sys.stderr)
        return 1 if os.environ.get("CI") == "true" else 0
    except BuildError as exc:
        print(exc, file=sys.stderr)
        return 1
    print(f"{archive}: {size_over_base(archive) / 1e6:.0f} MB over its base")
    return 0


if __name__ == "__main__":
    sys.exit(main())
