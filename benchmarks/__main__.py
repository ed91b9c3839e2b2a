"""Measure the product against something else in the same run: `make bench`.

Prints a table and writes `build/bench.json`. Machines differ, so the figures that count are ratios.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks import affinity, metrics, processes, routes, streams, sync, unary

BENCHMARKS = ["unary", "streams", "routes", "sync", "metrics", "affinity"]
GOALS = {
    "unary_vs_nginx": (2.5, "CPU of the gateway per small POST, nginx = 1"),
    "unary_vs_envoy": (0.85, "CPU of the gateway per small POST, Envoy = 1"),
    "unary_by_model_vs_envoy": (1.0, "CPU per small POST whose body names the model, Envoy = 1"),
    "unary_by_model_ratio": (1.1, "CPU per small POST whose body names the model, by path = 1"),
    "unary_access": (1.06, "CPU per small POST with access by key and a rule for the caller, without = 1"),
    "sse_chunk_vs_nginx": (1.5, "CPU of the gateway per SSE chunk, nginx = 1"),
    "sse_chunk_vs_envoy": (0.75, "CPU of the gateway per SSE chunk, Envoy = 1"),
    "unary_everything": (1.1, "CPU per small POST with all that a route may ask for, without = 1"),
    "sse_chunk_everything": (1.1, "CPU per SSE chunk with all that a route may ask for, without = 1"),
    "sse_chunk_usage": (1.1, "CPU per SSE chunk with `usage: always`, without = 1"),
    "stream_rss_kib": (60.0, "memory of the gateway per open stream, KiB, with all of that"),
    "match_ratio": (1.3, "finding one of 10,000 routes, by the dearest way, one of 10 = 1"),
    "routes_unary_ratio": (1.1, "CPU per small POST with 10,000 routes, with 10 = 1"),
    "swap_ms": (50.0, "longest time the loop stands still for a load or change of 10,000 routes, ms"),
    "sync_vs_json_parse": (4.0, "CPU of a hooks sync over HTTP, orjson.loads of its body = 1"),
    "sync_metric_ratio": (0.7, "syncs with a metric from the warm cache, syncs without = 1"),
    "prefix_vs_best": (0.85, "blocks of prompts in the pod's cache by prefix, known best with hindsight = 1"),
    "prefix_busiest": (1.25, "load of the busiest pod by prefix, mean = 1"),
    "conversation_busiest": (1.25, "load of the busiest pod by conversation, mean = 1"),
    "calls_vs_least": (1.0, "calls to the metrics APIs in an interval, distinct questions = 1"),
}
AT_LEAST = {"sync_metric_ratio", "prefix_vs_best"}
"""Names of the figures of which more is better."""


def main() -> int:
    """Run the chosen benchmarks. Return 0 if they ran, and 2 if something is missing. Missed goals are shown and are no
    failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("only", nargs="*", metavar="|".join(BENCHMARKS), help="default: all")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds, of which the median counts")
    parser.add_argument("--seconds", type=int, default=3, help="whole seconds of one measurement")
    parser.add_argument("--routes", type=int, default=10_000, help="routes for the figures about many")
    parser.add_argument("--streams", type=int, default=2000, help="open streams for the memory figure")
    parser.add_argument("--output", type=Path, default=Path("build/bench.json"), help="file for all figures")
    options = parser.parse_args()
    chosen = options.only or BENCHMARKS
    if unknown := set(chosen) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    folder = Path(tempfile.mkdtemp(prefix="beamlit-bench-"))
    figures: dict[str, float] = {}
    try:
        processes.program("nginx", "nginx-light")
        processes.program("wrk", "wrk")
        if "unary" in chosen:
            figures |= unary.measure(folder / "unary", rounds=options.rounds, seconds=options.seconds)
        if "streams" in chosen:
            figures |= streams.measure(
                folder / "streams", rounds=options.rounds, seconds=options.seconds, memory_streams=options.streams
            )
        if "routes" in chosen:
            figures |= routes.measure(
                folder / "routes", rounds=options.rounds, seconds=options.seconds, count=options.routes
            )
        if "sync" in chosen:
            figures |= sync.measure(folder / "sync", rounds=options.rounds, seconds=options.seconds)
        if "metrics" in chosen:
            figures |= metrics.measure(folder / "metrics", rounds=options.rounds, seconds=options.seconds)
        if "affinity" in chosen:
            figures |= affinity.measure()
    except processes.BenchmarkError as exc:
        print(exc, file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report(figures, options.output)
    return 0


def report(figures: dict[str, float], target: Path) -> None:
    """Print the goals beside the figures, and the other figures, and write all to `target`."""
    print(f"{'figure':<22}{'measured':>10}{'goal':>8}   meaning")
    for name, (goal, meaning) in GOALS.items():
        if name in figures:
            met = figures[name] >= goal if name in AT_LEAST else figures[name] <= goal
            mark = "" if met else "  missed"
            print(f"{name:<22}{figures[name]:>10.2f}{goal:>8.1f}   {meaning}{mark}")
    for name, value in figures.items():
        if name not in GOALS:
            print(f"{name:<22}{value:>10.{1 if value >= 1 else 3}f}")
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
