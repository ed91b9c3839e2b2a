"""The fault campaign: load at a constant rate while everything around the gateway fails: `make faults`.

Prints one table and writes `build/faults.json`. The exit status is 1 when a goal is missed, and 2 when the campaign
cannot run here.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from faults import frame, records, verdict
from faults.processes import CampaignError, Processes
from faults.scenarios import Campaign
from faults.site import SECRET, Site

SECONDS: Final = 286.0
"""Seconds of a whole campaign, about: recoveries take their own time."""
KILLS: Final = 50
SHORT_KILLS: Final = 2
POD_KILLS: Final = 12
NAMES: Final = ("kill", "tokens", "routes", "throttle", "hole", "silent", "pods", "stalled", "restart")


@dataclass(frozen=True)
class Options:
    """The options of the command line."""

    seconds: float
    short: bool
    only: tuple[str, ...]
    seed: int
    rate: float
    streams: int
    rounds: int
    failover: bool
    slack: float
    output: Path
    keep: Path | None


def main(words: list[str] | None = None) -> int:
    """Run the campaign."""
    options = _options(words)
    lame_duck, drain = (0.5, 1.5) if options.short else (1.0, 3.0)

    def campaign(processes: Processes) -> int:
        site = Site(
            processes,
            seed=options.seed,
            failover=options.failover,
            lame_duck=lame_duck + options.slack,
            drain=drain,
            slack=options.slack,
        )
        return _run(site, options)

    return frame.run("faults", campaign, keep=options.keep)


def _run(site: Site, options: Options) -> int:
    began = time.monotonic()
    chance = random.Random(options.seed)
    campaign = Campaign(site, streams=options.streams, chance=chance)
    say = frame.Progress(began)
    say(f"seed {options.seed}, {options.rate:g} requests per second, state in {site.folder}")
    site.start(
        options.rate,
        pair=not options.only or "restart" in options.only,
        pods=not options.only or not {"pods", "stalled"}.isdisjoint(options.only),
    )
    campaign.turn_to("warm-up", "main")
    # Memory is compared from here on: what as many requests at once cost as the worst fault piles up is in it.
    site.order(hold={"kind": "long stream", "count": round(3 * options.rate), "seconds": 1.5, "every": 0.5})
    scale = options.seconds / SECONDS
    campaign.pause(2 if options.short else max(5, 15 * scale))
    before = site.resident_mib()
    for name, step in _steps(campaign, options, scale):
        say(name)
        step()
    campaign.turn_to("afterwards", "main")
    campaign.pause(2)
    after = site.resident_mib()
    site.order(stop=True)
    for name in ("load", "openai"):
        if site.processes.ended(name, 60) != 0:
            raise CampaignError(f"{name} does not end:\n{site.processes.log(name)[-2000:]}")
    site.processes.stop()
    return _report(site, campaign, options, after - before, time.monotonic() - began)


def _steps(campaign: Campaign, options: Options, scale: float) -> list[tuple[str, Callable[[], None]]]:
    """Return the faults in their order, with kills of the local backend spread between them."""
    short = options.short

    def length(seconds: float, least: float) -> float:
        return least if short else max(least, seconds * scale)

    faults: list[tuple[str, Callable[[], None]]] = []
    modes = ("revoked",) if short else ("down", "revoked", "slow", "refuse", "garbage")
    for mode in modes:  # a token has to end first, and a request for one takes ten seconds at most
        seconds = length(12, 13 if mode == "slow" else 2)
        faults.append((f"tokens {mode}", partial(campaign.tokens, mode, seconds)))
    faults += [
        ("routes", partial(campaign.routes, length(20, 0.5))),
        ("throttle", partial(campaign.throttle, length(10, 1))),
        ("hole", partial(campaign.hole, length(12, 1.5))),
        ("silent", partial(campaign.silent, length(12, 2.5))),
        ("pods", partial(campaign.pods, 1 if short else POD_KILLS, length(1.2, 0.8))),
        ("stalled", partial(campaign.stalled, 1, length(40, 3))),
        ("restart", partial(campaign.restart, options.rounds)),
    ]
    faults = [one for one in faults if not options.only or one[0].split()[0] in options.only]
    if options.only and "kill" not in options.only:
        return faults
    kills = SHORT_KILLS if short else KILLS
    places = len(faults) + 1
    steps: list[tuple[str, Callable[[], None]]] = []
    for place in range(places):
        count = kills * (place + 1) // places - kills * place // places
        if count:
            steps.append((f"kill {count} times", partial(campaign.kill, count, length(1.2, 0.8))))
        steps += faults[place : place + 1]
    return steps


def _report(site: Site, campaign: Campaign, options: Options, growth: float, seconds: float) -> int:
    """Print the table, write the file, and report the missed goals."""
    load = records.read(site.folder / "records-load")
    openai = records.read(site.folder / "records-openai")
    kills = [*campaign.kills, *campaign.pod_kills]
    tallies = verdict.tally([*load, *openai], kills, campaign.stops)
    of_openai = verdict.tally(openai, kills, campaign.stops)[""]
    total = tallies[""]
    ledgers = [path.read_text() for path in sorted(site.folder.glob("ledger-*"))]
    duplicates, twice = verdict.executed_twice(ledgers)
    logs = [site.processes.log(name) for name in ("main", "one", "two") if (site.folder / f"{name}.log").exists()]
    rest = verdict.Rest(
        duplicates=len(duplicates),
        growth_mib=growth,
        latest=float(site.processes.log("load").rpartition("latest ")[2] or 0),
        tracebacks=sum(log.count("request_failed") + log.count("Traceback") for log in logs),
        leaks=sum(log.count(SECRET) for log in logs),
    )
    goals = verdict.goals(total, of_openai, campaign.faults, campaign.stops, rest, slack=options.slack)
    missed = [one for one in goals if not one.met]
    content: dict[str, Any] = {
        "requests": total.requests,
        "client_errors": total.errors.total(),
        "duplicated": total.repeated + len(duplicates),
        "lost": total.missing,
        "rss_growth_mib": round(growth, 2),
        "error_bound": 3 / total.requests if total.requests and not total.errors else None,
        "cut": total.cut,
        "spent": total.spent,
        "executed_twice": twice,
        "openai_requests": len(openai),
        "kills": len(campaign.kills),
        "restarts": [round(stop.seconds, 2) for stop in campaign.stops],
        "goals": {one.name: {"measured": one.measured, "allowed": one.allowed, "met": one.met} for one in goals},
        "faults": verdict.as_json(tallies, campaign.faults),
        "seconds": round(seconds),
        "seed": options.seed,
        "rate": options.rate,
        "failover": options.failover,
        "slack": options.slack,
        "only": list(options.only),
        "machine": frame.machine(),
    }
    _print(content, goals, tallies, campaign)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(content, indent=2) + "\n")
    for one in missed:
        print(f"missed: {one.name} is {one.measured:g}, allowed is {one.allowed:g}: {one.meaning}")
    return 1 if missed else 0


def _print(
    content: dict[str, Any], goals: list[verdict.Goal], tallies: dict[str, verdict.Tally], campaign: Campaign
) -> None:
    """Print the table."""
    print(f"\n{'fault':<16}{'requests':>9}{'errors':>7}{'cut':>5}{'p99 ms':>8}{'back s':>8}{'MiB':>7}   seen of it")
    for name, one in tallies.items():
        if not name:
            continue
        fault = campaign.faults.get(name)
        resident = f"{fault.resident_mib:.1f}" if fault and fault.resident_mib else ""
        back = f"{max(fault.recoveries):.2f}" if fault and fault.recoveries else ""
        seen = ", ".join(f"{key} {value}" for key, value in (fault.evidence if fault else {}).items())
        print(
            f"{name:<16}{one.requests:>9}{one.errors.total():>7}{one.cut:>5}{one.percentile(0.99) * 1000:>8.0f}"
            f"{back:>8}{resident:>7}   {seen}"
        )
        for what, number in one.errors.most_common(5):
            print(f"    {number} x {what}")
        for problem in fault.problems if fault else ():
            print(f"    {problem}")
    print(f"\n{'goal':<16}{'measured':>9}{'allowed':>9}")
    for goal in goals:
        allowed = f"<= {goal.allowed:g}"
        print(f"{goal.name:<16}{goal.measured:>9g}{allowed:>9}   {goal.meaning}{'' if goal.met else '  MISSED'}")
    bound = content["error_bound"]
    said = (
        f"fewer than {bound:.1e} of requests fail (95 %, 3/N)" if bound else "there were errors, so there is no bound"
    )
    print(
        f"\n{content['requests']} requests in {content['seconds']} s,"
        f" {content['openai_requests']} of them by the openai client;"
        f" {content['cut']} responses cut visibly, {content['spent']} uploads failed with their backend,"
        f" {content['executed_twice']} requests executed a second time before a byte; {said}"
    )


def _options(words: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    add = parser.add_argument
    add("--seconds", type=float, default=SECONDS, help="length, about (%(default)s)")
    add("--short", action="store_true", help="some twenty seconds, with fewer of each fault")
    add("--only", action="append", default=[], choices=NAMES, help="this fault alone; may be given again")
    add("--seed", type=int, default=None, help="of what is left to chance; otherwise chosen, and printed")
    add("--rate", type=float, default=100.0, help="requests per second (%(default)s)")
    add("--streams", type=int, default=None, help="open streams at each restart (60; short: 20)")
    add("--rounds", type=int, default=None, help="restarts (6; short: 1)")
    add("--without-failover", action="store_true", help="the control: the campaign has to miss its goals")
    add("--slack", type=float, default=0.0, help="seconds that a busy machine may add to each time that is held (0)")
    add("--output", type=Path, default=Path("build/faults.json"), help="where the counts go (%(default)s)")
    add("--keep", type=Path, help="copy logs and records there at the end")
    given = parser.parse_args(words)
    return Options(
        seconds=given.seconds,
        short=given.short,
        only=tuple(given.only),
        seed=random.randrange(1 << 31) if given.seed is None else given.seed,
        rate=given.rate,
        streams=given.streams or (20 if given.short else 60),
        rounds=given.rounds or (1 if given.short else 6),
        failover=not given.without_failover,
        slack=given.slack,
        output=given.output,
        keep=given.keep,
    )


if __name__ == "__main__":
    sys.exit(main())
