"""Explanations as plain text, about a screen long."""

import textwrap
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from math import ceil
from typing import Final

from hooks.api.common import format_time
from hooks.explain import Explanation
from hooks.explain.metrics import MetricAccount, span
from hooks.explain.outlook import Threshold, Turn
from hooks.explain.rule_verdicts import RuleVerdict, Verdict
from hooks.offloading.hysteresis import Claim
from hooks.offloading.measures import Measured, Missing
from hooks.offloading.rules import Split

WIDTH: Final = 110
_MARKS: Final = {Verdict.NO: "no", Verdict.ANSWERED: ">>>", Verdict.NOT_ASKED: ""}
_NAME: Final = 22
_TOLD: Final = 8
"""Number of pods that are listed in full."""


def as_text(explanation: Explanation) -> str:
    """Return the explanation as lines, the split first."""
    return "\n".join(line.rstrip() for line in _lines(explanation)) + "\n"


def _lines(explanation: Explanation) -> Iterator[str]:
    since = f", and so since {format_time(explanation.since)}" if explanation.since is not None else ""
    split = explanation.split
    yield f"{explanation.namespace}/{explanation.name}: {_share(split.percentage)} ({split.reason})"
    yield from _wrapped(explanation.split.message, "  ")
    yield f"  As of {format_time(explanation.now)}{since}."
    for problem in explanation.problems:
        yield from _wrapped(f"{problem.type}={problem.status}/{problem.reason}: {problem.message}", "  ! ")
    if explanation.rules:
        yield from ("", "Rules, in order; the first that decides wins:")
        for number, rule in enumerate(explanation.rules, start=1):
            yield from _rule(number, rule, explanation.split)
    if explanation.metrics:
        yield from ("", "Metrics:")
        for metric in explanation.metrics:
            yield from _metric(metric)
    yield from _drills(explanation)
    windows = list(_windows(explanation))
    if windows:
        yield from ("", "Windows:", *windows)
    if explanation.gateway:
        yield from ("", "Single requests, at the gateway:")
        for sentence in explanation.gateway:
            yield from _wrapped(sentence, "  ")
    if explanation.turns:
        yield from ("", "What would change it:")
        for turn in explanation.turns:
            yield from _wrapped(_turn(turn, explanation.now), "  ")


def _share(percentage: int) -> str:
    return {0: "every request stays here", 100: "every request goes to the remote backend"}.get(
        percentage, f"{percentage} % of the requests go to the remote backend"
    )


def _rule(number: int, rule: RuleVerdict, split: Split) -> Iterator[str]:
    why = f"{split.percentage} %, {split.reason}" if rule.verdict is Verdict.ANSWERED else rule.why
    yield f"{_MARKS[rule.verdict]:>4} {number:2} {rule.name:{_NAME}} {why}"
    yield from _wrapped(rule.sentence, " " * 8)


def _metric(metric: MetricAccount) -> Iterator[str]:
    target = f", target {metric.target}" if metric.target else ""
    yield from _wrapped(f"{_cut(metric.name)} ({metric.type}{target}): {metric.state}", "  ")
    if metric.pages:
        yield from _wrapped(f"read at {metric.pages}", "      ")
    one = metric.measure
    if isinstance(one, Missing):
        yield from _wrapped(f"{one.message} {metric.advice}".strip(), "      ")
    else:
        age = f", {span(metric.age)} old" if metric.age is not None and metric.age >= timedelta(0) else ""
        yield from _wrapped(f"{_arithmetic(one)} = {percent(one.ratio)} of the target{age}", "      ")
    if metric.estimate is not None and metric.estimated_share is not None:
        where = f"with {metric.estimated_share} % offloaded" if metric.estimated_share else "with all requests here"
        yield f"      {where}: {percent(metric.estimate)} of the target, estimated"
    if one.left_out:
        names = [f"{pod.name} ({pod.why})" for pod in one.left_out[:_TOLD]]
        more = len(one.left_out) - _TOLD
        yield from _wrapped(f"left out: {', '.join(names)}{f' and {more} more' if more > 0 else ''}", "      ")


def _drills(explanation: Explanation) -> Iterator[str]:
    """Yield what gateways say of the remote backend."""
    condition = explanation.offload_ready
    if condition is None:
        return
    yield from ("", f"Drills of the remote backend: OffloadReady={condition.status} ({condition.reason})")
    yield from _wrapped(condition.message, "  ")
    for drill in explanation.drills:
        age = "" if drill.observed is None else f", {span(max(explanation.now - drill.observed, timedelta(0)))} ago"
        by = "a client's request" if drill.by_traffic else "a drill"
        row = f", {drill.failures} in a row" if drill.failures > 1 else ""
        gateway = f"gateway {drill.gateway}" if drill.gateway else "a gateway"
        yield from _wrapped(f"{gateway}: {drill.reason} by {by}{age}{row}. {drill.message}".strip(), "  ")


def _arithmetic(one: Measured) -> str:
    """Return the calculation, shortened where many values are added up."""
    if len(one.counted) <= _TOLD:
        return one.arithmetic
    values = " + ".join(str(item.value) for item in one.counted[:_TOLD])
    return one.arithmetic.replace(
        " + ".join(str(item.value) for item in one.counted), f"{values} + … {len(one.counted) - _TOLD} more", 1
    )


def percent(ratio: Fraction) -> str:
    """Return a ratio in percent, truncated after two decimals: what is below the target never looks as if it had
    reached it."""
    whole, rest = divmod(int(ratio * 10000), 100)
    decimals = f"{rest:02}".rstrip("0")
    return f"{whole}{f'.{decimals}' if decimals else ''} %"


def _windows(explanation: Explanation) -> Iterator[str]:
    memory, ends = explanation.memory, explanation.window_ends
    end = f"; the window ends at {format_time(ends)}" if ends is not None and ends > explanation.now else ""
    for words, moment in (("at a target", memory.reached_since), ("far enough below", memory.below_since)):
        if moment is not None:
            yield f"  {words} since {format_time(moment)} ({span(explanation.now - moment)}){end}"
    if memory.step is not None:
        lower = f", {memory.step} points below it" if memory.step else ""
        ceiling = explanation.ceiling
        yield f"  the metrics ask for {ceiling - memory.step} % of behavior.percentage {ceiling} %{lower}"
    if memory.held is not None and memory.claim is not None:
        grounds = "an estimate supported it" if memory.claim is Claim.SUPPORTED else "no estimate supported it"
        yield f"  the last step down is on trial ({grounds}): a metric at its target brings {memory.held} % back"
    elif memory.held is not None:
        yield f"  {memory.held} % come back when what sets the percentage now ends"
    failures = [
        f"{number} with an estimate" if claim is Claim.SUPPORTED else f"{number} without one"
        for claim in Claim
        if (number := memory.attempts.of(claim))
    ]
    if failures:
        yield f"  failed attempts, each of which doubles the wait: {', '.join(failures)}"


def _turn(turn: Turn, now: datetime) -> str:
    then = f"{_share(turn.then.percentage)} ({turn.then.reason})"
    if not turn.when and not turn.thresholds:
        return f"if nothing else happens, at {format_time(turn.at)}, in {span(turn.at - now)}: {then}"
    # Windows end on whole seconds, and a shorter time would not be enough.
    hold = f" for {span(timedelta(seconds=ceil(turn.after / timedelta(seconds=1))))}" if turn.after else ""
    return f"{turn.when or _values(turn.thresholds)}{hold}: {then}"


def _values(thresholds: Sequence[Threshold]) -> str:
    return " and ".join(
        f"{_cut(one.name)} {'below' if one.below else 'at'} {one.value}{' in all' if one.summed else ''}"
        f" instead of {one.present}"
        for one in thresholds
    )


def _cut(name: str) -> str:
    """Return the beginning of a name that is a whole query."""
    return name if len(name) <= WIDTH // 2 else f"{name[: WIDTH // 2 - 1]}…"


def _wrapped(text: str, indent: str) -> list[str]:
    later = " " * (len(indent) if indent.strip() or len(indent) > 2 else len(indent) + 2)
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=later, break_on_hyphens=False)
