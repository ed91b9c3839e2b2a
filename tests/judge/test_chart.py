"""The chart and the manifests of the repository, judged by programs of others.

`ignored.yaml` has everything that they complain about and that stays as it is, each with the reason.
"""

import json
import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.chart.helm import METACONTROLLER_CRDS, helm
from tests.chart.test_chart import PRESETS
from tests.chart.test_docs import helm_commands, values_files
from tests.deadlines import SECONDS
from tests.judge.conftest import needed
from tools.repository import ROOT

IGNORED: Final = yaml.safe_load(Path(__file__).with_name("ignored.yaml").read_text(encoding="utf-8"))
FULL_GRADE: Final = 10
"""Grade that kube-score gives where it has nothing to say."""
_OURS: Final = "# Source: beamlit-controller-chart/templates/"


def combinations(folder: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield every combination of values that the tests and the pages have, by a name, as flags of helm."""
    yield from PRESETS.items()
    for number, words in enumerate(helm_commands()):
        flags = [
            word
            for flag, value in zip(words, [*words[1:], ""], strict=True)
            if flag.startswith("--set")
            for word in (flag, value)
        ]
        yield f"command-{number}", tuple(flags)
    for name, block in values_files().items():
        path = folder / f"values-{name.replace('/', '-')}.yaml"
        path.write_text(block)
        yield path.stem, ("--values", str(path))


@pytest.fixture(scope="module")
def rendered(chart: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the chart itself renders to, in a file for each combination of values."""
    folder = tmp_path_factory.mktemp("rendered")
    beside = tmp_path_factory.mktemp("beside")
    (beside / "ca.crt").write_text("PEM")
    before = Path.cwd()
    os.chdir(beside)
    try:
        for name, words in combinations(beside):
            text = helm("template", "beamlit", str(chart), "--kube-version", "1.36.0", "--namespace", "sys", *words)
            documents = re.split(r"^---\n", text, flags=re.MULTILINE)
            ours = [document for document in documents if document.startswith(_OURS)]
            (folder / f"{name.replace(' ', '-')}.yaml").write_text("---\n" + "---\n".join(ours))
    finally:
        os.chdir(before)
    return folder


def unfit(schemas: str, *paths: Path) -> dict[str, str]:
    """Return what kubeconform says about the objects in files and folders that do not fit their schemas, by object."""
    ignored = set(IGNORED["kubeconform"])
    if os.environ.get(METACONTROLLER_CRDS):
        ignored.discard("CompositeController")
    skip = ("-skip", ",".join(sorted(ignored)))
    command = [needed("kubeconform"), "-strict", "-output", "json", "-summary", *skip, "-schema-location", schemas]
    result = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, timeout=SECONDS)
    report = json.loads(result.stdout)
    assert report["summary"]["valid"] + report["summary"]["invalid"] > 0, result
    return {f"{Path(one['filename']).name}: {one['kind']}/{one['name']}": one["msg"] for one in report["resources"]}


def test_helm_has_no_complaint(chart: Path) -> None:
    """`helm lint --strict` complains about no combination of values that the tests have."""
    for words in PRESETS.values():
        values = [word for word in words if not word.startswith("--api-versions")]
        assert "0 chart(s) failed" in helm("lint", "--strict", "--kube-version", "1.36.0", str(chart), *values)


def test_objects_of_the_chart_fit_their_schemas(rendered: Path, schemas: str) -> None:
    """Every object of every combination fits the schema that the API server publishes, with no unknown key."""
    assert len(list(rendered.iterdir())) > 20
    assert unfit(schemas, rendered) == {}


def test_manifests_of_the_repository_fit_their_schemas(schemas: str) -> None:
    """CRDs, examples and the manifests for `kubectl apply -k` fit the schemas as well."""
    metacontroller = [path for path in (ROOT / "metacontroller").glob("*.yaml") if path.stem != "kustomization"]
    assert unfit(schemas, ROOT / "crds", ROOT / "examples/manifests", *metacontroller) == {}


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("Deployment", "replicas: 2", "replica: 2"),
        ("Service", "port: 80", "port: http"),
        ("PodDisruptionBudget", "maxUnavailable: 1", "maxUnavailable: [1]"),
        ("ModelDeployment", "model: tiny-remote", "model: 5"),
    ],
)
def test_an_object_that_does_not_fit(
    kind: str, old: str, new: str, rendered: Path, schemas: str, tmp_path: Path
) -> None:
    """An unknown key or a value of another type is found, so the tests above can fail."""
    source = ROOT / "examples/manifests/demo.yaml" if kind == "ModelDeployment" else rendered / "default.yaml"
    text = source.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "bad.yaml").write_text(text.replace(old, new))
    assert any(f": {kind}/" in place for place in unfit(schemas, tmp_path))


def complaints(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield check, kind and text of everything that kube-score says about a file."""
    command = [needed("kube-score"), "score", "--output-format", "json", "--kubernetes-version", "v1.36", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    for one in json.loads(result.stdout):
        for check in one["checks"]:
            if check["grade"] < FULL_GRADE and not check["skipped"]:
                comments = "; ".join(f"{comment['path']} {comment['summary']}" for comment in check["comments"] or ())
                yield check["check"]["id"], one["type_meta"]["kind"], f"{one['object_name']}: {comments}"


def test_kube_score_has_no_complaint(rendered: Path) -> None:
    """kube-score complains about nothing but what ignored.yaml lists, and everything that is listed there comes up."""
    ignored: Mapping[str, Any] = IGNORED["kube-score"]
    expected = {(check, kind) for check, entry in ignored.items() for kind in entry["kinds"]}
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for path in sorted(rendered.iterdir()):
        for check, kind, text in complaints(path):
            found[check, kind].add(f"{path.stem}: {text}")
    assert {key: texts for key, texts in found.items() if key not in expected} == {}
    assert expected - found.keys() == set(), "nothing of this comes up any more: take it out of ignored.yaml"
    assert all(entry["why"].endswith(".") for entry in ignored.values())
