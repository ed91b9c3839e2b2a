"""Metrics from a real Prometheus: what each type of metric means there, and that no expression leaves its namespace."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from hooks import reasons
from hooks.api.metrics import LabelSelector, MetricSpec
from hooks.metrics import MetricSource
from hooks.metrics.confinement import confined
from hooks.metrics.installed import open_sources
from hooks.metrics.promql import Unusable, quoted, selected
from hooks.observation.readings import Reading
from hooks.telemetry import Metrics
from tests.builders import Json
from tests.metric_answers import CPU, external_metric, object_metric, pods_metric
from tests.prometheus import Exporter, Prometheus, informer_of

TRICKY = [
    "plain",
    "a.b",
    "a|b",
    'quote"d',
    "back\\slash",
    "brace}",
    "x=~y",
    "",
    "new\nline",
    "ünï",
    "(a)",
    "^a$",
    "\t",
    "#",
]
"""Values of the label `v` of the series `tricky`, each with its index as its value."""


def line(name: str, value: object, **labels: str) -> str:
    """A sample in Prometheus's text format."""
    escaped = {key: text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for key, text in labels.items()}
    inside = ",".join(f'{key}="{text}"' for key, text in escaped.items())
    return f"{name}{{{inside}}} {value}\n"


def of_namespace(namespace: str, factor: int) -> str:
    """The series of a namespace; the same for each, with other values."""
    text = line("queue", "NaN", namespace=namespace, pod="idle")
    for pod, value in (("p0", 1), ("p1", 2)):
        labels = {"namespace": namespace, "pod": pod}
        text += line("queue", value * factor, **labels)
        text += line("secret_of_" + namespace.replace("-", "_"), value * factor, **labels)
        for container in ("server", "sidecar", "", "POD"):
            text += line("container_memory_working_set_bytes", 2**20 * factor, container=container, **labels)
            text += line("container_cpu_usage_seconds_total", 5 * factor, container=container, **labels)
    return text


def of_nobody() -> str:
    """Series without a namespace, and the values that are hard to say."""
    text = "".join(line("tricky", number, v=value) for number, value in enumerate(TRICKY))
    text += line("loose", 3, model="x") + line("precise", "1234567890.000001") + line("large", "1e+30")
    return text + line("tiny", "2.5e-07") + line("infinite", "+Inf", model="x")


def running(folder: Path, text: str) -> Iterator[Prometheus]:
    """A server that scrapes this, and has for a while."""
    exporter = Exporter(text)
    server = Prometheus(folder, exporter)
    try:
        server.wait_for("queue offset 5s")
        yield server
    finally:
        server.stop()
        exporter.stop()


pytestmark = pytest.mark.xdist_group("prometheus")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A server with the series of two namespaces and of nobody."""
    text = of_namespace("team-a", 1) + of_namespace("team-b", 100) + of_nobody()
    yield from running(tmp_path_factory.mktemp("prometheus"), text)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A server that has the series of team-a and nothing else."""
    yield from running(tmp_path_factory.mktemp("alone"), of_namespace("team-a", 1))


@asynccontextmanager
async def opened(address: str, **prometheus: Any) -> AsyncIterator[MetricSource]:
    """The source that asks this server."""
    async with open_sources(informer_of(address, **prometheus), Metrics()) as sources:
        yield sources.metrics


async def read(source: MetricSource, metric: Json, namespace: str = "team-a") -> Reading:
    """What is read of a metric."""
    return await source.read(MetricSpec.model_validate(metric), namespace, None)


def values(reading: Reading) -> dict[tuple[str, str], str]:
    """Values by pod and container."""
    assert reading.unread is None, reading.unread
    return {(sample.of, sample.container): str(sample.value) for sample in reading.samples}


def reason(reading: Reading) -> str:
    """Why there is no sample."""
    assert reading.samples == ()
    assert reading.unread is not None
    return reading.unread.reason


@pytest.mark.parametrize("label", ["", "namespace"])
async def test_what_each_type_means(server: Prometheus, label: str) -> None:
    """Pods have the label pod, series of other namespaces do not count; an object is one series; External is all."""
    async with opened(server.address, namespaceLabel=label) as source:
        assert values(await read(source, pods_metric("queue"))) == {("p0", ""): "1", ("p1", ""): "2"}
        assert values(await read(source, pods_metric("queue * 10"), "team-b")) == {("p0", ""): "1k", ("p1", ""): "2k"}
        one = await read(source, object_metric("Service", "v1", "it", "sum(queue > 0)"))
        assert values(one) == {("it", ""): "3" if label else "303"}
        every = await read(source, external_metric("queue > 0"))
        assert len(every.samples) == (2 if label else 4)
        assert {sample.of.split(",")[-1] for sample in every.samples} == {"pod=p0", "pod=p1"}


async def test_cpu_and_memory_are_those_of_the_containers(server: Prometheus) -> None:
    """cAdvisor's series of a namespace, without those of the pod as a whole and of its sandbox."""
    target = {"type": "AverageValue", "averageValue": "1"}
    async with opened(server.address, scrapeIntervalSeconds=1) as source:
        memory = await read(source, {"type": "Resource", "resource": {"name": "memory", "target": target}})
        cpu = await read(source, CPU)
    expected = {(pod, container) for pod in ("p0", "p1") for container in ("server", "sidecar")}
    assert values(memory) == dict.fromkeys(expected, "1048576")
    assert values(cpu) == dict.fromkeys(expected, "0")
    assert [{sample.window for sample in one.samples} for one in (memory, cpu)] == [
        {timedelta(seconds=1)},
        {timedelta(seconds=4)},
    ]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("precise", "1234567890000001u"),
        ("large", "1000000000000E"),
        ("tiny", "250n"),
        ("0.1", "100m"),
        ("1 / 3", "333333334n"),
        ("vector(-2)", "-2"),
        ("scalar(loose)", "3"),
    ],
)
async def test_values_are_exact(server: Prometheus, expression: str, expected: str) -> None:
    """As the server prints them, without a float between; scalars and vectors alike."""
    async with opened(server.address) as source:
        reading = await read(source, external_metric(expression))
    (sample,) = reading.samples
    assert str(sample.value) == expected
    assert abs(datetime.now(UTC) - sample.time) < timedelta(seconds=60)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (external_metric("nothing_of_that_name"), None),
        (external_metric("0 / 0"), reasons.NOT_A_NUMBER),
        (external_metric('queue{namespace="team-a"}'), reasons.NOT_A_NUMBER),
        (external_metric("infinite"), reasons.NOT_A_NUMBER),
        (pods_metric("queue{pod='idle'}"), reasons.NOT_A_NUMBER),
        (pods_metric("sum(queue > 0)"), reasons.REFUSED),
        (pods_metric("1"), reasons.REFUSED),
        (external_metric("queue[5m]"), reasons.REFUSED),
        (external_metric('"text"'), reasons.REFUSED),
        (external_metric("sum("), reasons.REFUSED),
        (external_metric("queue * on(namespace) queue"), reasons.REFUSED),
        (external_metric("sum(queue)", selector={"matchLabels": {"a": "b"}}), reasons.REFUSED),
        (external_metric("queue", selector={"matchLabels": {"a.b": "b"}}), reasons.REFUSED),
    ],
)
async def test_what_gives_no_sample(server: Prometheus, metric: Json, expected: str | None) -> None:
    """An empty result is no sample; the rest has its reason."""
    async with opened(server.address) as source:
        reading = await read(source, metric)
    assert reading == Reading() if expected is None else reason(reading) == expected


async def test_what_cannot_be_confined_is_not_sent(server: Prometheus) -> None:
    """With a namespace label; without one the server decides."""
    async with opened(server.address, namespaceLabel="namespace") as source:
        reading = await read(source, external_metric('queue{"namespace"="team-b" or pod="p0"}'))
        assert reason(reading) == reasons.REFUSED
        assert await read(source, {"type": "External"}) == Reading()


async def test_the_window_reaches_as_far_back_as_the_expression(server: Prometheus) -> None:
    """Ranges, subqueries and offsets, and the interval at which the server scrapes."""
    async with opened(server.address) as source:
        for expression, seconds in (
            ("loose", 60),
            ("sum(rate(loose[5s])) + 1", 65),
            ("max_over_time(loose[5s:1s])", 65),
        ):
            (sample,) = (await read(source, external_metric(expression))).samples
            assert sample.window == timedelta(seconds=seconds)


def selectors() -> st.SearchStrategy[Json]:
    """Selectors over the label `v`."""
    chosen = st.lists(st.sampled_from(TRICKY[:7] + TRICKY[8:]), min_size=1, max_size=4, unique=True)
    within = st.builds(
        lambda operator, found: {"key": "v", "operator": operator, "values": found},
        st.sampled_from(["In", "NotIn"]),
        chosen,
    )
    there = st.sampled_from(["Exists", "DoesNotExist"]).map(lambda operator: {"key": "v", "operator": operator})
    return st.lists(within | there, min_size=1, max_size=3).map(lambda found: {"matchExpressions": found})


def selects(selector: Json, value: str) -> bool:
    """Whether a series with this label is selected, as Kubernetes understands it; an empty label is none here."""
    labels = {"v": value} if value else {}
    for one in selector["matchExpressions"]:
        match one["operator"]:
            case "In" if labels.get("v") not in one["values"]:
                return False
            case "NotIn" if labels.get("v") in one["values"]:
                return False
            case "Exists" if not labels:
                return False
            case "DoesNotExist" if labels:
                return False
    return True


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(selector=selectors())
def test_a_selector_as_matchers_selects_the_same(server: Prometheus, selector: Json) -> None:
    """Every operator, with values that mean something in PromQL or in regular expressions."""
    expression = selected("tricky", LabelSelector.model_validate(selector))
    result = server.ask(expression)["data"]["result"]
    assert {int(one["value"][1]) for one in result} == {
        number for number, value in enumerate(TRICKY) if selects(selector, value)
    }


ATOMS = (
    "queue", "secret_of_team_b", '{__name__="secret_of_team_b"}', 'queue{namespace="team-b"}', "loose", "1", "-1 ^ 2",
    '{namespace=~".+"}', 'queue{namespace!="team-a"}', 'queue{pod="p0"}', "queue offset 1s", "queue @ end()",
    "vector(1)",
    '{pod=~"p.*",__name__=~"queue|secret.*"}', "queue{namespace=~`team.b`}", "queue # comment } or b\n", "-queue",
    "sum_over_time(queue[2s:1s])", "rate(queue[2s])", 'label_replace(queue,"namespace","team-b","","")', '{pod="p1"}',
    "container_memory_working_set_bytes{container='server'}", "sum(absent(secret_of_team_b))",
    'sum(absent({namespace="team-b"}))',
    "queue{pod!~'a\\x2e.*'}", 'queue{pod="\\"} or secret_of_team_b{pod=\\""}', "max_over_time(queue[1s] offset 500ms)",
)  # fmt: skip
BINARY = (
    "or", "+", "and", "unless", "> bool", "^", "/", "== bool", "or on()", "- on(pod) group_left(namespace)",
    "* on(pod)",
    "* ignoring(namespace)", "and on(namespace)", "%", "atan2", "!=", "+ ignoring(container) group_right",
)  # fmt: skip
UNARY = (
    "sum({})", "max by (pod) ({})", "topk(5, {})", "count_values('v', {})", "last_over_time(({})[3s:1s])",
    "sort(abs({}))",
    "-({})", "sum({}) without (pod)", "count({}) by (namespace)", "quantile(0.5, {})", "scalar({})", "clamp({}, 0, 3)",
    "label_join({}, 'pod', '-', 'namespace', 'pod')", "group({})", "({}) @ end()", "(({}))", "vector(scalar({}))",
)  # fmt: skip


def expressions() -> st.SearchStrategy[str]:
    """PromQL of some depth; not all of it is valid."""
    return st.recursive(
        st.sampled_from(ATOMS),
        lambda inner: st.one_of(
            st.builds(
                lambda form, one: form.format(one), st.sampled_from(UNARY), inner.filter(lambda one: "{}" not in one)
            ),
            st.builds("({} {} {})".format, inner, st.sampled_from(BINARY), inner),
            st.builds("{} {} {}".format, inner, st.sampled_from(BINARY), inner),
        ),
        max_leaves=4,
    )


def result(answer: Json) -> list[tuple[str, str]] | str:
    """The result of an instant query without its time, in an order of its own; or the kind of its error."""
    if answer["status"] != "success":
        return str(answer["errorType"])
    found = answer["data"]["result"]
    if answer["data"]["resultType"] != "vector":
        return [("", found[1])]
    return sorted((str(sorted(one["metric"].items())), one["value"][1]) for one in found)


def has_teeth(expression: str, server: Prometheus, alone: Prometheus) -> bool:
    """Whether the expression tells the two servers apart."""
    return result(server.ask(expression)) != result(alone.ask(expression))


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(expression=expressions())
def test_no_expression_leaves_its_namespace(server: Prometheus, alone: Prometheus, expression: str) -> None:
    """Whatever is written, the answer is that of a server which has the series of this namespace and nothing else."""
    sent = confined(expression, "namespace", "team-a")
    if isinstance(sent, Unusable):
        assert server.ask(expression)["status"] != "success"
    else:
        event("tells them apart" if has_teeth(expression, server, alone) else "does not")
        assert result(server.ask(sent)) == result(alone.ask(expression))


@pytest.mark.parametrize("expression", ATOMS)
def test_every_way_to_name_a_series_is_confined(server: Prometheus, alone: Prometheus, expression: str) -> None:
    """One by one, and no refusal."""
    sent = confined(expression, "namespace", "team-a")
    assert isinstance(sent, str)
    assert result(server.ask(sent)) == result(alone.ask(expression))


def test_the_expressions_tell_the_servers_apart(server: Prometheus, alone: Prometheus) -> None:
    """Else the tests above could not fail."""
    assert sum(has_teeth(expression, server, alone) for expression in ATOMS) > len(ATOMS) / 2


async def test_a_namespace_with_quotes_is_only_a_value(server: Prometheus) -> None:
    """What a namespace cannot be called would not break out either."""
    sent = confined("queue", "namespace", 'x"} or queue{pod="p0')
    assert isinstance(sent, str)
    assert server.ask(sent)["data"]["result"] == []
    assert server.ask(f"count_values({quoted('v')}, vector(1))")["status"] == "success"


async def test_basic_authentication_behind_a_path(tmp_path: Path) -> None:
    """Both files are read again when they change; a wrong password is Forbidden, and is in no message."""
    exporter = Exporter(line("loose", 3))
    hash_of_s3cret = "$2b$04$RAL8qCHBZsk5/ebapou4LuX97voUDNPPGoLY5rKvJju5fiQ4T0iry"
    server = Prometheus(tmp_path, exporter, web={"basic_auth_users": {"ada": hash_of_s3cret}}, prefix="/some/path")
    (tmp_path / "user").write_text("ada\n")
    (tmp_path / "password").write_text("canary")
    files = {"usernameFile": str(tmp_path / "user"), "passwordFile": str(tmp_path / "password")}
    try:
        server.wait_until_it_listens()
        async with opened(f"http://{server.address}/", **files) as source:
            refused = await read(source, external_metric("vector(1)"))
            assert reason(refused) == reasons.FORBIDDEN
            assert "canary" not in str(refused)
            (tmp_path / "password").write_text("s3cret\n")
            assert values(await read(source, external_metric("vector(2)"))) == {("", ""): "2"}
        async with opened(server.address.removesuffix("/path")) as source:
            assert reason(await read(source, external_metric("vector(1)"))) == reasons.FORBIDDEN
    finally:
        server.stop()
        exporter.stop()
