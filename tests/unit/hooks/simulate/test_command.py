"""The command simulate in this process: what cannot be used is a sentence that says what to write."""

import gzip
import io
import json
import sys
from pathlib import Path

import pytest
import yaml

from hooks.__main__ import parser
from hooks.settings import Settings
from hooks.simulate.outcome import Prices
from hooks.simulation import command
from hooks.simulation.arguments import EXAMPLE
from hooks.simulation.command import run
from tests.builders import NOW
from tools.repository import ROOT

MANIFEST = "examples/simulate/queue.yaml"
LOAD = ("--load", "step,from=1,to=1", "--duration", "5s", "--capacity", "600")


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test where the examples are."""
    monkeypatch.chdir(ROOT)


def simulated(*words: str | Path) -> tuple[int, str, str]:
    """Return the exit status, the output, and the lines about what is wrong."""
    output, problems = io.StringIO(), io.StringIO()
    given = parser().parse_args(["simulate", *map(str, words)])
    status = run(given, Settings(), now=NOW, output=output, problems=problems)
    return status, output.getvalue(), problems.getvalue()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("examples/explain/demo.yaml", *LOAD), "it is not known what the metric queue-depth follows: say it with"),
        (
            (MANIFEST, *LOAD, "--metric", "other=cpu"),
            "there is no metric other: the metrics are vllm:num_requests_wait",
        ),
        (
            (MANIFEST, "--trace", "missing.csv", "--capacity", "6"),
            "missing.csv cannot be read: No such file or directory.",
        ),
        ((MANIFEST, "--trace", "docs", "--capacity", "6"), "docs cannot be read: Is a directory."),
        (
            (MANIFEST, *LOAD, "--set", "spec.model.a=1"),
            "--set has no field a for spec.model.a: the manifest has no object",
        ),
        (
            (MANIFEST, *LOAD, "--set", "spec.offloadingConfig.behavior.percentage=101"),
            "--set percentage=101: spec.offloadingConfig.behavior.percentage must be a whole number from 0 to 100",
        ),
        ((MANIFEST, *LOAD, "--max-replicas", "1", "--replicas", "2"), "--max-replicas must be 2 or more, as there are"),
        ((MANIFEST, "--trace", "Makefile", "--capacity", "6", "--prompt-tokens", "5"), "--prompt-tokens is for --load"),
        (("examples/config.yaml", *LOAD), "examples/config.yaml holds something that is not a Kubernetes object"),
        (
            ("examples/manifests/demo-workload.yaml", *LOAD),
            "there is no ModelDeployment in examples/manifests/demo-wor",
        ),
        (
            (MANIFEST, "examples/explain/demo.yaml", *LOAD),
            "one ModelDeployment is simulated, but the files have chat and",
        ),
        ((MANIFEST, *LOAD, "--model", "x"), "there is no ModelDeployment x."),
    ],
)
def test_what_cannot_be_used(words: tuple[str, ...], message: str) -> None:
    """What cannot be used is exit status 2 and one sentence that says what to write, and there is no result."""
    status, output, problems = simulated(*words)
    assert (status, output) == (2, "")
    assert problems.startswith(f"hooks: {message}")
    assert problems.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((MANIFEST, "--capacity", "6"), "one of the arguments --trace --load is required"),
        ((MANIFEST, *LOAD[:-1], "lots"), "argument --capacity: must be a number above 0, not 'lots'"),
        (
            (MANIFEST, "--load", "steady", "--capacity", "6"),
            "argument --load: must begin with step, ramp, diurnal or bu",
        ),
        ((MANIFEST, *LOAD, "--duration", "long"), "argument --duration: must be a length of time such as 30s, 10m or"),
        ((MANIFEST, *LOAD, "--duration", "0"), "argument --duration: must be 1s or more"),
        ((MANIFEST, *LOAD, "--replicas", "0"), "argument --replicas: must be 1 or more"),
        (
            (MANIFEST, *LOAD, "--metric-noise", "200"),
            "argument --metric-noise: must be a percentage from 0 to 100, not",
        ),
        (
            (MANIFEST, *LOAD, "--set", "percentage=5"),
            "argument --set: must be a path and a value, such as spec.offload",
        ),
        ((MANIFEST, *LOAD, "--metric", "a=b"), "argument --metric: must be waiting, running, cache, cpu, or ttft-p90"),
        ((MANIFEST, *LOAD, "--price", "-1"), "argument --price: must be a number from 0, not '-1'"),
    ],
)
def test_arguments(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An argument that cannot be used is exit status 2 and a sentence behind its name."""
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(["simulate", *words])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_an_unknown_field() -> None:
    """A variant with a field that does not exist is refused, for its row would look as if the field had no effect."""
    status, output, problems = simulated(MANIFEST, *LOAD, "--set", "spec.offloadingConfig.behaviour.percentage=1")
    assert (status, output) == (2, "")
    assert problems.splitlines() == [
        '--set behaviour.percentage=1: unknown field "spec.offloadingConfig.behaviour"',
        "hooks: nothing was simulated: correct --set.",
    ]


def test_a_manifest_that_is_not_accepted(tmp_path: Path) -> None:
    """A manifest that cannot be in force is exit status 1 and a sentence that names it."""
    manifest = tmp_path / "model.yaml"
    text = Path(MANIFEST).read_text(encoding="utf-8")
    for good, wrong in (("host: models.example.com", "host: a/b"), ("percentage: 50", "percentage: 500")):
        manifest.write_text(text.replace(good, wrong))
        status, output, problems = simulated(manifest, *LOAD)
        assert (status, output) == (1, "")
        assert problems.startswith("default/chat: ")
    manifest.write_text(text.replace("percentage: 50", 'percentage: "50"'))
    status, _, problems = simulated(manifest, *LOAD)
    assert (status, problems.count("write 50 without quotes")) == (1, 1)


def test_a_remote_backend_is_assumed() -> None:
    """A manifest that leaves the remote backend to the configuration is simulated with some backend, and it is told."""
    status, output, problems = simulated("examples/manifests/demo-server.yaml", *LOAD)
    assert status == 0
    assert "default/demo-server" in output
    assert "so one is assumed." in problems.splitlines()[0]
    assert "spec.offloadingConfig.metrics is empty" in problems.splitlines()[1]


def test_text(tmp_path: Path) -> None:
    """Text has a table, the share over time and its changes; a trace may be compressed."""
    trace = tmp_path / "trace.csv.gz"
    rows = [f"{number / 10},200,100" for number in range(1200)]
    trace.write_bytes(gzip.compress("\n".join(rows).encode()))
    status, output, problems = simulated(MANIFEST, "--trace", trace, "--capacity", "300")
    assert (status, problems) == (0, "")
    lines = output.splitlines()
    assert lines[0] == "default/chat, trace.csv.gz, 1 replica of 300 tokens/s"
    assert lines[1] == "  1,200 requests in 2 min; 240,000 prompt tokens, 120,000 generated"
    assert {"as written", "100 % at the trigger", "never offload"} <= {line[:24].strip() for line in lines}
    assert any(line.endswith("50 %  MetricReached") for line in lines)


def test_the_example_of_the_help() -> None:
    """The first example of the help is the command whose output the page about simulating shows."""
    page = Path("docs/simulate.md").read_text(encoding="utf-8")
    assert f"$ .venv/bin/beamlit-hooks {EXAMPLE}\n" in page


def test_an_autoscaler_keeps_the_replicas() -> None:
    """With an autoscaler --replicas are the least there are, and its cost is that of the hours of the replicas."""
    words = (MANIFEST, "--load", "step,from=0,to=0", "--duration", "30m", "--capacity", "600", "--replicas", "2")
    status, output, _ = simulated(*words, "--max-replicas", "4", "--replica-price", "3", "-o", "json")
    assert status == 0
    assert [one["cost"]["all"] for one in json.loads(output)["results"]] == [3.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("backend", "words", "prices"),
    [
        ("{host: a.example, price: 8, promptPrice: 2}", (), (2, 8)),
        ("{host: a.example, price: 8}", (), (8, 8)),
        ("{host: a.example, promptPrice: 0}", ("--price", "3"), (3, 3)),
        ("{host: a.example, price: 8, promptPrice: 2}", ("--prompt-price", "1"), (1, 8)),
        ("{host: a.example}", (), (0, 0)),
        ("null", (), (5, 4)),
    ],
)
def test_prices_are_those_of_the_remote_backend(backend: str, words: tuple[str, ...], prices: tuple[int, int]) -> None:
    """Without other prices those of the manifest's remote backend count, or of the default one where it names none."""
    given = parser().parse_args(["simulate", MANIFEST, *LOAD, *words])
    settings = Settings.model_validate({"defaultRemoteBackend": {"price": 4, "promptPrice": 5}})
    parent = {"spec": {"offloadingConfig": {"remoteBackend": yaml.safe_load(backend)}}}
    assert command._prices(given, settings, parent) == Prices(*map(float, prices))


def test_one_of_several_models() -> None:
    """Of several ModelDeployments --model chooses one."""
    words = ("examples/explain/demo.yaml", MANIFEST, "--model", "demo", *LOAD)
    status, output, _ = simulated(*words, "--metric", "queue-depth=waiting")
    assert status == 0
    assert output.startswith("default/demo, generated load, 1 replica of 600 tokens/s\n")


def test_without_the_plotting_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without Bokeh --html says how to install it, before anything is simulated."""
    monkeypatch.setitem(sys.modules, "bokeh", None)
    page = tmp_path / "page.html"
    assert simulated(MANIFEST, *LOAD, "--html", page) == (
        2,
        "",
        "hooks: --html needs the plotting library Bokeh: install it with pip install 'beamlit-controller[html]'.\n",
    )
    assert not page.exists()


def test_a_page_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the page cannot be written the result is printed all the same, and the exit status is 2."""
    monkeypatch.setattr(command, "check_library", lambda: None)
    monkeypatch.setattr(command, "as_page", lambda *_, **__: "a page")
    status, output, problems = simulated(MANIFEST, *LOAD, "--html", tmp_path / "missing" / "page.html")
    assert (status, output.splitlines()[0]) == (2, "default/chat, generated load, 1 replica of 600 tokens/s")
    assert problems.endswith("page.html cannot be written: No such file or directory.\n")
