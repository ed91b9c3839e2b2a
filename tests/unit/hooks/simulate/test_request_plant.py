"""The plant of requests: exact small worlds, and what must hold in every one of them."""

from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hooks.api.metrics import MetricSpec
from hooks.kube.objects import Object
from hooks.offloading.measures import Measured, Missing, measure_all
from hooks.simulate.autoscaler import Autoscaler
from hooks.simulate.plant import Pipeline
from hooks.simulate.request_plant import Engine, RequestPlant
from hooks.simulate.requests import Request
from tests import builders
from tests.unit.hooks.simulate.worlds import CPU, WAITING, plant_of, ran

ONE_PLACE = Engine(speed=10, batch=1, prompt_speed=100)
"""A replica that serves one request at a time: 100 tokens of a prompt take a second, each further token 0.1 s."""


def ratio(plant: RequestPlant, metric: Object) -> Fraction | str:
    """Return the ratio of a metric to its target that can be read now, or the reason why there is none."""
    spec = MetricSpec.model_validate(metric)
    now = builders.NOW + timedelta(seconds=plant.now)
    (one,) = measure_all([spec], plant.readings([spec]), ready_replicas=plant.ready, now=now)
    assert isinstance(one, Measured | Missing)
    return one.ratio if isinstance(one, Measured) else one.reason


def test_one_request() -> None:
    """The first token of a request is there when its prompt is processed, and the rest follows at a place's speed."""
    plant = ran(plant_of([Request(2.0, 100, 31)], ONE_PLACE), 10)
    assert (plant.first_tokens, plant.ends) == ([1.0], [6.0])


def test_a_request_waits_for_a_place() -> None:
    """A request that finds no place begins when the one before it ends, and its wait is part of its time."""
    plant = ran(plant_of([Request(0.0, 100, 31), Request(1.0, 100, 11), Request(1.5, 200, 1)], ONE_PLACE), 20)
    assert plant.ends == pytest.approx([4.0, 6.0, 8.0])
    assert plant.first_tokens == pytest.approx([1.0, 4.0, 6.5])


def test_a_batch_shares_prompts_in_turn() -> None:
    """Requests in one batch generate side by side, while their prompts are processed one after the other."""
    engine = Engine(speed=20, batch=2, prompt_speed=100)
    plant = ran(plant_of([Request(0.0, 100, 11), Request(0.0, 100, 11)], engine), 10)
    assert plant.first_tokens == [1.0, 2.0]
    assert plant.ends == [2.0, 3.0]


def test_the_replica_with_the_fewest_requests() -> None:
    """A request goes to the replica with the fewest requests."""
    plant = ran(plant_of([Request(0.0, 100, 1), Request(0.0, 100, 1)], ONE_PLACE, replicas=2), 5)
    assert plant.first_tokens == [1.0, 1.0]


def test_a_full_batch_generates_at_the_speed_of_the_replica() -> None:
    """A replica with a full batch generates as many tokens in a second as it was said to."""
    engine = Engine(speed=320, batch=32, prompt_speed=1e9)
    requests = [Request(0.0, 1, 11)] * 3200
    plant = ran(plant_of(requests, engine), 200)
    assert max(plant.ends) == pytest.approx(3200 * 10 / 320, rel=0.001)


def test_the_cache_limits_the_batch() -> None:
    """A request waits until the cache has room for its prompt, and one that is too large is served alone."""
    engine = Engine(speed=20, batch=2, prompt_speed=100, cache=150)
    plant = ran(plant_of([Request(0.0, 100, 11), Request(0.0, 100, 11), Request(0.5, 300, 1)], engine), 20)
    assert plant.first_tokens == pytest.approx([1.0, 3.0, 6.5])


@pytest.mark.parametrize("share", [0, 1, 25, 33, 50, 99, 100])
def test_the_split_is_exact(share: int) -> None:
    """Of any number of requests the share goes away, give or take one."""
    plant = plant_of([Request(float(number + 5), 1, 1) for number in range(200)], Engine(1e6))
    plant.split(share)
    ran(plant, 210)
    for count in range(1, 201):
        assert abs(sum(plant.remote[:count]) - count * share / 100) < 1


def test_remote_requests() -> None:
    """A request that goes away has its first token as soon as the remote backend has it."""
    plant = plant_of([Request(5.0, 1, 1)], ONE_PLACE, remote_first_token=0.7)
    plant.split(100)
    ran(plant, 10)
    assert (plant.first_tokens, plant.ends, list(plant.remote)) == ([0.7], [5.7], [1])


def test_overflow() -> None:
    """With overflow a request goes away alone when as many as the limit are in the replicas."""
    requests = [Request(0.0, 100, 1), Request(0.1, 100, 1), Request(0.2, 100, 1), Request(2.5, 100, 1)]
    plant = ran(plant_of(requests, ONE_PLACE, overflow=2), 10)
    assert list(plant.remote) == [0, 0, 1, 0]


def test_a_metric_of_requests_that_wait() -> None:
    """The number of waiting requests is that of the moment of the scrape, and can be read after the delay."""
    requests = [Request(1.0, 100, 1000)] * 11
    plant = plant_of(requests, ONE_PLACE, WAITING, pipeline=Pipeline(period=15, delay=10), replicas=1)
    for _ in range(24):
        plant.tick()
    assert ratio(plant, WAITING) == "NoSample"
    plant.tick()
    assert ratio(plant, WAITING) == 2


def test_cpu_is_an_average() -> None:
    """Use of cpu follows the places that are taken, as an average over the period, and has an idle part."""
    engine = Engine(speed=20, batch=2, prompt_speed=1e9, cores=4, idle=0.2)
    plant = plant_of([Request(0.0, 1, 1001)], engine, CPU)
    for _ in range(15):
        plant.tick()
    assert ratio(plant, CPU) == Fraction("0.6") / Fraction("0.8")


def test_a_quantile_without_traffic() -> None:
    """A quantile of first tokens is that of the last minute, and is not a number when there was none."""
    name = "histogram_quantile(0.9, sum by (le) (rate(vllm:time_to_first_token_seconds_bucket[1m])))"
    metric = {"type": "External", "external": {"metric": {"name": name}, "target": {"type": "Value", "value": 2}}}
    plant = plant_of([Request(float(number), 100, 1) for number in range(10)], ONE_PLACE, metric)
    for _ in range(15):
        plant.tick()
    assert ratio(plant, metric) == Fraction(1, 2)
    for _ in range(75):
        plant.tick()
    assert ratio(plant, metric) == "NotANumber"
    assert plant.readings(()).metrics[0].without_traffic[0].value.nanos == 0


def test_an_autoscaler() -> None:
    """An autoscaler adds replicas that are ready after their start, and takes them away when the load is gone."""
    requests = [Request(number / 2, 100, 11) for number in range(600)]
    autoscaler = Autoscaler(target=0.5, most=3, startup=60)
    plant = plant_of(requests, ONE_PLACE, WAITING, autoscaler=autoscaler)
    ready = []
    for _ in range(1500):
        plant.tick()
        ready.append(plant.ready)
    assert (ready[0], max(ready), ready[-1]) == (1, 3, 1)
    first = next(number for number, count in enumerate(ready) if count > 1)
    assert first >= 60
    plant.drain()
    assert all(end < float("inf") for end in plant.ends)


def test_two_events_for_each_request() -> None:
    """A request of many tokens costs as many events as one of few: none is left once it has ended."""
    plant = ran(plant_of([Request(0.0, 10, 1_000_000)], Engine(1000, batch=1)), 5)
    assert plant.ends[0] == pytest.approx(1000, rel=0.01)
    assert plant.now == 5


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 50), st.integers(0, 2000), st.integers(0, 300)), max_size=60),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([None, 500]),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 100)), max_size=4),
)
def test_nothing_is_lost(
    rows: list[tuple[float, int, int]],
    batch: int,
    replicas: int,
    cache: int | None,
    splits: list[tuple[int, int]],
) -> None:
    """Every request is local or remote, begins after its arrival and ends after its beginning. No replica has more
    requests than its batch, and those that came and did not end are the ones that are in the replicas."""
    requests = [Request(*row) for row in sorted(rows)]
    plant = plant_of(requests, Engine(100, batch, 1000, cache), replicas=replicas)
    shares = dict(splits)
    while plant.now < 60:
        if int(plant.now) in shares:
            plant.split(shares[int(plant.now)])
        plant.tick()
        moment = plant.moments[-1]
        assert moment.running <= batch * replicas
        left = sum(plant.ends[number] > plant.now and not plant.remote[number] for number in range(plant.arrived))
        assert left == moment.running + moment.waiting
    plant.drain()
    assert plant.arrived == len(requests)
    for number, request in enumerate(requests):
        assert 0 <= plant.first_tokens[number] < float("inf")
        assert plant.ends[number] >= request.time + plant.first_tokens[number] - 1e-9
