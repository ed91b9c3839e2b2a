"""The command `beamlit-hooks simulate`: what a percentage, a window or a target is worth, before it runs in production.

The decisions are those of a sync, by the same code, on a virtual clock. This package reads files and arguments and
prints; everything in between is in `hooks.simulate`.
"""

import argparse
import gzip
import math
import random
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, TextIO

import orjson

from hooks.api.common import InvalidObject
from hooks.cli import Streams, name_of, no_parent, read_manifests, stored_parent
from hooks.errors import NotAccepted
from hooks.kube.files import UnreadableFile
from hooks.kube.objects import Object
from hooks.settings import Settings
from hooks.simulate.autoscaler import Autoscaler
from hooks.simulate.document import as_document
from hooks.simulate.generators import generate
from hooks.simulate.limits import Limits
from hooks.simulate.observables import UnknownMetric
from hooks.simulate.outcome import FREE, Prices
from hooks.simulate.page import NoPlottingLibrary, as_page, check_library
from hooks.simulate.request_plant import Engine
from hooks.simulate.requests import Request, TooMany
from hooks.simulate.scenario import Case, Prepared, Result, Setting, cases, prepare, simulate
from hooks.simulate.text import as_text
from hooks.simulate.traces import BadTrace, read_trace
from hooks.simulate.variants import BadVariant
from program.problems import listed


class RefusedManifest(Exception):
    """The manifest is not accepted. The message is a sentence that names the ModelDeployment."""


class Unusable(Exception):
    """Something that the command was given cannot be used. The message is a sentence that says what to write."""


def run(
    given: argparse.Namespace,
    settings: Settings,
    *,
    now: datetime,
    output: TextIO = sys.stdout,
    problems: TextIO = sys.stderr,
) -> int:
    """Simulate, print the result, and return the exit status."""
    streams = Streams(output, problems)
    try:
        if given.html is not None:
            check_library()
        simulated = _cases(given, streams)
        if simulated is None:
            return 1
        found, related = simulated
        setting = _setting(given, settings, now, related, _prices(given, settings, found[0].parent))
        results = _results(_prepared(found, setting, given.seed), setting, problems)
    except (NoPlottingLibrary, UnreadableFile, UnknownMetric, Unusable) as exc:
        streams.complain(f"hooks: {exc}")
        return 2
    except RefusedManifest as exc:
        streams.complain(str(exc))
        return 1
    exceeded = Limits(given.max_changes, given.max_remote_share, given.max_ttft).problems(results)
    try:
        _print(given, results, exceeded, streams, costs=setting.prices != FREE)
    except Unusable as exc:
        streams.complain(f"hooks: {exc}")
        return 2
    return 1 if exceeded else 0


def _cases(given: argparse.Namespace, streams: Streams) -> tuple[list[Case], tuple[Object, ...]] | None:
    """Return the cases, and what else is in the files; None where the API server would refuse something.

    Raises:
        UnreadableFile: a file cannot be used.
        Unusable: there is not one ModelDeployment, or a variant cannot be made.
    """
    parents, others, accepted = read_manifests(given.files, streams)
    if not accepted:
        return None
    names = [parent["metadata"]["name"] for parent in parents]
    if given.model is not None:
        parents = [parent for parent in parents if parent["metadata"]["name"] == given.model]
    if len(parents) != 1:
        if not parents:
            raise Unusable(f"there is no ModelDeployment {given.model}." if names else no_parent(given.files))
        raise Unusable(
            f"one ModelDeployment is simulated, but the files have {listed(names, 'and')}: name it with --model."
        )
    parent, variants = parents[0], []
    for variant in given.variants:
        try:
            item = variant.applied(parent)
        except BadVariant as exc:
            raise Unusable(f"--set {exc}.") from None
        stored = stored_parent(item, streams, f"--set {variant.name}")
        if stored is None:
            raise Unusable("nothing was simulated: correct --set.")
        variants.append((variant.name, stored))
    return cases(parent, variants), tuple(others)


def _prices(given: argparse.Namespace, settings: Settings, parent: Object) -> Prices:
    """Return the prices that are given, or else those of the remote backend in the manifest or the configuration."""
    backend = (parent["spec"].get("offloadingConfig") or {}).get("remoteBackend")
    if backend is None:
        default = settings.default_remote_backend
        price, prompt_price = default.price, default.prompt_price or None
    else:
        price, prompt_price = backend.get("price") or 0.0, backend.get("promptPrice")
    if given.price is not None:
        price, prompt_price = given.price, None
    if given.prompt_price is not None:
        prompt_price = given.prompt_price
    return Prices(price if prompt_price is None else prompt_price, price, given.replica_price)


def _setting(
    given: argparse.Namespace, settings: Settings, now: datetime, related: tuple[Object, ...], prices: Prices
) -> Setting:
    """Return everything around the ModelDeployment.

    Raises:
        Unusable: the trace cannot be used, or arguments contradict each other.
    """
    if given.max_replicas is not None and given.max_replicas < given.replicas:
        raise Unusable(f"--max-replicas must be {given.replicas} or more, as there are so many --replicas.")
    requests, seconds = _requests(given)
    return Setting(
        requests=requests,
        seconds=seconds,
        engine=Engine(
            speed=given.capacity,
            batch=given.batch_size,
            prompt_speed=given.prompt_speed,
            cache=given.cache_tokens,
            cores=given.cores,
            idle=given.idle_usage,
        ),
        start=now.replace(microsecond=0),
        defaults=settings.install_defaults,
        replicas=given.replicas,
        autoscaler=None
        if given.max_replicas is None
        else Autoscaler(
            target=given.hpa_target / 100, most=given.max_replicas, least=given.replicas, startup=given.startup
        ),
        period=given.metric_period,
        delay=given.metric_delay,
        noise=given.metric_noise,
        remote_first_token=given.remote_ttft,
        prices=prices,
        related=related,
        observed=tuple(given.metric),
        from_pods=settings.metric_informer.type == "pods",
    )


def _requests(given: argparse.Namespace) -> tuple[list[Request], float]:
    """Return the requests, and the seconds of the simulation.

    Raises:
        Unusable: there are none that can be used.
    """
    if given.load is not None:
        seconds = given.duration or 3600.0
        numbers = random.Random(given.seed)  # noqa: S311 - nothing here is secret
        try:
            requests = generate(
                given.load,
                seconds,
                prompt=given.prompt_tokens or 1000.0,
                generated=given.generated_tokens or 200.0,
                draw=numbers.random,
            )
        except TooMany as exc:
            raise Unusable(f"the load {exc}.") from None
        return requests, math.ceil(seconds)
    for flag, value in (("--prompt-tokens", given.prompt_tokens), ("--generated-tokens", given.generated_tokens)):
        if value is not None:
            raise Unusable(f"{flag} is for --load: a trace has the tokens of each request.")
    path: Path = given.trace
    try:
        with _opened(path) as lines:
            requests = read_trace(lines)
    except (BadTrace, TooMany) as exc:
        raise Unusable(f"{path} {exc}.") from None
    except UnicodeDecodeError:
        raise Unusable(f"{path} cannot be read: it is not UTF-8.") from None
    except (OSError, EOFError, zlib.error) as exc:
        raise Unusable(f"{path} cannot be read: {getattr(exc, 'strerror', None) or exc}.") from None
    seconds = given.duration or requests[-1].time + 1
    return [one for one in requests if one.time < seconds], math.ceil(seconds)


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8", newline=None) as file:
            yield file
    else:
        with path.open(encoding="utf-8") as file:
            yield file


def _prepared(found: Sequence[Case], setting: Setting, seed: int) -> list[Prepared]:
    """Return the cases at time zero.

    Raises:
        RefusedManifest: the manifest is not accepted.
        Unusable: a variant is not accepted.
        UnknownMetric: it is not known what a metric follows.
    """
    prepared = []
    for case in found:
        # Each case has the same errors of samples.
        error = partial(random.Random(seed).uniform, -1, 1)  # noqa: S311 - nothing here is secret
        try:
            prepared.append(prepare(case, setting, error))
        except (InvalidObject, NotAccepted) as exc:
            sentence = f"{exc}." if isinstance(exc, InvalidObject) else str(exc)
            if case is found[0]:
                raise RefusedManifest(f"{name_of(case.parent)}: {sentence}") from None
            raise Unusable(f"--set {case.name}: {sentence}") from None
    return prepared


def _results(prepared: Sequence[Prepared], setting: Setting, problems: TextIO) -> list[Result]:
    with _progress(len(prepared), problems) as progress:
        return [simulate(one, setting, partial(_add, progress, number)) for number, one in enumerate(prepared)]


def _add(progress: Callable[[float], None], number: int, part: float) -> None:
    progress(number + part)


_WIDTH: Final = 40


@contextmanager
def _progress(parts: int, stream: TextIO) -> Iterator[Callable[[float], None]]:
    """Yield a function that shows how many parts are done: a bar on a terminal, nothing elsewhere."""
    if not stream.isatty():
        yield lambda _: None
        return

    def show(done: float) -> None:
        filled = round(done / parts * _WIDTH)
        stream.write(f"\rsimulating [{'#' * filled}{' ' * (_WIDTH - filled)}] {100 * done / parts:3.0f} %")
        stream.flush()

    try:
        yield show
    finally:
        stream.write(f"\r{' ' * (_WIDTH + 21)}\r")
        stream.flush()


def _print(
    given: argparse.Namespace, results: Sequence[Result], exceeded: Sequence[str], streams: Streams, *, costs: bool
) -> None:
    """Print the results, name the limits that are exceeded, and write the page.

    Raises:
        Unusable: the page cannot be written.
    """
    title = f"{name_of(results[0].case.parent)}, {_load_in_words(given)}"
    if given.output == "json":
        document = orjson.dumps(as_document(title, results, exceeded), option=orjson.OPT_INDENT_2)
        streams.output.write(f"{document.decode()}\n")
    else:
        streams.output.write(as_text(title, results, costs=costs))
    for result in results:
        for note in result.notes if not result.case.is_comparison else ():
            streams.complain(f"{result.case.name}: {note}")
    for sentence in exceeded:
        streams.complain(f"hooks: {sentence}")
    if given.html is not None:
        try:
            given.html.write_text(as_page(title, results, costs=costs), encoding="utf-8")
        except OSError as exc:
            raise Unusable(f"{given.html} cannot be written: {exc.strerror}.") from None


def _load_in_words(given: argparse.Namespace) -> str:
    replicas = f"{given.replicas} replica{'' if given.replicas == 1 else 's'}"
    if given.max_replicas is not None:
        replicas += f" (up to {given.max_replicas})"
    source = given.trace.name if given.trace is not None else "generated load"
    return f"{source}, {replicas} of {given.capacity:g} tokens/s"
