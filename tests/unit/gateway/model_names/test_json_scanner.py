"""Scanner of JSON: the top-level key `model` and its value, in whatever pieces the body comes."""

import inspect
import itertools
import json
import time
from math import inf
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.model_names import json_scanner, scanner
from gateway.model_names.json_scanner import JsonScanner, is_wide_object, may_be_object
from gateway.model_names.spelling import is_lookalike

KEYS = ["model", "Model", "mode", "models", "", "x", "model\0", "mo\u00addel", "\ud800", "m\\odel", 'm"odel', "a" * 200]


class Pairs(list[tuple[str, Any]]):
    """Members of a JSON object as they stand there, duplicates included."""


def scanned(body: bytes, *cuts: int) -> JsonScanner:
    """Return a scanner that has read a body, cut at the given positions."""
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    one = JsonScanner()
    for start, end in itertools.pairwise(places):
        one.feed(body[start:end])
    one.finish()
    return one


def outcome(body: bytes, *cuts: int) -> tuple[Any, ...]:
    """Return all that a scanner says about a body."""
    one = scanned(body, *cuts)
    return one.found, one.seen, one.complete, one.problem


def escaped(text: str, choices: list[bool]) -> str:
    """Return a JSON string in which the chosen characters are escaped."""
    parts = []
    for index, letter in enumerate(text):
        plain = json.dumps(letter)[1:-1]
        parts.append(f"\\u{ord(letter):04X}" if choices[index % len(choices)] and ord(letter) < 65536 else plain)
    return f'"{"".join(parts)}"'


blank = st.text(" \t\r\n", max_size=3)
strings = st.builds(
    escaped,
    st.sampled_from(KEYS) | st.text(max_size=6) | st.text('\\"{}[]:,model', max_size=9),
    st.lists(st.booleans(), min_size=1, max_size=5),
)
scalars = st.sampled_from(["null", "true", "false", "0", "-1.5e+10", "NaN", "Infinity", "-Infinity"]) | strings


def _joined(opening: str, closing: str, items: list[str], space: str) -> str:
    return f"{opening}{space}{f'{space},{space}'.join(items)}{space}{closing}"


def members(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return a strategy for JSON objects."""
    pair = st.builds("{}{}:{}{}".format, strings, blank, blank, values)
    return st.builds(_joined, st.just("{"), st.just("}"), st.lists(pair, max_size=5), blank)


values = st.recursive(
    scalars,
    lambda inner: st.builds(_joined, st.just("["), st.just("]"), st.lists(inner, max_size=4), blank) | members(inner),
    max_leaves=12,
)
objects = st.builds("{}{}{}{}".format, st.sampled_from(["", "\ufeff"]), blank, members(values), blank)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@given(objects.map(_encoded), st.lists(st.integers(0, 300), max_size=8))
@example(b'{"model":"a","x":{"model":"b"}}', [3, 5, 9])
@example(b'{"x":"\\\\","model":"\\u0061"}', [6, 7, 8, 20])
@example(b'{"model":null}', [11])
def test_the_scanner_finds_what_a_parser_finds(body: bytes, cuts: list[int]) -> None:
    """The scanner finds what Python's parser finds: the one value of `model`, or why there is none."""
    text = body.decode("utf-8", "surrogatepass").removeprefix("\ufeff")
    pairs = json.loads(text, object_pairs_hook=Pairs)
    one = scanned(body, *cuts)
    named = [value for key, value in pairs if key == "model"]
    if any(is_lookalike(key) for key, _ in pairs) or len(named) > 1:
        assert one.problem in (scanner.LOOKALIKE, scanner.DUPLICATE, scanner.NOT_A_STRING)
    elif not named or named == [None]:
        assert (one.found, one.problem, one.complete) == (None, None, True)
        assert one.seen == bool(named)
    elif isinstance(named[0], str):
        assert one.problem is None
        assert one.found is not None
        assert one.found.name == named[0]
        token = body[one.found.start : one.found.end].decode("utf-8", "surrogatepass")
        assert json.loads(token) == named[0]
    else:
        assert one.problem == scanner.NOT_A_STRING


@given(
    st.text('{}[]":,\\ \nmodelMu0061/x', max_size=60).map(str.encode) | objects.map(_encoded) | st.binary(max_size=40),
    st.lists(st.integers(0, 60), max_size=8),
)
@example(b'{"a":1 // }\n,"model":"x"}', [9])
@example(b'{"model":"x"}{', [13])
def test_the_pieces_do_not_matter(body: bytes, cuts: list[int]) -> None:
    """Whatever the bytes and wherever they are cut, the outcome is that of the whole body."""
    assert outcome(body, *cuts) == outcome(body)
    assert outcome(body, *range(len(body))) == outcome(body)


@given(st.text('{}[]":,\\ \nmodel1u0061', max_size=60), st.lists(st.integers(0, 60), max_size=4))
def test_what_a_parser_accepts_is_no_problem(text: str, cuts: list[int]) -> None:
    """What Python's parser reads as an object is read here, too, and a name that it finds is found."""
    try:
        pairs = json.loads(text, object_pairs_hook=Pairs)
    except ValueError:
        return
    one = scanned(text.encode(), *cuts)
    if not isinstance(pairs, Pairs):
        assert one.problem == scanner.NOT_AN_OBJECT
    else:
        assert one.complete or one.problem not in (None, scanner.NOT_JSON, scanner.NOT_AN_OBJECT)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", scanner.NOT_AN_OBJECT),
        (b"  \n", scanner.NOT_AN_OBJECT),
        (b"[]", scanner.NOT_AN_OBJECT),
        (b'"model"', scanner.NOT_AN_OBJECT),
        (b"{", scanner.NOT_JSON),
        (b'{"model":"a"', scanner.NOT_JSON),
        (b'{"model":"a', scanner.NOT_JSON),
        (b'{"model":"a"} x', scanner.NOT_JSON),
        (b'{"model":"a"}{"model":"b"}', scanner.NOT_JSON),
        (b'{"model":"a",}', scanner.NOT_JSON),
        (b'{"model" "a"}', scanner.NOT_JSON),
        (b'{model:"a"}', scanner.NOT_JSON),
        (b"{'model':'a'}", scanner.NOT_JSON),
        (b'{/* "model":"a", */"x":1}', scanner.NOT_JSON),
        (b'{"x":1 // }\n,"model":"a"}', scanner.NOT_JSON),
        (b'\x0b{"model":"a"}', scanner.NOT_JSON),
        (b'{"model":"\xff"}', scanner.NOT_JSON),
        ('{"model":"a"}'.encode("utf-16"), scanner.NOT_UTF_8),
        ('{"model":"a"}'.encode("utf-16-le"), scanner.NOT_UTF_8),
        ('{"model":"a"}'.encode("utf-16-be"), scanner.NOT_UTF_8),
        ('{"model":"a"}'.encode("utf-32"), scanner.NOT_UTF_8),
        (b'{"model":1}', scanner.NOT_A_STRING),
        (b'{"model":["a"]}', scanner.NOT_A_STRING),
        (b'{"model":NaN}', scanner.NOT_A_STRING),
        (b'{"model":"a","model":"a"}', scanner.DUPLICATE),
        (b'{"model":null,"model":"a"}', scanner.DUPLICATE),
        (b'{"model":"a","\\u006Dodel":"b"}', scanner.DUPLICATE),
        (b'{"Model":"a"}', scanner.LOOKALIKE),
        (b'{"model":"a","MODEL":"b"}', scanner.LOOKALIKE),
        (b'{"mod\\u0045l":"a"}', scanner.LOOKALIKE),
        (b'{"mo\xc2\xaddel":"a"}', scanner.LOOKALIKE),
        (b'{"mo\xffdel":"a"}', scanner.LOOKALIKE),
        (b'{"model\\u0000x":"a"}', scanner.LOOKALIKE),
        (b'{"model":"%b"}' % (b"a" * 5000), scanner.TOO_LONG),
    ],
)
def test_what_names_no_model_clearly(body: bytes, problem: str) -> None:
    """A body that names no model, or not in one way for every reader, has a problem that says what it is."""
    assert scanned(body).problem == problem


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf {"model":"a"}',
        b'{"t":NaN,"x":-Infinity,"model":"a"}',
        b'{"m":"\\ud800","model":"a"}',
        b'{"m":"\xed\xa0\x80\xff","model":"a"}',
        b'{"x":"\\\\\\"}{\\"model\\":1","model":"a"}',
        b'{"x":[[{"model":1},"model"],{"Model":2}],"model":"a"}',
        b'{"m":"line\nbreak","model":"a"}',
        b'{"\\u006d\\u006f\\u0064\\u0065\\u006c":"\\u0061"}',
    ],
)
def test_a_model_is_found(body: bytes) -> None:
    """The name is found in what model servers read, beside nested keys and strings that look like keys."""
    for cuts in ((), range(len(body))):
        one = scanned(body, *cuts)
        assert one.problem is None
        assert one.found is not None
        assert one.found.name == "a"


@pytest.mark.parametrize(
    ("start", "middle", "end"),
    [
        (b'{"model":"a","x":[', b'"",', b'""]}'),
        (b'{"model":"a","x":[', b"[],", b"[]]}"),
        (b'{"model":"a","x":"', b"\\\\", b'"}'),
        (b'{"model":"a","x":"', b"x" * 1000, b'"}'),
        (b'{"model":"a","x":', b"[", b"]" * 400_000 + b"}"),
    ],
)
def test_large_bodies_of_the_worst_kind(start: bytes, middle: bytes, end: bytes) -> None:
    """A large body of many small tokens, of deep nesting or of one long string is read to its end."""
    count = end.count(b"]") if middle == b"[" else 400_000 // len(middle)
    one = scanned(start + middle * count + end)
    assert (one.problem, one.complete) == (None, True)
    assert one.found is not None
    assert one.found.name == "a"


def test_an_object_has_a_bounded_number_of_names() -> None:
    """An object with more names at its top level than any request has is refused, and not looked through any more."""
    reader = JsonScanner()
    reader.feed(b'{"model": "a"' + b',"":{}' * (json_scanner.MOST_NAMES - 1))
    assert reader.problem is None
    reader.feed(b',"x":1}')
    assert reader.problem == scanner.TOO_MANY_NAMES


@given(
    st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3),
    blank,
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]),
    st.booleans(),
    st.data(),
)
def test_objects_in_every_encoding_are_known_by_their_start(
    value: dict[str, str], space: str, encoding: str, mark: bool, data: st.DataObject
) -> None:
    """Whatever has arrived of an object may be one, in each encoding of Unicode; those of wide units are told apart."""
    wide = "utf-8" not in encoding
    text = ("\ufeff" if mark and wide else "") + space + json.dumps(value)
    body = text.encode(encoding)
    assert may_be_object(body[: data.draw(st.integers(0, len(body)))])
    assert is_wide_object(body) is wide


@pytest.mark.parametrize(
    "start", [b"\0\0\0\x18ftyp", b"RIFF", b"\x89PNG", b"\xff\xfb\x90", b"[1", b"PK\3\4", b"\0" * 9]
)
def test_files_are_no_objects(start: bytes) -> None:
    """A file does not begin like an object."""
    assert not may_be_object(start)
    assert not is_wide_object(start)


@pytest.mark.parametrize("piece", [b" \0", b"\0 ", b" \0\0\0", b"\0\0\0 ", b"{\0 \0", b"\0"])
def test_blanks_without_an_end_are_judged_in_linear_time(piece: bytes) -> None:
    """Blanks in wide units do not keep the gateway busy, however many there are."""
    began = time.thread_time()
    may_be_object(piece * 1_000_000 + b"x")
    is_wide_object(piece * 1_000_000 + b"x")
    assert time.thread_time() - began < 1


COSTLY = {
    "a second model deep inside": (b'{"model":"demo","a":[', b'{"a":{"model":"x"}},', b"1]}"),
    "small objects": (b'{"model":"demo","a":[', b'{"a":[]},', b"1]}"),
    "small strings": (b'{"a":[', b'"a",', b'1],"model":"demo"}'),
    "escaped quotes": (b'{"a":[', b'"\\"",', b'1],"model":"demo"}'),
    "many keys": (b'{"model":"demo"', b',"":{}', b"}"),
    "one string": (b'{"a":"', b"A", b'","model":"demo"}'),
    "no end": (b'{"model":"demo","a":', b"[", b""),
}
"""Beginning, repeated item and end of bodies that cost most to scan."""


@pytest.mark.parametrize("kind", COSTLY)
def test_costly_bodies_take_little_time(kind: str) -> None:
    """A piece of 64 KiB takes 20 ms at most, of whatever body; compiled, a body of the largest size takes 1.5 s."""
    head, item, tail = COSTLY[kind]
    size = 1 << 20
    body = head + item * ((size - len(head) - len(tail)) // len(item)) + tail
    pieces = [body[start : start + 65536] for start in range(0, len(body), 65536)]
    least = [inf] * len(pieces)
    for _ in range(3):  # the least of several times: the machine may be busy with something else
        one = JsonScanner()
        for number, piece in enumerate(pieces):
            began = time.thread_time()
            one.feed(piece)
            least[number] = min(least[number], time.thread_time() - began)
    assert max(least) < 0.02
    if not inspect.isfunction(JsonScanner.feed):
        assert sum(least) * (32 << 20) / size < 1.5


OTHERS = frozenset({b"messages", b"prompt_cache_key"})


def places(body: bytes, *cuts: int) -> list[tuple[bytes, int]]:
    """Return the places of other keys that a scanner has found in a body, cut at the given positions."""
    ends = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    one = JsonScanner(OTHERS)
    for start, end in itertools.pairwise(ends):
        one.feed(body[start:end])
    one.finish()
    return one.places


@given(st.lists(st.integers(0, 200), max_size=5))
def test_places_of_other_keys(cuts: list[int]) -> None:
    """The places of other keys are those behind them at the top level, in whatever pieces the body comes."""
    body = (
        b'\xef\xbb\xbf {"model":"m", "a":{"messages":1}, "x":"\\"messages\\":", "messages" : ["model"],'
        rb' "Prompt_cache_\u006bey":"\\", "messages":null}'
    )
    found = places(body, *cuts)
    assert [name for name, _ in found] == [b"messages", b"prompt_cache_key", b"messages"]
    assert [body[at:].lstrip()[:1] for _, at in found] == [b":"] * 3
    assert [body[:at].rpartition(b",")[2].strip()[1:-1].lower() for _, at in found] == [
        b"messages", rb"prompt_cache_\u006bey", b"messages",
    ]  # fmt: skip


def test_places_have_a_bound() -> None:
    """Only the first places of other keys are noted."""
    assert len(places(b"{" + b",".join([b'"messages":1'] * 100) + b"}")) == json_scanner.MOST_PLACES
