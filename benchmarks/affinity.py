"""Affinity on a trace: how much of the prompts the caches of the pods have, by how a pod is chosen for each request.

The requests are those of a conversation service in an hour, whose prompts are blocks of 512 tokens; blocks have the
same number where they, and all before them, are the same. `PODS` pods have a cache of `CACHE_BLOCKS` blocks each, from
which what was used the longest ago is dropped; of what a prompt and its cache have in common only the beginning counts.
"""

import csv
import gzip
import hashlib
import heapq
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from gateway.backends.affinity import BLOCK_BYTES, KEY_BYTES, PrefixIndex, preferred
from tools.repository import ROOT

TRACE: Final = ROOT / "examples/traces/mooncake-conversation.csv.gz"
PODS: Final = 8
CACHE_BLOCKS: Final = 2000
"""Blocks of the cache of one pod: a million tokens."""
BLOCK_SECONDS: Final = 0.05
"""Seconds that a pod needs for a block that its cache does not have."""
TOKEN_SECONDS: Final = 0.03
"""Seconds that a pod needs for a token of a response."""
FIRST_BLOCKS: Final = 2
"""Blocks that tell a conversation: the first one is the same in all of them."""


class Request(NamedTuple):
    """Request of the trace."""

    at: float
    """Seconds since the beginning."""
    tokens: int
    """Tokens of its response."""
    blocks: tuple[int, ...]
    """Blocks of its prompt."""

    @property
    def key(self) -> bytes:
        """Key of its conversation."""
        first = repr(self.blocks[:FIRST_BLOCKS]).encode()
        return hashlib.blake2b(first, digest_size=KEY_BYTES).digest()


class SimulatedPod:
    """Pod with its cache."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.in_flight = 0
        self.requests = 0
        self.seconds = 0.0
        """Seconds of work that it got."""
        self._size = size
        self._cache: dict[int, None] = {}

    def serve(self, request: Request) -> int:
        """Serve a request; return how many blocks of its beginning were in the cache."""
        cache, hits = self._cache, 0
        for block in request.blocks:
            if block not in cache:
                break
            hits += 1
        for block in reversed(request.blocks):  # the end of a prompt goes before its beginning
            cache.pop(block, None)
            cache[block] = None
        while len(cache) > self._size:
            del cache[next(iter(cache))]
        self.requests += 1
        self.seconds += self.seconds_of(request, hits)
        return hits

    @staticmethod
    def seconds_of(request: Request, hits: int) -> float:
        """Return how long a request takes of which so many blocks are in the cache."""
        return BLOCK_SECONDS * (len(request.blocks) - hits) + TOKEN_SECONDS * request.tokens


Chooser = Callable[[Sequence[SimulatedPod], Request], SimulatedPod]


class Outcome(NamedTuple):
    """What came of a way to choose pods."""

    hit_rate: float
    """Share of all blocks that were in the cache of the pod."""
    busiest: float
    """Requests or seconds of work of the busiest pod, whichever is worse, as multiples of the mean."""


def read_trace(path: Path = TRACE, limit: int | None = None) -> list[Request]:
    """Return the first requests of the trace, by default all of them."""
    requests: list[Request] = []
    with gzip.open(path, "rt", encoding="ascii") as file:
        for row in csv.DictReader(file):
            requests.append(
                Request(int(row["milliseconds"]) / 1000, int(row["output_tokens"]), (*_blocks(row["blocks"]),))
            )
            if len(requests) == limit:
                break
    return requests


def _blocks(runs: str) -> Iterator[int]:
    """Yield the blocks of a prompt, which are written as runs of consecutive numbers."""
    for run in runs.split(" "):
        first, _, last = run.partition("-")
        yield from range(int(first), int(last or first) + 1)


def outcome(requests: Sequence[Request], choose: Chooser, *, pods: int = PODS, size: int = CACHE_BLOCKS) -> Outcome:
    """Return what comes of choosing a pod for each request, which is in flight for as long as its work takes."""
    simulated = [SimulatedPod(f"demo-{index}", size) for index in range(pods)]
    running: list[tuple[float, int, SimulatedPod]] = []
    hits = 0
    for number, request in enumerate(requests):
        while running and running[0][0] <= request.at:
            heapq.heappop(running)[2].in_flight -= 1
        pod = choose(simulated, request)
        found = pod.serve(request)
        hits += found
        pod.in_flight += 1
        heapq.heappush(running, (request.at + pod.seconds_of(request, found), number, pod))
    loads = [[float(pod.requests) for pod in simulated], [pod.seconds for pod in simulated]]
    busiest = max(max(load) * pods / sum(load) for load in loads)
    return Outcome(hits / sum(len(request.blocks) for request in requests), busiest)


def less_busy_of_two(seed: int = 1) -> Chooser:
    """Return how pods are chosen without affinity: two at random, of which the less busy one."""
    draw = random.Random(seed)

    def choose(pods: Sequence[SimulatedPod], _: Request) -> SimulatedPod:
        one, other = draw.sample(pods, 2)
        return other if other.in_flight < one.in_flight else one

    return choose


def by_conversation(pods: Sequence[SimulatedPod], request: Request) -> SimulatedPod:
    """Return the pod of the request's conversation."""
    return preferred(pods, request.key)


def by_prefix() -> Chooser:
    """Return how pods are chosen by the blocks that they have had."""
    index = PrefixIndex()

    def choose(pods: Sequence[SimulatedPod], request: Request) -> SimulatedPod:
        return index.choose(pods, request.key, [block.to_bytes(BLOCK_BYTES, "big") for block in request.blocks])

    return choose


def with_hindsight(requests: Sequence[Request], *, pods: int = PODS) -> Chooser:
    """Return an assignment that knows all requests: each conversation is on one pod, the largest ones first."""
    counts: dict[bytes, int] = defaultdict(int)
    for request in requests:
        counts[request.key] += 1
    loads, places = [0] * pods, {}
    for key, count in sorted(counts.items(), key=lambda item: -item[1]):
        place = loads.index(min(loads))
        places[key] = place
        loads[place] += count

    def choose(simulated: Sequence[SimulatedPod], request: Request) -> SimulatedPod:
        return simulated[places[request.key]]

    return choose


def best_hit_rate(requests: Sequence[Request], *, pods: int = PODS, size: int = CACHE_BLOCKS) -> float:
    """Return the best hit rate that is known with hindsight.

    It is that of one pod with the caches of all, which no division of the requests needs to reach, or that of
    `with_hindsight`, whichever is better.
    """
    shared = outcome(requests, lambda one, _: one[0], pods=1, size=pods * size)
    divided = outcome(requests, with_hindsight(requests, pods=pods), pods=pods, size=size)
    return max(shared.hit_rate, divided.hit_rate)


def measure(limit: int | None = None) -> dict[str, float]:
    """Return the figures for the first requests of the trace, by default for all of them."""
    requests = read_trace(limit=limit)
    best = best_hit_rate(requests)
    conversation, prefix = outcome(requests, by_conversation), outcome(requests, by_prefix())
    return {
        "prefix_vs_best": prefix.hit_rate / best,
        "prefix_busiest": prefix.busiest,
        "conversation_busiest": conversation.busiest,
        "prefix_hit_rate": prefix.hit_rate,
        "prefix_hit_best": best,
        "prefix_hit_random": outcome(requests, less_busy_of_two()).hit_rate,
        "conversation_hit_rate": conversation.hit_rate,
    }
