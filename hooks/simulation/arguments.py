"""Arguments of `beamlit-hooks simulate`, read and checked as far as they can be without a file."""

import argparse
import math
from pathlib import Path
from typing import Final

from hooks.simulate.durations import DURATION, duration
from hooks.simulate.generators import KINDS, BadLoad, Described, describe
from hooks.simulate.observables import WORDS, Observable, UnknownMetric, read_observable
from hooks.simulate.requests import MOST_SECONDS
from hooks.simulate.variants import BadVariant, Variant, read_variant
from program.invocation import command, paragraphs, typed

COMMAND: Final = "simulate"
EXAMPLE: Final = (
    "simulate examples/simulate/queue.yaml \\\n"
    "    --trace examples/traces/azure-conversation.csv.gz --replicas 2 --capacity 600 --price 1.5"
)
"""The example of the help, behind the name of the command."""


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> None:
    """Add the command and its arguments to the command line."""
    parser = commands.add_parser(
        COMMAND,
        usage=f"{command('hooks')} {COMMAND} FILE… (--trace FILE | --load LOAD) --capacity TOKENS [FLAG…]",
        help="try a model's offloading on a trace of requests or a made-up load, without a cluster",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=paragraphs(
            "Run the decisions of hooks for a ModelDeployment against simulated replicas, and print how many requests"
            " and tokens go to the remote backend, how long first tokens take, how often the share changes and what it"
            " costs; beside it the same for offloading nothing, and everything while a metric is at its target."
        ),
        epilog=paragraphs(
            "A length of time is written as 30s, 10m or 1.5h, and is in seconds without a unit. Exit status 0: done. 1:"
            " a --max-… limit is exceeded, or the manifest is not accepted. 2: a file or an argument cannot be used.",
            "For example, in a clone:",
            f"  {typed('hooks')} {EXAMPLE}",
            f"  {typed('hooks')} simulate examples/simulate/queue.yaml \\\n"
            "    --load step,from=1,to=4,at=10m,until=40m --capacity 600 \\\n"
            "    --set spec.offloadingConfig.behavior.percentage=50 \\\n"
            "    --set spec.offloadingConfig.behavior.mode=proportional",
            "docs/simulate.md explains the output, and how replicas are simulated.",
        ),
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="manifest, as for kubectl apply -f")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="config.yaml of hooks (default: none)",
    )
    _add_load(parser)
    _add_replicas(parser)
    _add_metrics(parser)
    _add_output(parser)


def _add_load(parser: argparse.ArgumentParser) -> None:
    load = parser.add_argument_group("requests (one of --trace and --load)")
    either = load.add_mutually_exclusive_group(required=True)
    either.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="trace: CSV with the columns time,prompt,generated (seconds or a time of day, tokens, tokens) or those of"
        " Azure (TIMESTAMP,ContextTokens,GeneratedTokens), or JSON lines of Mooncake (timestamp,input_length,"
        "output_length); .gz is read, too",
    )
    either.add_argument(
        "--load",
        type=_load,
        metavar="LOAD",
        help="; or ".join(kind.words for kind in KINDS.values()) + ": requests per second that arrive at random",
    )
    load.add_argument(
        "--duration",
        type=_positive_duration,
        metavar="TIME",
        help="length of the simulation (default: that of the trace; 1h for --load)",
    )
    load.add_argument(
        "--prompt-tokens",
        type=_at_least_one,
        metavar="N",
        help="tokens of a prompt on average, for --load (default: 1000)",
    )
    load.add_argument(
        "--generated-tokens",
        type=_at_least_one,
        metavar="N",
        help="tokens of a completion on average, for --load (default: 200)",
    )
    load.add_argument("--seed", type=int, default=1, metavar="N", help="seed of all random numbers (default: 1)")


def _add_replicas(parser: argparse.ArgumentParser) -> None:
    replicas = parser.add_argument_group("replicas")
    replicas.add_argument(
        "--capacity",
        type=_positive,
        required=True,
        metavar="TOKENS",
        help="tokens per second that one replica generates with a full batch",
    )
    replicas.add_argument("--replicas", type=_count, default=1, metavar="N", help="replicas (default: 1)")
    replicas.add_argument(
        "--batch-size",
        type=_count,
        default=32,
        metavar="N",
        help="requests that a replica serves at once (default: 32)",
    )
    replicas.add_argument(
        "--prompt-speed",
        type=_positive,
        default=10_000.0,
        metavar="TOKENS",
        help="tokens of prompts per second that one replica processes (default: 10000)",
    )
    replicas.add_argument(
        "--cache-tokens",
        type=_count,
        metavar="N",
        help="tokens that a replica has room for at once (default: no limit; needed for a metric of the cache)",
    )
    replicas.add_argument(
        "--cores",
        type=_positive,
        default=1.0,
        metavar="N",
        help="cores that a replica requests, and uses with a full batch (default: 1)",
    )
    replicas.add_argument(
        "--idle-usage",
        type=_percent,
        default=0.0,
        metavar="PERCENT",
        help="use of these cores without any request (default: 0)",
    )
    replicas.add_argument(
        "--max-replicas",
        type=_count,
        metavar="N",
        help="replicas that a HorizontalPodAutoscaler goes up to, from --replicas (default: there is none)",
    )
    replicas.add_argument(
        "--hpa-target",
        type=_positive,
        default=50.0,
        metavar="PERCENT",
        help="target of the autoscaler, in percent of the targets of the model's metrics (default: 50)",
    )
    replicas.add_argument(
        "--startup",
        type=_duration,
        default=300.0,
        metavar="TIME",
        help="time until a new replica is ready (default: 5m)",
    )


def _add_metrics(parser: argparse.ArgumentParser) -> None:
    metrics = parser.add_argument_group("metrics")
    metrics.add_argument(
        "--metric",
        action="append",
        default=[],
        type=_metric,
        metavar="NAME=WHAT",
        help=f"what a metric of the manifest is: {WORDS}. Metrics of vLLM, SGLang and llama.cpp are known by their"
        " names; may be repeated",
    )
    metrics.add_argument(
        "--metric-period",
        type=_positive_duration,
        default=15.0,
        metavar="TIME",
        help="time between two samples (default: 15s)",
    )
    metrics.add_argument(
        "--metric-delay",
        type=_duration,
        metavar="TIME",
        help="time until hooks can read a sample (default: 0s where hooks read the pods themselves, else 30s)",
    )
    metrics.add_argument(
        "--metric-noise",
        type=_percent,
        default=0.0,
        metavar="PERCENT",
        help="largest error of a sample (default: 0)",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    remote = parser.add_argument_group("remote backend and prices")
    remote.add_argument(
        "--remote-ttft",
        type=_duration,
        default=0.5,
        metavar="TIME",
        help="time to first token of the remote backend (default: 500ms)",
    )
    remote.add_argument(
        "--price",
        type=_price,
        metavar="P",
        help="price of a million tokens at the remote backend (default: that of the backend, or 0)",
    )
    remote.add_argument(
        "--prompt-price",
        type=_price,
        metavar="P",
        help="price of a million tokens of prompts (default: --price, or that of the backend)",
    )
    remote.add_argument(
        "--replica-price", type=_price, default=0.0, metavar="P", help="price of a replica for an hour (default: 0)"
    )
    output = parser.add_argument_group("what is compared, printed and checked")
    output.add_argument(
        "--set",
        action="append",
        default=[],
        dest="variants",
        type=_variant,
        metavar="PATH=VALUE",
        help="also simulate the manifest with this field set, such as spec.offloadingConfig.behavior.percentage=50."
        " Several fields of one variant have commas between them; each --set is a row of the table",
    )
    output.add_argument("--model", metavar="NAME", help="name of the ModelDeployment, where the files have several")
    output.add_argument("-o", "--output", choices=("text", "json"), default="text", help="form (default: text)")
    output.add_argument(
        "--html", type=Path, metavar="FILE", help="also write a page with the curves to this file (needs Bokeh)"
    )
    output.add_argument(
        "--max-changes", type=_whole, metavar="N", help="exit with 1 if the share changes more often than this"
    )
    output.add_argument(
        "--max-remote-share",
        type=_percent_as_written,
        metavar="PERCENT",
        help="exit with 1 if more of the requests go to the remote backend",
    )
    output.add_argument(
        "--max-ttft",
        type=_duration,
        metavar="TIME",
        help="exit with 1 if the time to first token (p95) is longer",
    )


# Arguments.


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _positive(text: str) -> float:
    number = _number(text)
    if not 0 < number <= 1e9:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return number


def _at_least_one(text: str) -> float:
    number = _number(text)
    if not 1 <= number <= 1e6:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 1000000, not {text!r}")
    return number


def _price(text: str) -> float:
    number = _number(text)
    if not 0 <= number <= 1e9:
        raise argparse.ArgumentTypeError(f"must be a number from 0, not {text!r}")
    return number


def _percent_as_written(text: str) -> float:
    number = _number(text.removesuffix("%"))
    if not 0 <= number <= 100:
        raise argparse.ArgumentTypeError(f"must be a percentage from 0 to 100, not {text!r}")
    return number


def _percent(text: str) -> float:
    return _percent_as_written(text) / 100


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}")
    return int(text)


def _count(text: str) -> int:
    number = _whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _duration(text: str) -> float:
    seconds = duration(text)
    if seconds is None or seconds > MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"must be {DURATION}, not {text!r}")
    return seconds


def _positive_duration(text: str) -> float:
    seconds = _duration(text)
    if seconds < 1:
        raise argparse.ArgumentTypeError("must be 1s or more")
    return seconds


def _load(text: str) -> Described:
    try:
        return describe(text)
    except BadLoad as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _metric(text: str) -> tuple[str, Observable]:
    name, equals, what = text.rpartition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"must be a name and what it is, such as queue-depth=waiting, not {text!r}")
    try:
        return name, read_observable(what)
    except UnknownMetric as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _variant(text: str) -> Variant:
    try:
        return read_variant(text)
    except BadVariant as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
