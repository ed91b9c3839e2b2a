"""The fairness campaign: four tenants, of which one is hostile in one way after the other: `make fairness`.

The load of the other three is constant. Each way is gone and not gone in turn, some times. Prints one table and writes
`build/fairness.json`. The exit status is 1 when the others had an error or became slower than allowed, and 2 when the
campaign cannot run here, or says nothing because the others had errors without the hostile tenant, too.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from faults import frame, records, verdict
from faults.fairness.site import Site
from faults.fairness.ways import WAYS, Way
from faults.processes import Processes

PAIRS: Final = 5
SECONDS: Final = 3.0
"""Seconds of one half of a pair."""
PATIENCE: Final = 60.0
"""Seconds after which a way is given up of which nothing has come, in the short form."""
RATIO: Final = 2.0
"""Largest allowed quotient of the 99th percentiles with and without the hostile tenant, in the median of all pairs."""
CHECKS: Final = 0.5
"""Least share of the health checks of the others that a hostile tenant has to leave them."""
LARGEST: Final = 32 << 20
LARGEST_SHORT: Final = 4 << 20


@dataclass(frozen=True)
class Options:
    """The options of the command line."""

    short: bool
    only: tuple[str, ...]
    pairs: int
    seconds: float
    seed: int
    rate: float
    shared: bool
    output: Path
    keep: Path | None


@dataclass
class Half:
    """One half of a pair: a time with the hostile tenant, or without it."""

    phase: str
    began: float
    ended: float = 0.0
    p99: float = 0.0
    """99th percentile of the durations of whole responses, in seconds."""
    cpu: float = 0.0
    """CPU that the gateway used, in parts of one processor."""

    def checks(self, times: Sequence[float]) -> float:
        """Return the health checks per second."""
        return sum(self.began <= one <= self.ended for one in times) / (self.ended - self.began)


@dataclass
class Finding:
    """What became of the other tenants in one way."""

    way: Way
    halves: dict[bool, list[Half]] = field(default_factory=lambda: {True: [], False: []})
    """Times with the hostile tenant, and those without."""
    seen: Counter[str] = field(default_factory=Counter)
    """What the hostile tenant saw."""
    requests: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """Errors of the others, but for those of the times without the hostile tenant."""
    errors_without: Counter[str] = field(default_factory=Counter)
    """Errors of the others in the times without the hostile tenant."""
    resident_mib: float = 0.0
    """Resident memory of the gateway, in MiB, at the most."""

    def p99(self, hostile: bool) -> float:
        """Return the median of the 99th percentiles, in seconds."""
        return median(half.p99 for half in self.halves[hostile]) if self.halves[hostile] else 0.0

    @property
    def ratio(self) -> float | None:
        """How many times as slow the others were, in the median of all pairs; None where nothing was compared."""
        pairs = zip(self.halves[True], self.halves[False], strict=False)
        quotients = [one.p99 / other.p99 for one, other in pairs if other.p99]
        return median(quotients) if quotients else None


def main(words: list[str] | None = None) -> int:
    """Run the campaign."""
    options = _options(words)
    return frame.run("fairness", lambda processes: _run(processes, options), keep=options.keep)


def _run(processes: Processes, options: Options) -> int:
    began = time.monotonic()
    say = frame.Progress(began)
    say(f"seed {options.seed}, {options.rate:g} requests per second, state in {processes.folder}")
    largest = LARGEST_SHORT if options.short else LARGEST
    site = Site(processes, seed=options.seed, largest=largest, shared=options.shared)
    site.start(options.rate)
    site.turn_to("warm-up")
    site.processes.pause(0.3 if options.short else 5)
    findings = [Finding(way) for way in WAYS if not options.only or way.name in options.only]
    for finding in findings:
        say(finding.way.name)
        for pair in range(options.pairs):
            # The second half of a pair is the first one of the next pair as often as not.
            for hostile in (True,) if options.short else (True, False) if pair % 2 else (False, True):
                _go(site, finding, pair, hostile, options)
    site.turn_to("afterwards")
    site.processes.pause(0.3)
    site.end()
    return _report(site, findings, options, time.monotonic() - began)


def _go(site: Site, finding: Finding, pair: int, hostile: bool, options: Options) -> None:
    """Measure for some seconds, with the hostile tenant or without it."""
    site.turn_to(f"{finding.way.name} {pair} before")
    if hostile:
        site.obey(finding.way.name)
    site.processes.pause(finding.way.settles / (3 if options.short else 1))
    half = Half(f"{finding.way.name} {pair} {'with' if hostile else 'without'}", time.monotonic())
    site.turn_to(half.phase)
    before = site.cpu_seconds()
    site.processes.pause(options.seconds)
    if hostile and options.short:
        _see_through(site, finding, options.seconds)
    half.ended = time.monotonic()
    half.cpu = (site.cpu_seconds() - before) / (half.ended - half.began)
    finding.halves[hostile].append(half)
    if hostile:
        finding.resident_mib = max(finding.resident_mib, site.resident_mib())
        site.turn_to(f"{finding.way.name} {pair} after")
        finding.seen.update(site.obey(None))


def _see_through(site: Site, finding: Finding, seconds: float) -> None:
    """Go on until something has come of a way: a moment is too short on a busy machine."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        finding.seen.update(site.obey(finding.way.name))
        if any(finding.seen[one] for one in finding.way.wanted):
            return
        site.processes.pause(seconds)


def _report(site: Site, findings: list[Finding], options: Options, seconds: float) -> int:
    """Print the table, write the file, and report what the hostile tenant did to the others."""
    sent = records.read(site.processes.folder / "records")
    tallies = verdict.tally(sent, [], [])
    checks = site.checks()
    found: list[str] = []
    for finding in findings:
        name = finding.way.name
        for phase, tally in tallies.items():
            if phase.startswith(f"{name} "):
                finding.requests += tally.requests
                errors = finding.errors_without if phase.endswith(" without") else finding.errors
                errors.update(tally.errors)
        for half in (*finding.halves[True], *finding.halves[False]):
            half.p99 = _p99([one for one in sent if one.phase == half.phase])
        found += problems(finding, checks, short=options.short)
    log = site.processes.log("gateway")
    if tracebacks := log.count("request_failed") + log.count("Traceback"):
        found.append(f"the gateway's log has {tracebacks} errors of its own")
    _print(findings)
    content: dict[str, Any] = {
        "requests": len(sent),
        "errors": sum(finding.errors.total() for finding in findings),
        "errors_without": sum(finding.errors_without.total() for finding in findings),
        "problems": found,
        "ways": {finding.way.name: _as_json(finding, checks) for finding in findings},
        "allowed": {"errors": 0, "ratio": RATIO},
        "seconds": round(seconds),
        "seed": options.seed,
        "rate": options.rate,
        "pairs": options.pairs,
        "shared": options.shared,
        "short": options.short,
        "machine": frame.machine(),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(content, indent=2) + "\n")
    print(f"\n{len(sent)} requests of the others in {seconds:.0f} s, {content['errors']} errors")
    for problem in found:
        print(f"broken: {problem}")
    if sentence := too_slow(findings):
        print(sentence)
        return 2
    return 1 if found else 0


def too_slow(findings: Sequence[Finding]) -> str:
    """Return a sentence where the others had errors without the hostile tenant; empty where they had none."""
    errors: Counter[str] = Counter()
    for finding in findings:
        errors.update(finding.errors_without)
    if not errors:
        return ""
    what, number = errors.most_common(1)[0]
    return (
        f"The others had {errors.total()} errors without the hostile tenant, {number} x {what} among them, so the"
        " campaign says nothing: this machine is too slow or too busy for this load. Run it alone, or with a lower"
        " --rate."
    )


def problems(finding: Finding, checks: Sequence[float], *, short: bool) -> list[str]:
    """Return the bounds that were broken, in words."""
    found = [f"{finding.way.name}: {number} x {what}" for what, number in finding.errors.most_common()]
    if not any(finding.seen[one] for one in finding.way.wanted):
        found.append(f"{finding.way.name}: nothing came of it: {dict(finding.seen)}")
    if finding.seen["reached"]:
        found.append(f"{finding.way.name}: {finding.seen['reached']} requests got where no request may go")
    if short:
        return found  # on a busy machine times mean nothing
    ratio = finding.ratio
    if ratio is not None and ratio > RATIO:
        found.append(f"{finding.way.name}: the others are {ratio:.2f} times as slow, allowed is {RATIO:g}")
    checked, usual = (_checks(finding, checks, hostile) for hostile in (True, False))
    if checked < CHECKS * usual:
        found.append(
            f"{finding.way.name}: the others' backends are checked {checked:.2f} times a second, not {usual:.2f}"
        )
    return found


def _p99(sent: Sequence[records.Record]) -> float:
    """Return the 99th percentile of the durations of whole responses, in seconds."""
    whole = [one.ended - one.begun for one in sent if one.outcome is records.Outcome.OK and not verdict.is_stream(one)]
    return verdict.Tally(seconds=whole).percentile(0.99)


def _checks(finding: Finding, checks: Sequence[float], hostile: bool) -> float:
    halves = finding.halves[hostile]
    return median(half.checks(checks) for half in halves) if halves else 0.0


def _print(findings: Sequence[Finding]) -> None:
    """Print the table."""
    print("\n99th percentiles in ms, medians of all times without and with the hostile tenant")
    print(f"{'way':<12}{'requests':>9}{'errors':>7}{'without':>9}{'with':>8}{'ratio':>7}{'MiB':>7}   what it saw")
    for one in findings:
        ratio = f"{one.ratio:.2f}" if one.ratio is not None else ""
        seen = ", ".join(f"{key} {value}" for key, value in one.seen.most_common(5))
        print(
            f"{one.way.name:<12}{one.requests:>9}{one.errors.total():>7}{one.p99(False) * 1000:>9.0f}"
            f"{one.p99(True) * 1000:>8.0f}{ratio:>7}{one.resident_mib:>7.0f}   {seen}"
        )
        for what, number in one.errors.most_common(5):
            print(f"    {number} x {what}")
        for what, number in one.errors_without.most_common(5):
            print(f"    {number} x {what}, without the hostile tenant")


def _as_json(finding: Finding, checks: Sequence[float]) -> dict[str, Any]:
    def milliseconds(hostile: bool) -> list[int]:
        return [round(half.p99 * 1000) for half in finding.halves[hostile]]

    return {
        "meaning": finding.way.meaning,
        "requests": finding.requests,
        "errors": dict(finding.errors),
        "errors_without": dict(finding.errors_without),
        "p99_ms_with": milliseconds(True),
        "p99_ms_without": milliseconds(False),
        "ratio": None if finding.ratio is None else round(finding.ratio, 2),
        "gateway_cpu": [
            round(median(one.cpu for one in halves), 2) if halves else 0 for halves in finding.halves.values()
        ],
        "checks_per_second": [round(_checks(finding, checks, hostile), 2) for hostile in (True, False)],
        "rss_mib": round(finding.resident_mib, 1),
        "seen": dict(finding.seen),
    }


def _options(words: list[str] | None) -> Options:
    ways = "\n".join(f"  {way.name:<12}{way.meaning}" for way in WAYS)
    parser = argparse.ArgumentParser(
        prog="python -m faults.fairness",
        description=__doc__,
        epilog=f"ways:\n{ways}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--only",
        action="append",
        default=[],
        choices=[way.name for way in WAYS],
        metavar="WAY",
        help="this way alone; may be given again",
    )
    add("--short", action="store_true", help="each way once for a moment, small, without a comparison of times")
    add("--pairs", type=int, default=None, help="times with and without the hostile tenant (5; short: 1)")
    add("--seconds", type=float, default=None, help="length of each of these times (3; short: 0.3)")
    add("--seed", type=int, default=None, help="of what is left to chance; otherwise chosen, and printed")
    add("--rate", type=float, default=None, help="requests per second of the other tenants (100; short: 40)")
    add("--shared", action="store_true", help="the control, without what keeps tenants apart: it has to fail")
    add("--output", type=Path, default=Path("build/fairness.json"), help="where the figures go (%(default)s)")
    add("--keep", type=Path, help="copy logs and records there at the end")
    given = parser.parse_args(words)
    return Options(
        short=given.short,
        only=tuple(given.only),
        pairs=given.pairs or (1 if given.short else PAIRS),
        seconds=given.seconds or (0.3 if given.short else SECONDS),
        seed=random.randrange(1 << 31) if given.seed is None else given.seed,
        rate=given.rate or (40.0 if given.short else 100.0),
        shared=given.shared,
        output=given.output,
        keep=given.keep,
    )


if __name__ == "__main__":
    sys.exit(main())
