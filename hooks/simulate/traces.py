"""Traces of requests, as they are published and as people write them.

Three forms are read. In each of them columns are found by their names, in any order and in upper or lower case, and
columns with other names are left out.

- CSV of Azure: TIMESTAMP, ContextTokens, GeneratedTokens
  (https://github.com/Azure/AzurePublicDataset/blob/master/AzureLLMInferenceDataset2023.md)
- JSON of Mooncake, an object in each line: timestamp in milliseconds, input_length, output_length
  (https://github.com/kvcache-ai/Mooncake)
- CSV: time, prompt, generated; also without a line of names
"""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from hooks.simulate.requests import MOST_REQUESTS, MOST_SECONDS, Request, TooMany
from program.problems import listed, shown


class BadTrace(ValueError):
    """A line of a trace cannot be used. The message follows the name of the file: `line 3: … must be …`."""


@dataclass(frozen=True, slots=True)
class _Columns:
    """The names of the columns of one form of trace, as they are published."""

    time: str
    prompt: str
    generated: str
    seconds: float
    """Seconds of one unit of a time that is a number."""


_AZURE: Final = _Columns("TIMESTAMP", "ContextTokens", "GeneratedTokens", 1.0)
_MOONCAKE: Final = _Columns("timestamp", "input_length", "output_length", 0.001)
_PLAIN: Final = _Columns("time", "prompt", "generated", 1.0)
FORMS: Final = (_PLAIN, _AZURE, _MOONCAKE)
"""All forms of traces, the one that is named in messages first."""

_LONGEST_LINE: Final = 10_000_000
"""Characters of a line, at most. Mooncake's have a list of thousands of numbers."""
_MOST_TOKENS: Final = 100_000_000


def read_trace(lines: Iterable[str]) -> list[Request]:
    """Return the requests of a trace, in the order of their arrival; the first arrives at time zero.

    Args:
        lines: the lines of the file.

    Raises:
        BadTrace: a line cannot be used, or there is no request.
        TooMany: there are too many requests.
    """
    requests: list[Request] = []
    for request in _read(lines):
        requests.append(request)
        if len(requests) > MOST_REQUESTS:
            raise TooMany(f"has more than {MOST_REQUESTS:,} requests: leave out a part of it")
    if not requests:
        raise BadTrace(f"has no request: write one in each line, under the names {_names(_PLAIN)}")
    requests.sort(key=lambda request: request.time)
    first, last = requests[0].time, requests[-1].time
    if last - first > MOST_SECONDS:
        raise TooMany(f"is about more than {MOST_SECONDS / 86400:g} days: leave out a part of it")
    return [Request(one.time - first, one.prompt, one.generated) for one in requests]


def _read(lines: Iterable[str]) -> Iterator[Request]:
    """Yield the requests as they stand, with the time of the trace's own clock."""
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    first = next(numbered, None)
    if first is None:
        return
    number, line = first
    if number == 1:
        line = line.removeprefix("\ufeff")  # spreadsheets write this mark in front of UTF-8
    if line.lstrip().startswith("{"):
        yield from _of_json(number, line, numbered)
    else:
        yield from _of_csv(number, line, numbered)


def _of_json(number: int, line: str, rest: Iterator[tuple[int, str]]) -> Iterator[Request]:
    """Yield the requests of lines that each hold a JSON object."""
    columns = None
    for place, text in _chained(number, line, rest):
        _check_length(place, text)
        try:
            row = orjson.loads(text)
        except orjson.JSONDecodeError:
            row = None
        if not isinstance(row, dict):
            raise BadTrace(f"line {place}: must be a JSON object, such as {_EXAMPLE}")
        columns = columns or _form(place, list(row))
        values = [row.get(name) for name in columns[1]]
        yield _request(place, columns, values)


_EXAMPLE: Final = '{"timestamp": 1500, "input_length": 800, "output_length": 120}'


def _of_csv(number: int, line: str, rest: Iterator[tuple[int, str]]) -> Iterator[Request]:
    """Yield the requests of lines of CSV, whose first one may hold the names of the columns."""
    _check_length(number, line)
    head = _split(number, line)
    if _is_data(head):
        columns = (_PLAIN, (_PLAIN.time, _PLAIN.prompt, _PLAIN.generated))
        places = (0, 1, 2)
        numbered = _chained(number, line, rest)
    else:
        columns = _form(number, head)
        places = (head.index(columns[1][0]), head.index(columns[1][1]), head.index(columns[1][2]))
        numbered = rest
    time, prompt, generated = places
    most = max(places)
    for place, text in numbered:
        _check_length(place, text)
        row = _split(place, text)
        if len(row) <= most:
            raise BadTrace(f"line {place}: has {len(row)} columns: write {most + 1}, with commas between them")
        yield _request(place, columns, (row[time], row[prompt], row[generated]))


def _split(number: int, line: str) -> list[str]:
    try:
        return next(csv.reader([line.rstrip("\r\n")]))
    except (csv.Error, StopIteration):
        raise BadTrace(f"line {number}: must be values with commas between them") from None


def _chained(number: int, line: str, rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield number, line
    yield from rest


def _check_length(number: int, line: str) -> None:
    if len(line) > _LONGEST_LINE or "\0" in line:
        raise BadTrace(f"line {number}: must be text, and no longer than {_LONGEST_LINE:,} characters")


def _is_data(row: Sequence[str]) -> bool:
    """Return whether the first line of a CSV has values and not names."""
    return len(row) >= 3 and all(part.strip().lstrip("+-")[:1].isdigit() for part in row[:3])


_Chosen = tuple[_Columns, tuple[str, str, str]]
"""A form, and its columns as the file spells them."""


def _form(number: int, names: Sequence[str]) -> _Chosen:
    """Return the form that a line of names is in."""
    spelled: Mapping[str, str] = {name.strip().lower(): name for name in names}
    best, missing = _PLAIN, 4
    for form in (_AZURE, _MOONCAKE, _PLAIN):
        wanted = (form.time, form.prompt, form.generated)
        lacking = [name for name in wanted if name.lower() not in spelled]
        if not lacking:
            time, prompt, generated = (spelled[name.lower()] for name in wanted)
            return form, (time, prompt, generated)
        if len(lacking) < missing:
            best, missing = form, len(lacking)
    lacking = [name for name in (best.time, best.prompt, best.generated) if name.lower() not in spelled]
    if missing == 3:
        forms = ", or ".join(_names(form) for form in FORMS)
        raise BadTrace(f"line {number}: must name the columns: {forms}")
    raise BadTrace(f"line {number}: has no column {listed(lacking, 'and')}: name the columns {_names(best)}")


def _names(form: _Columns) -> str:
    return f"{form.time},{form.prompt},{form.generated}"


def _request(number: int, columns: _Chosen, values: Sequence[Any]) -> Request:
    form, (time, prompt, generated) = columns
    return Request(
        _time(number, time, values[0], form.seconds),
        _tokens(number, prompt, values[1]),
        _tokens(number, generated, values[2]),
    )


def _time(number: int, name: str, value: Any, unit: float) -> float:
    """Return a time in seconds: of a number in its unit, or of a date with a time."""
    seconds = _number(value)
    if seconds is not None:
        return seconds * unit
    if isinstance(value, str):
        try:
            return _seconds(datetime.fromisoformat(value.strip()))
        except (ValueError, OverflowError):
            pass
    unit_name = "milliseconds" if unit < 1 else "seconds"
    raise BadTrace(
        f"line {number}: {name} must be {unit_name} such as 1500, or a time such as 2023-11-16 18:15:46.68,"
        f" not {shown(value) or 'a list or an object'}"
    )


def _seconds(moment: datetime) -> float:
    """Return the seconds of a time since some moment, which is the same for all times of a file."""
    # Only differences count, so that a file without offsets may be in any zone.
    return (moment.replace(tzinfo=UTC) - _EPOCH).total_seconds() - (moment.utcoffset() or _NONE).total_seconds()


_EPOCH: Final = datetime(2020, 1, 1, tzinfo=UTC)
_NONE: Final = timedelta(0)


def _tokens(number: int, name: str, value: Any) -> int:
    amount = _number(value)
    if amount is None or amount != int(amount) or not 0 <= amount <= _MOST_TOKENS:
        raise BadTrace(
            f"line {number}: {name} must be a whole number of tokens, such as 120,"
            f" not {shown(value) or 'a list or an object'}"
        )
    return int(amount)


def _number(value: Any) -> float | None:
    """Return a finite number, or None where it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and "_" not in str(value) else None
