"""Traces: every published form is read, and a line that cannot be used is named with what to write."""

import contextlib
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hooks.simulate import traces
from hooks.simulate.requests import Request, TooMany
from hooks.simulate.traces import BadTrace, read_trace

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.6805900,396,109
"""
MOONCAKE = """{"timestamp": 1000, "input_length": 374, "output_length": 44, "hash_ids": [0, 1]}
{"timestamp": 5000, "input_length": 396, "output_length": 109, "hash_ids": [0]}
"""
PLAIN_NAMES = "time,prompt,generated"
AZURE_NAMES = "TIMESTAMP,ContextTokens,GeneratedTokens"
MOONCAKE_NAMES = "timestamp,input_length,output_length"
TIME = "such as 1500, or a time such as 2023-11-16 18:15:46.68"
TOKENS = "must be a whole number of tokens, such as 120"
REQUESTS = [Request(0.0, 374, 44), Request(4.0, 396, 109)]


@pytest.mark.parametrize(
    "text",
    [
        AZURE,
        AZURE.replace("\n", "\r\n"),
        "\ufeff" + AZURE,
        AZURE.replace(":46", ":46").replace("6805900,", "680590+02:00,"),
        MOONCAKE,
        MOONCAKE + "\n\n",
        "timestamp,input_length,output_length\n1000,374,44\n5000,396,109\n",
        "time,prompt,generated\n7,374,44\n11,396,109\n",
        "7,374,44\n11,396,109\n",
        "Generated,model,Time,Prompt\n44,a,7,374\n109,b,11,396\n",
        'time,prompt,generated\n"7","374","44"\n11.0,396.0,109\n',
        "time,prompt,generated\n11,396,109\n7,374,44\n",
        '{"time": 7, "prompt": 374, "generated": 44}\n{"prompt": 396, "time": 11, "generated": 109}',
        "time,prompt,generated\n2026-01-01T00:00:00Z,374,44\n2026-01-01T02:00:04+02:00,396,109\n",
    ],
)
def test_forms(text: str) -> None:
    """Every form of a trace gives the same requests, in the order of their arrival and from time zero on."""
    requests = read_trace(text.splitlines(keepends=True))
    assert [(round(one.time, 6), one.prompt, one.generated) for one in requests] == REQUESTS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no request: write one in each line, under the names time,prompt,generated"),
        ("time,prompt,generated\n", "has no request: write one in each line, under the names time,prompt,generated"),
        (
            "TIMESTAMP,ContextTokens\n1,2\n",
            "line 1: has no column GeneratedTokens: name the columns TIMESTAMP,ContextTokens,GeneratedTokens",
        ),
        (
            "a,b,c\n1,2,3\n",
            f"line 1: must name the columns: {PLAIN_NAMES}, or {AZURE_NAMES}, or {MOONCAKE_NAMES}",
        ),
        (
            "time,prompt,generated\n1,2,3\n2,few,3\n",
            "line 3: prompt must be a whole number of tokens, such as 120, not 'few'",
        ),
        (
            "time,prompt,generated\n1,2,-3\n",
            f"line 2: generated {TOKENS}, not '-3'",
        ),
        (
            "time,prompt,generated\n1,2,3.5\n",
            f"line 2: generated {TOKENS}, not '3.5'",
        ),
        ("time,prompt,generated\n1,2\n", "line 2: has 2 columns: write 3, with commas between them"),
        (
            "time,prompt,generated\nnan,2,3\n",
            f"line 2: time must be seconds {TIME}, not 'nan'",
        ),
        (
            f"{MOONCAKE}[1, 2]\n",
            'line 3: must be a JSON object, such as {"timestamp": 1500, "input_length": 800, "output_length": 120}',
        ),
        (
            f'{MOONCAKE}{{"timestamp": 9, "input_length": 1}}\n',
            "line 3: output_length must be a whole number of tokens, such as 120, not null",
        ),
        (
            '{"timestamp": [1], "input_length": 1, "output_length": 1}\n',
            f"line 1: timestamp must be milliseconds {TIME}, not a list or an object",
        ),
    ],
)
def test_what_cannot_be_used(text: str, message: str) -> None:
    """A trace that cannot be used is refused with the number of the line and what to write there."""
    with pytest.raises(BadTrace) as caught:
        read_trace(text.splitlines(keepends=True))
    assert str(caught.value) == message


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace with too many requests, or about too long a time, is refused."""
    monkeypatch.setattr(traces, "MOST_REQUESTS", 2)
    with pytest.raises(TooMany, match="has more than 2 requests"):
        read_trace(["1,1,1", "1,1,1", "1,1,1"])
    with pytest.raises(TooMany, match="is about more than 31 days"):
        read_trace(["1,1,1", "3000000,1,1"])


@settings(max_examples=30)
@given(st.lists(st.text(alphabet=string.printable, max_size=30), max_size=5), st.sampled_from(["", AZURE, MOONCAKE]))
def test_any_text(lines: list[str], head: str) -> None:
    """Any text is a trace or is refused with a message; nothing else is raised."""
    requests = []
    with contextlib.suppress(BadTrace, TooMany):
        requests = read_trace([*head.splitlines(), *lines])
    assert requests == sorted(requests, key=lambda one: one.time)
    assert not requests or requests[0].time == 0


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**5), st.integers(0, 10**4)), min_size=1))
def test_what_is_written_is_read(rows: list[tuple[int, int, int]]) -> None:
    """The requests that are read from a CSV are those that it was written from."""
    text = ["time,prompt,generated", *(f"{time},{prompt},{generated}" for time, prompt, generated in rows)]
    first = min(row[0] for row in rows)
    assert sorted(read_trace(text)) == sorted(Request(row[0] - first, row[1], row[2]) for row in rows)
