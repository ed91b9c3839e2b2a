"""Results of a simulation as plain text, about a screen long."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Final

from hooks.simulate.durations import written
from hooks.simulate.outcome import Outcome, Slice, length_of
from hooks.simulate.scenario import Result

ROWS: Final = 24
"""Rows of the share over time, at most."""
CHANGES: Final = 12
"""Changes that are listed, at most."""
_BAR: Final = 20
"""Characters of a share of 100 percent."""


def as_text(title: str, results: Sequence[Result], *, costs: bool) -> str:
    """Return a table of all results, and the course of the first one.

    Args:
        title: what was simulated, in one line.
        results: results, the first being the manifest as it is written.
        costs: whether there are prices, so that costs tell something.
    """
    return "\n".join(line.rstrip() for line in _lines(title, results, costs=costs)) + "\n"


def _lines(title: str, results: Sequence[Result], *, costs: bool) -> Iterator[str]:
    first = results[0].outcome
    yield title
    prompts = _millions(first.local.prompt + first.remote.prompt)
    generated = _millions(first.local.generated + first.remote.generated)
    yield f"  {first.requests:,} requests in {written(first.seconds)}; {prompts} prompt tokens, {generated} generated"
    yield ""
    yield from table(results, costs=costs)
    yield ""
    yield "  Times to first token are estimates, of local and remote requests together."
    if first.unfinished:
        yield f"  Of {results[0].case.name}, {first.unfinished:,} local requests were not finished at the end."
    yield ""
    yield f"Over time, {results[0].case.name}:"
    yield from _course(first)
    yield ""
    yield from _changes(first)


def _millions(tokens: int) -> str:
    return f"{tokens / 1_000_000:.1f} million" if tokens >= 1_000_000 else f"{tokens:,}"


def rows(results: Sequence[Result], *, costs: bool) -> list[tuple[str, ...]]:
    """Return the names of the columns and the cells of the table, a row for each result."""
    head = ("", "requests local", "remote", "of all", "tokens local", "remote", "of all", "ttft p50", "p95", "p99")
    scaled = len({round(one.outcome.replica_hours, 6) for one in results}) > 1
    extra = ("changes", *(("replica hours",) if scaled else ()), *(("cost",) if costs else ()))
    result = [(*head, *extra)]
    for one in results:
        found = one.outcome
        times = (found.first_token.p50, found.first_token.p95, found.first_token.p99)
        result.append(
            (
                one.case.name,
                f"{found.local.requests:,}",
                f"{found.remote.requests:,}",
                f"{found.remote_share:.1f} %",
                _short(found.local.tokens),
                _short(found.remote.tokens),
                f"{found.remote_token_share:.1f} %",
                *("-" if seconds is None else written(seconds) for seconds in times),
                str(len(found.changes)),
                *((f"{found.replica_hours:.1f}",) if scaled else ()),
                *((f"{found.cost:,.2f}",) if costs else ()),
            )
        )
    return result


def _short(tokens: int) -> str:
    return f"{tokens / 1_000_000:.1f} M" if tokens >= 1_000_000 else f"{tokens:,}"


def table(results: Sequence[Result], *, costs: bool) -> Iterator[str]:
    """Yield the lines of the table."""
    cells = rows(results, costs=costs)
    widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
    for row in cells:
        name, *rest = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        yield f"  {name.strip().ljust(widths[0])}  {'  '.join(rest)}"


def markdown(results: Sequence[Result], *, costs: bool) -> str:
    """Return the table in Markdown."""
    head, *rest = rows(results, costs=costs)
    lines = [head, tuple("---" for _ in head), *rest]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _course(found: Outcome) -> Iterator[str]:
    yield f"  {'time':>7}  {'requests/s':>10}  {'remote':>{_BAR + 6}}  {'waiting':>8}  {'replicas':>8}  {'ttft p95':>8}"
    for one in _fewer(found, ROWS):
        bar = "#" * round(one.remote / 100 * _BAR)
        first = "-" if one.first_token is None else written(one.first_token)
        yield (
            f"  {clock(one.start):>7}  {one.rate:>10.1f}  {one.remote:>4.0f} % {bar:<{_BAR}}  {one.waiting:>8.1f}"
            f"  {one.ready:>8.1f}  {first:>8}"
        )


def clock(seconds: float) -> str:
    """Return a time since time zero as hours, minutes and, where there are any, seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}" + (f":{rest:02}" if rest else "")


def _fewer(found: Outcome, most: int) -> Iterator[Slice]:
    """Yield slices that are each several of an outcome, so that there are not too many."""
    if not found.slices:
        return
    length = length_of(found.seconds, most, multiple_of=round(found.slices[0].seconds))
    for _, group in groupby(found.slices, lambda one: one.start // length):
        yield _together(list(group))


def _together(slices: Sequence[Slice]) -> Slice:
    seconds = sum(one.seconds for one in slices)
    requests = sum(one.rate * one.seconds for one in slices)
    times = [one.first_token for one in slices if one.first_token is not None]

    def average(value: Callable[[Slice], float]) -> float:
        return sum(value(one) * one.seconds for one in slices) / seconds

    return Slice(
        start=slices[0].start,
        seconds=seconds,
        rate=requests / seconds,
        share=average(lambda one: one.share),
        remote=sum(one.remote * one.rate * one.seconds for one in slices) / requests if requests else 0.0,
        waiting=average(lambda one: one.waiting),
        running=average(lambda one: one.running),
        ready=average(lambda one: one.ready),
        first_token=max(times, default=None),
    )


def _changes(found: Outcome) -> Iterator[str]:
    if not found.changes:
        yield "The share never changed."
        return
    yield f"Changes of the share (on average {found.average_share:.1f} %):"
    for change in found.changes[:CHANGES]:
        yield f"  {clock(change.time):>7}  {change.share:>3} %  {change.reason}"
    if len(found.changes) > CHANGES:
        yield f"  and {len(found.changes) - CHANGES} more, which --output json lists"
