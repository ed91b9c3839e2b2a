"""Metrics from a real Prometheus server: what each type of metric reads, and that expressions stay in a namespace."""

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
from hooks.metrics.promql import ExpressionUnusable, quoted, selected
from hooks.observation.readings import Reading
from hooks.telemetry import Metrics
from tests.builders import Json
from tests.metric_responses import CPU, external_metric, object_metric, pods_metric
from tests.prometheus import Prometheus, informer_of, series

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
"""Values of the label `v` in the series `tricky`. The value of each series is the index here."""


def series_of(namespace: str, factor: int) -> list[str]:
    """Return the series of a namespace; those of another differ in their values alone."""
    result = [series("queue", "NaN", namespace=namespace, pod="idle")]
    for pod, value in (("p0", 1), ("p1", 2)):
        labels = {"namespace": namespace, "pod": pod}
        result.append(series("queue", value * factor, **labels))
        result.append(series("secret_of_" + namespace.replace("-", "_"), value * factor, **labels))
        for container in ("server", "sidecar", "", "POD"):
            names = {"container": container, **labels}
            result.append(series("container_memory_working_set_bytes", 2**20 * factor, **names))
            result.append(series("container_cpu_usage_seconds_total", 5 * factor, **names))
    return result


def series_without_namespace() -> list[str]:
    """Return series without a namespace, among them values that are hard to write."""
    return [
        *(series("tricky", number, v=value) for number, value in enumerate(TRICKY)),
        series("loose", 3, model="x"),
        series("precise", "1234567890.000001"),
        series("large", "1e+30"),
        series("tiny", "2.5e-07"),
        series("infinite", "+Inf", model="x"),
    ]


pytestmark = pytest.mark.xdist_group("prometheus")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Yield a server with the series of two namespaces, and with series without a namespace."""
    every = [*series_of("team-a", 1), *series_of("team-b", 100), *series_without_namespace()]
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), every)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Yield a server with the series of team-a and no others."""
    server = Prometheus(tmp_path_factory.mktemp("alone"), series_of("team-a", 1))
    yield server
    server.stop()


@asynccontextmanager
async def opened(address: str, **prometheus: Any) -> AsyncIterator[MetricSource]:
    """Open the source of metrics that reads from a server."""
    async with open_sources(informer_of(address, **prometheus), Metrics()) as sources:
        yield sources.metrics


async def read(source: MetricSource, metric: Json, namespace: str = "team-a") -> Reading:
    """Return the reading of a metric."""
    return await source.read(MetricSpec.model_validate(metric), namespace, None)


def values(reading: Reading) -> dict[tuple[str, str], str]:
    """Return the values of a reading by pod and container."""
    assert reading.unread is None, reading.unread
    return {(sample.of, sample.container): str(sample.value) for sample in reading.samples}


def reason(reading: Reading) -> str:
    """Return the reason why a reading has no sample."""
    assert reading.samples == ()
    assert reading.unread is not None
    return reading.unread.reason


@pytest.mark.parametrize("label", ["", "namespace"])
async def test_what_each_type_means(server: Prometheus, label: str) -> None:
    """Pods are the series of a namespace with a label pod, an object is one series, and External is every series."""
    async with opened(server.address, namespaceLabel=label) as source:
        assert values(await read(source, pods_metric("queue"))) == {("p0", ""): "1", ("p1", ""): "2"}
        assert values(await read(source, pods_metric("queue * 10"), "team-b")) == {("p0", ""): "1k", ("p1", ""): "2k"}
        one = await read(source, object_metric("Service", "v1", "it", "sum(queue > 0)"))
        assert values(one) == {("it", ""): "3" if label else "303"}
        every = await read(source, external_metric("queue > 0"))
        assert len(every.samples) == (2 if label else 4)
        assert {sample.of.split(",")[-1] for sample in every.samples} == {"pod=p0", "pod=p1"}


async def test_cpu_and_memory_are_those_of_the_containers(server: Prometheus) -> None:
    """cpu and memory are the series of cAdvisor for containers, without those of a whole pod and of its sandbox."""
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
    """A value is exact, as the server prints it: no float is between. That holds for scalars and for vectors."""
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
async def test_a_metric_without_a_sample_has_a_reason(server: Prometheus, metric: Json, expected: str | None) -> None:
    """An empty result gives no sample; a result or an expression that cannot be used gives the reason."""
    async with opened(server.address) as source:
        reading = await read(source, metric)
    assert reading == Reading() if expected is None else reason(reading) == expected


async def test_an_expression_that_cannot_be_confined_is_not_sent(server: Prometheus) -> None:
    """With a namespace label, an expression that cannot be confined is refused before it is sent."""
    async with opened(server.address, namespaceLabel="namespace") as source:
        reading = await read(source, external_metric('queue{"namespace"="team-b" or pod="p0"}'))
        assert reason(reading) == reasons.REFUSED
        assert await read(source, {"type": "External"}) == Reading()


async def test_the_window_reaches_as_far_back_as_the_expression(server: Prometheus) -> None:
    """The window of a sample is what the expression reads back, and the interval at which the server scrapes."""
    async with opened(server.address) as source:
        for expression, seconds in (
            ("loose", 60),
            ("sum(rate(loose[5s])) + 1", 65),
            ("max_over_time(loose[5s:1s])", 65),
        ):
            (sample,) = (await read(source, external_metric(expression))).samples
            assert sample.window == timedelta(seconds=seconds)


def selectors() -> st.SearchStrategy[Json]:
    """Return selectors over the label `v`."""
    chosen = st.lists(st.sampled_from(TRICKY[:7] + TRICKY[8:]), min_size=1, max_size=4, unique=True)
    within = st.builds(
        lambda operator, values: {"key": "v", "operator": operator, "values": values},
        st.sampled_from(["In", "NotIn"]),
        chosen,
    )
    there = st.sampled_from(["Exists", "DoesNotExist"]).map(lambda operator: {"key": "v", "operator": operator})
    return st.lists(within | there, min_size=1, max_size=3).map(lambda every: {"matchExpressions": every})


def selects(selector: Json, value: str) -> bool:
    """Return whether a selector of Kubernetes matches a series with a value of `v`, which is absent when empty."""
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
    """A selector matches the same series as PromQL matchers, although its values mean something in PromQL or in RE2."""
    expression = selected("tricky", LabelSelector.model_validate(selector))
    result = server.query(expression)["data"]["result"]
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
    """Return PromQL expressions of some depth, not all of them valid."""
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


def result(response: Json) -> list[tuple[str, str]] | str:
    """Return the result of an instant query without its time, sorted; or the kind of its error."""
    if response["status"] != "success":
        return str(response["errorType"])
    content = response["data"]["result"]
    if response["data"]["resultType"] != "vector":
        return [("", content[1])]
    return sorted((str(sorted(one["metric"].items())), one["value"][1]) for one in content)


def has_teeth(expression: str, server: Prometheus, alone: Prometheus) -> bool:
    """Return whether an expression has other results on the two servers."""
    return result(server.query(expression)) != result(alone.query(expression))


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(expression=expressions())
def test_no_expression_leaves_its_namespace(server: Prometheus, alone: Prometheus, expression: str) -> None:
    """A confined expression has the result that it has on a server with the series of the namespace alone."""
    sent = confined(expression, "namespace", "team-a")
    if isinstance(sent, ExpressionUnusable):
        assert server.query(expression)["status"] != "success"
    else:
        event("tells them apart" if has_teeth(expression, server, alone) else "does not")
        assert result(server.query(sent)) == result(alone.query(expression))


@pytest.mark.parametrize("expression", ATOMS)
def test_every_way_to_name_a_series_is_confined(server: Prometheus, alone: Prometheus, expression: str) -> None:
    """Every way to name a series can be confined, and is."""
    sent = confined(expression, "namespace", "team-a")
    assert isinstance(sent, str)
    assert result(server.query(sent)) == result(alone.query(expression))


def test_the_expressions_tell_the_servers_apart(server: Prometheus, alone: Prometheus) -> None:
    """Most of the expressions have other results on the two servers, so that the tests above can fail."""
    assert sum(has_teeth(expression, server, alone) for expression in ATOMS) > len(ATOMS) / 2


async def test_a_namespace_with_quotes_is_only_a_value(server: Prometheus) -> None:
    """A namespace with quotes in its name, which Kubernetes does not allow, would not leave its matcher either."""
    sent = confined("queue", "namespace", 'x"} or queue{pod="p0')
    assert isinstance(sent, str)
    assert server.query(sent)["data"]["result"] == []
    assert server.query(f"count_values({quoted('v')}, vector(1))")["status"] == "success"


async def test_basic_authentication_behind_a_path(tmp_path: Path) -> None:
    """User and password are read again when their files change; a wrong password is Forbidden, and in no message."""
    hash_of_s3cret = "$2b$04$RAL8qCHBZsk5/ebapou4LuX97voUDNPPGoLY5rKvJju5fiQ4T0iry"
    server = Prometheus(
        tmp_path, [series("loose", 3)], web={"basic_auth_users": {"ada": hash_of_s3cret}}, prefix="/some/path"
    )
    (tmp_path / "user").write_text("ada\n")
    (tmp_path / "password").write_text("canary")
    files = {"usernameFile": str(tmp_path / "user"), "passwordFile": str(tmp_path / "password")}
    try:
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
