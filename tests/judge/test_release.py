"""What a release consists of, built as `make release` builds it, but for the image."""

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.chart.helm import METACONTROLLER_CHART
from tests.deadlines import SECONDS
from tests.judge.conftest import needed
from tests.judge.test_chart import unfit
from tools.release import NAME, notes
from tools.repository import ROOT
from tools.version import PLACES, version

VERSION: Final = version()


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a release without the image."""
    needed("helm")
    output = tmp_path_factory.mktemp("release") / "dist"
    command = [sys.executable, "-m", "tools.release", "--without-image", "--output", str(output)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=5 * SECONDS)
    assert result.returncode == 0, result.stderr
    return output


def manifests(release: Path, name: str) -> list[dict[str, Any]]:
    """Return the objects in a file of the release."""
    loaded = yaml.load_all((release / name).read_text(encoding="utf-8"), yaml.CSafeLoader)
    return [one for one in loaded if one]


def test_every_file_has_its_checksum(release: Path) -> None:
    """`sha256sum --check` finds every file of the release, and there is no other."""
    result = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=release, capture_output=True, text=True, check=True
    )
    checked = set(re.findall(r"^(.*): OK$", result.stdout, re.MULTILINE))
    assert checked == {path.name for path in release.iterdir()} - {"SHA256SUMS"}
    assert {"crds.yaml", "install.yaml"} < checked


def test_the_python_packages(release: Path) -> None:
    """The wheel has the two programs and what they share, the files of the page too, and nothing else; a wheel can be
    built from the sdist."""
    (wheel,) = release.glob("*.whl")
    files = set(zipfile.ZipFile(wheel).namelist())
    folders = {name.partition("/")[0] for name in files}
    assert folders == {"hooks", "gateway", "program", f"beamlit_controller-{VERSION}.dist-info"}
    page = {one.relative_to(ROOT).as_posix() for one in (ROOT / "gateway/page").rglob("*.*") if one.suffix != ".pyc"}
    assert {"gateway/page/templates/page.html", "gateway/page/static/page.css"} <= page <= files
    (sdist,) = release.glob("beamlit_controller-*.tar.gz")
    with tarfile.open(sdist) as content:
        names = {name.partition("/")[2].partition("/")[0] for name in content.getnames()}
    assert {"hooks", "gateway", "program", "pyproject.toml", "README.md", "LICENSE"} <= names
    assert not names & {"tests", "docs", "benchmarks", "uv.lock"}


def test_the_package_of_the_chart(release: Path) -> None:
    """The package has the chart's name, version and CRDs, and says in its version what it does not have."""
    (package,) = release.glob("beamlit-controller-chart-*.tgz")
    with tarfile.open(package) as content:
        names = content.getnames()
        file = content.extractfile("beamlit-controller-chart/Chart.yaml")
        assert file is not None
        metadata = yaml.safe_load(file.read())
    found = {one["name"] for one in metadata.get("dependencies") or ()}
    present = {name.split("/")[2] for name in names if name.startswith("beamlit-controller-chart/charts/")}
    assert {name.partition("-0.")[0] for name in present} >= found
    plain, _, without = metadata["version"].partition("+without-")
    assert (plain, metadata["appVersion"]) == (VERSION, VERSION)
    assert bool(without) is (len(found) < 2)
    assert ("metacontroller-helm" in found) >= bool(os.environ.get(METACONTROLLER_CHART))
    assert len([name for name in names if "/crds/" in name]) >= 2


def test_the_manifests_for_people_without_helm(release: Path, schemas: str) -> None:
    """install.yaml has everything but the CRDs, fits the schemas, and has no key, no password and no hook of Helm."""
    objects = manifests(release, "install.yaml")
    assert (objects[0]["kind"], objects[0]["metadata"]["name"]) == ("Namespace", "beamlit-system")
    names = {(one["kind"], one["metadata"]["name"]) for one in objects}
    assert {("Deployment", f"{NAME}-hooks"), ("Deployment", f"{NAME}-gateway")} < names
    assert len([one for one in objects if one["kind"] == "CompositeController"]) == 2
    assert ("ValidatingAdmissionPolicy" in {kind for kind, _ in names}) is True
    assert not [one for one in objects if one["kind"] == "Secret"]
    text = (release / "install.yaml").read_text(encoding="utf-8")
    assert "PRIVATE KEY" not in text
    assert "helm.sh/hook:" not in text
    assert unfit(schemas, release / "install.yaml", release / "crds.yaml") == {}


def test_the_documented_certificate(tmp_path: Path) -> None:
    """The certificate of the page is valid for both names of hooks, by the authority that goes into the ConfigMap."""
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8").rpartition("## Without Helm")[2]
    (command,) = re.findall(r"^name=.*?keyCertSign$", page, re.DOTALL | re.MULTILINE)
    subprocess.run(["bash", "-e", "-c", command], cwd=tmp_path, check=True, capture_output=True)
    for name in ("", ".cluster.local"):
        flags = ("-CAfile", "tls.crt", "-verify_hostname", f"beamlit-controller-hooks.beamlit-system.svc{name}")
        result = subprocess.run(
            ["openssl", "verify", *flags, "tls.crt"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert result.stdout == "tls.crt: OK\n", result.stderr


def test_the_crds(release: Path) -> None:
    """crds.yaml has the CRDs of this project, and Metacontroller's where its chart is there."""
    names = {one["metadata"]["name"] for one in manifests(release, "crds.yaml")}
    assert {"modeldeployments.deployment.beamlit.com", "policies.authorization.beamlit.com"} <= names
    if os.environ.get(METACONTROLLER_CHART):
        assert "compositecontrollers.metacontroller.k8s.io" in names


def test_the_bill_of_materials(release: Path) -> None:
    """The bill of materials has every direct dependency with a version, and no tool of developers."""
    paths = list(release.glob("*.cdx.json"))
    if not paths and not os.environ.get("CYCLONEDX"):
        pytest.skip("cyclonedx-py is missing: `make judge` brings it")
    bill = json.loads(paths[0].read_text(encoding="utf-8"))
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == NAME
    components = {one["name"].lower() for one in bill["components"] if one["version"]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.split(r"[><= ;]", one)[0] for one in project["dependencies"]} - {"backports-zstd"}
    assert wanted <= components
    assert not components & {"pytest", "mypy", "ruff", "mkdocs", "zizmor"}


def test_the_version_is_in_one_place() -> None:
    """Every file that has the version is written from pyproject.toml, and no other file of the product has it."""
    tracked = subprocess.run(
        ["git", "grep", "-lF", f"{VERSION}", "--", ":!uv.lock", ":!tests", ":!CHANGELOG.md", ":!docs"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert set(tracked) == {*PLACES, "pyproject.toml"}


def test_the_notes_of_a_release() -> None:
    """The notes are the section of the changelog about this version; before there is one, what is not released yet."""
    text = f"# Changelog\n\n## [Unreleased]\n\n- new\n\n## [{VERSION}] - 2030-01-01\n\n- this\n\n## [0.0.1]\n\n- old\n"
    assert notes(text) == "- this\n"
    assert notes(text.replace(f"[{VERSION}]", "[9.9.9]")) == "- new\n"
