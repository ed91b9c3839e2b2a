"""Builder of everything that a release consists of: `python -m tools.release` writes it to dist/.

A part whose ingredients cannot be had on this machine is left out, and named. With --complete that is an error instead,
as it is for a release that is published.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from tests.e2e.binaries import find
from tests.node.image import BuildError, Unavailable, build_image
from tools.repository import ROOT
from tools.version import version

CHART: Final = "charts/beamlit-controller"
NAMESPACE: Final = "beamlit-system"
NAME: Final = "beamlit-controller"
FOLDERS: Final[Mapping[str, str]] = {
    "metacontroller-helm": "METACONTROLLER_CHART",
    "metrics-server": "METRICS_SERVER_CHART",
}
"""Environment variables that name the folder of a dependency of the chart, by its name, for machines without a
registry."""
INSTALL_VALUES: Final = (
    f"--set=hooks.tls.existingSecret={NAME}-hooks-tls",
    f"--set=hooks.tls.caConfigMap={NAME}-hooks-ca",
)
"""Values of `install.yaml`. A certificate that is made with the file would be the same, and its key known, to all."""
INSTALL_HEAD: Final = """\
# Beamlit controller {version} for clusters without Helm. docs/install.md, "Without Helm", has the commands before it:
# they apply crds.yaml, and make the certificate of hooks that this file refers to.
"""
_FLAGS: Final = ("--kube-version=1.30.0", "--api-versions=admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy")


class ReleaseError(Exception):
    """The release cannot be built. The message says why."""


@dataclass
class Release:
    """A release that is being built."""

    output: Path
    left_out: list[str] = field(default_factory=list)
    """Sentences about what is not in it."""

    def build(self, *, image: bool = True) -> None:
        """Write every part to the folder of the release.

        Args:
            image: whether to build the image, which takes some minutes.

        Raises:
            ReleaseError: a program is missing or fails.
        """
        shutil.rmtree(self.output, ignore_errors=True)
        self.output.mkdir(parents=True)
        self._python_packages()
        self._bill_of_materials()
        with tempfile.TemporaryDirectory() as folder:
            self._chart(Path(folder))
        if image:
            self._image()
        self._checksums()

    def _python_packages(self) -> None:
        """Write the wheel, which is the same on every machine because nothing in it is compiled, and the sdist."""
        _run(uv(), "build", "--quiet", "--out-dir", str(self.output), cwd=ROOT)
        (self.output / ".gitignore").unlink(missing_ok=True)

    def _bill_of_materials(self) -> None:
        """Write the packages that the programs need, with versions, hashes and licenses, as CycloneDX."""
        program = os.environ.get("CYCLONEDX") or shutil.which("cyclonedx-py")
        if program is None:
            self.left_out.append("the bill of materials: `make release` brings cyclonedx-py")
            return
        locked = _run(
            *(uv(), "export", "--quiet", "--locked", "--no-dev", "--extra", "otlp"),
            *("--no-emit-project", "--no-header", "--no-annotate"),
            cwd=ROOT,
        )
        path = self.output / f"{NAME}-{version()}.cdx.json"
        _run(
            *(program, "requirements", "-", "--pyproject", "pyproject.toml", "--mc-type", "application"),
            *("--output-reproducible", "--of", "JSON", "-o", str(path)),
            cwd=ROOT,
            stdin=locked,
        )

    def _chart(self, folder: Path) -> None:
        """Write the package of the chart, the CRDs, and what it renders to."""
        chart = folder / NAME
        shutil.copytree(ROOT / CHART, chart)
        missing = [one["name"] for one in _metadata(chart)["dependencies"] if not _bring(chart, one)]
        suffix = f"+without-{'-'.join(missing)}" if missing else ""
        for name in missing:
            self.left_out.append(
                f"{name} in the chart: its registry cannot be reached, and {FOLDERS[name]} names no folder"
            )
        _without(chart, missing)
        words = ("--version", f"{version()}{suffix}", "--app-version", version(), "--destination", str(self.output))
        helm("package", str(chart), *words)
        crds = sorted([*(chart / "crds").glob("*.yaml"), *_crds_of_dependencies(chart, folder)])
        self._write("crds.yaml", *(path.read_text(encoding="utf-8") for path in crds))
        alone = ("--set=metacontroller.enabled=false",) if "metacontroller-helm" in missing else ()
        rendered = helm(
            *("template", NAME, str(chart), "--namespace", NAMESPACE, "--no-hooks", "--skip-crds", *_FLAGS),
            *(*INSTALL_VALUES, *alone),
        )
        namespace = yaml.safe_dump({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        head = INSTALL_HEAD.format(version=version())
        if alone:
            head += "# Metacontroller is not in this file: install it first.\n"
        self._write("install.yaml", head + "---\n" + namespace, rendered)

    def _image(self) -> None:
        """Write the image of this machine's platform as an archive."""
        try:
            archive = build_image()
        except Unavailable as exc:
            self.left_out.append(f"the image: {exc}")
            return
        except BuildError as exc:
            raise ReleaseError(str(exc)) from exc
        shutil.copyfile(archive, self.output / f"{NAME}-{version()}-image.tar")

    def _checksums(self) -> None:
        lines = [
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(self.output.iterdir())
        ]
        (self.output / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")

    def _write(self, name: str, *documents: str) -> None:
        text = "---\n".join(document.removeprefix("---\n").rstrip("\n") + "\n" for document in documents)
        (self.output / name).write_text(text, encoding="utf-8")


def uv() -> str:
    """Return the path of uv.

    Raises:
        ReleaseError: there is none.
    """
    program = os.environ.get("UV") or shutil.which("uv")
    if program is None:
        raise ReleaseError("uv is missing: `make release` brings it")
    return program


def helm(*words: str) -> str:
    """Run helm; return what it prints.

    Raises:
        ReleaseError: it is missing or fails.
    """
    program = find("helm")
    if program is None:
        raise ReleaseError("helm is missing: `make release` builds it")
    return _run(str(program), *words)


def _run(*command: str, cwd: Path | None = None, stdin: str | None = None) -> str:
    result = subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        raise ReleaseError(f"{Path(command[0]).name} {command[1]} failed:\n{result.stderr[-2000:]}")
    return result.stdout


def _metadata(chart: Path) -> dict[str, Any]:
    metadata: dict[str, Any] = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
    return metadata


def _bring(chart: Path, dependency: Mapping[str, Any]) -> bool:
    """Put a dependency into the chart, from a folder that the environment names or from its registry; return whether
    that could be done."""
    name = dependency["name"]
    if given := os.environ.get(FOLDERS[name]):
        source = Path(given)
        if _metadata(source)["version"] != dependency["version"].removeprefix("~"):
            raise ReleaseError(
                f"{FOLDERS[name]} is of version {_metadata(source)['version']}: the chart names {dependency['version']}"
            )
        shutil.copytree(source, chart / "charts" / name)
        return True
    repository = dependency["repository"]
    place = (f"{repository}/{name}",) if repository.startswith("oci://") else (name, "--repo", repository)
    (chart / "charts").mkdir(exist_ok=True)
    try:
        helm("pull", *place, "--version", dependency["version"], "--destination", str(chart / "charts"))
    except ReleaseError:
        return False
    return True


def _without(chart: Path, names: Sequence[str]) -> None:
    """Take dependencies out of the chart's metadata: helm refuses a chart that names one which it does not have."""
    if not names:
        return
    metadata = _metadata(chart)
    metadata["dependencies"] = [one for one in metadata["dependencies"] if one["name"] not in names]
    (chart / "Chart.yaml").write_text(yaml.safe_dump(metadata, sort_keys=False), encoding="utf-8")


def _crds_of_dependencies(chart: Path, folder: Path) -> list[Path]:
    """Return the files with CRDs of the chart's dependencies, which are folders or archives."""
    unpacked = folder / "unpacked"
    for archive in (chart / "charts").glob("*.tgz"):
        shutil.unpack_archive(archive, unpacked, filter="data")
    return [*(chart / "charts").glob("*/crds/*.yaml"), *unpacked.glob("*/crds/*.yaml")]


def notes(text: str) -> str:
    """Return the section of the changelog about this version, or about what is not released yet where there is none."""
    sections = dict(re.findall(r"^## \[([^\]]+)\][^\n]*\n(.*?)(?=^## |\Z)", text, flags=re.DOTALL | re.MULTILINE))
    return str(sections.get(version()) or sections["Unreleased"]).strip() + "\n"


def main(arguments: Sequence[str]) -> int:
    """Build the release and print what it consists of."""
    parser = argparse.ArgumentParser(prog="python -m tools.release", description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder of the release (default: dist/)")
    parser.add_argument("--complete", action="store_true", help="fail where a part has to be left out")
    parser.add_argument("--without-image", action="store_true", help="build no image")
    parser.add_argument(
        "--notes", action="store_true", help="print what has changed in this version, and build nothing"
    )
    given = parser.parse_args(arguments)
    if given.notes:
        print(notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")), end="")
        return 0
    release = Release(given.output)
    try:
        release.build(image=not given.without_image)
    except ReleaseError as exc:
        print(exc, file=sys.stderr)
        return 1
    for path in sorted(given.output.iterdir()):
        print(f"{path.stat().st_size:>12,}  {path.name}")
    for sentence in release.left_out:
        print(f"left out: {sentence}", file=sys.stderr)
    return 1 if given.complete and release.left_out else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
