"""Conversations: what requests of one have in common, however they are written."""

import json
from random import Random
from typing import Any, Final

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.conversation import BLOCK_TEXT_BYTES, MOST_BLOCKS, blocks_in_text, key_in_text, key_of_object
from gateway.model_names.json_scanner import JsonScanner

HELLO: Final[dict[str, Any]] = {"role": "user", "content": "hello"}
SYSTEM: Final[dict[str, Any]] = {"role": "system", "content": 'Be "brief" [and] {kind}.'}
KEYS: Final = frozenset({b"messages", b"input", b"instructions", b"system", b"prompt_cache_key", b"prompt"})


def in_text(body: bytes) -> bytes | None:
    """Return the key by the text of a body."""
    scanner = JsonScanner(KEYS)
    scanner.feed(body)
    return key_in_text(body, dict(scanner.places))


def spaced(value: Any, random: Random) -> bytes:
    """Return a value as JSON with some white space, and with letters that are escaped for no reason."""
    return _written(value, random).encode("utf-8", "surrogatepass")


def _written(value: Any, random: Random) -> str:
    blank = random.choice(["", " ", "\n\t "])
    if isinstance(value, dict):
        members = [f"{_written(name, random)}{blank}:{_written(member, random)}" for name, member in value.items()]
        return f"{blank}{{{','.join(members)}{blank}}}"
    if isinstance(value, list):
        return f"{blank}[{','.join(_written(item, random) for item in value)}]{blank}"
    if isinstance(value, str) and value and random.random() < 0.3 and value.isascii():
        return '"' + "".join(chr(92) + f"u{ord(letter):04x}" for letter in value) + '"'
    return f"{blank}{json.dumps(value, ensure_ascii=random.random() < 0.5)}{blank}"


def test_a_conversation_has_the_same_key_at_every_turn() -> None:
    """Later messages do not change the key, nor do other keys of the body."""
    first = key_of_object({"model": "m", "messages": [SYSTEM, HELLO]})
    more = [SYSTEM, HELLO, {"role": "assistant", "content": "hi"}, {"role": "user", "content": "and then?"}]
    assert first is not None
    assert key_of_object({"messages": more, "stream": True}) == first
    assert in_text(orjson.dumps({"n": [{"messages": 1}], "messages": more})) == first


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"messages": [HELLO]}, {"messages": [SYSTEM, HELLO]}),
        ({"messages": [HELLO]}, {"messages": [HELLO | {"content": "bye"}]}),
        ({"input": "hello"}, {"input": "bye"}),
        ({"input": "hello"}, {"input": "hello", "instructions": "Be brief."}),
        ({"messages": [HELLO], "system": "a"}, {"messages": [HELLO], "system": "b"}),
        ({"messages": [HELLO], "prompt_cache_key": "a"}, {"messages": [HELLO], "prompt_cache_key": "b"}),
        ({"messages": [HELLO], "prompt_cache_key": "a"}, {"messages": [HELLO]}),
    ],
)
def test_other_conversations_have_other_keys(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Conversations that begin differently, or say so, have different keys."""
    assert None not in (key_of_object(one), key_of_object(other))
    assert key_of_object(one) != key_of_object(other)
    assert in_text(orjson.dumps(one)) == key_of_object(one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"input": "hello"}, {"input": [HELLO | {"type": "message"}]}),
        ({"messages": [HELLO], "prompt_cache_key": "a"}, {"input": "x", "prompt_cache_key": "a"}),
        ({"messages": [HELLO], "prompt_cache_key": ""}, {"messages": [HELLO], "system": None}),
        (
            {"messages": [{"role": "user", "content": [{"text": "a", "cache_control": {"type": "ephemeral"}}]}]},
            {"messages": [{"role": "user", "content": [{"text": "a"}]}]},
        ),
    ],
)
def test_one_conversation_may_be_written_in_several_ways(one: dict[str, Any], other: dict[str, Any]) -> None:
    """What is written differently and means the same has the same key."""
    assert key_of_object(one) is not None
    assert key_of_object(one) == key_of_object(other) == in_text(orjson.dumps(one)) == in_text(orjson.dumps(other))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": [SYSTEM]},
        {"messages": ["hello"]},
        {"messages": 5},
        {"messages": {"role": "user"}},
        {"prompt": "once upon a time"},
        {"input": None},
        {"prompt_cache_key": 5},
    ],
)
def test_a_request_without_a_conversation(body: dict[str, Any]) -> None:
    """A request that shows no conversation has no key."""
    assert key_of_object(body) is None
    assert in_text(orjson.dumps(body)) is None


words = st.text('ab"\\\\{}[]:, ü€', max_size=8)
contents = words | st.lists(st.dictionaries(st.sampled_from(["text", "cache_control", "x"]), words), max_size=2)
messages = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": contents})
bodies = st.fixed_dictionaries(
    {"messages": st.lists(messages, max_size=4)},
    optional={"system": contents, "instructions": words, "prompt_cache_key": words, "n": words},
)


@given(bodies, st.randoms(use_true_random=False))
def test_a_text_has_the_key_of_what_it_says(body: dict[str, Any], random: Any) -> None:
    """The key by the text of a body, whatever its white space and escapes, is that of the body itself."""
    assert in_text(spaced(body, random)) == key_of_object(body)


def test_values_that_are_too_long_count_by_their_beginning() -> None:
    """A first message above the limit, cut in the middle, is the same in all requests of the conversation."""
    long = {"role": "user", "content": 'a\\"[' * 50000}
    first = in_text(orjson.dumps({"messages": [long], "system": "s"}))
    assert first is not None
    assert in_text(orjson.dumps({"messages": [long, SYSTEM, HELLO], "system": "s"})) == first
    assert in_text(orjson.dumps({"messages": [long], "system": "other"})) != first


@pytest.mark.parametrize("role", ["system", "user"])
def test_half_a_surrogate_pair_changes_no_conversation(role: str) -> None:
    """A text that was cut within a character, as JavaScript does it, is the same in all requests of a conversation."""
    beginning = f'{{"role": "{role}", "content": "cut \\ud83d"}}, {json.dumps(HELLO)}'
    first = in_text(f'{{"messages": [{beginning}]}}'.encode())
    later = in_text(f'{{"messages": [{beginning}, {{"role": "assistant", "content": "hi"}}], "stream": true}}'.encode())
    assert first is not None
    assert first == later
    assert first != in_text(f'{{"messages": [{beginning.replace("cut", "other")}]}}'.encode())


@pytest.mark.parametrize("depth", [200, 500, 1010])
def test_a_message_that_is_nested_deeply(depth: int) -> None:
    """A message that is nested more deeply than it can be written has a key, too."""
    body = b'{"messages":[{"role":"user","content":%b%b}]}' % (b"[" * depth, b"]" * depth)
    assert key_of_object(orjson.loads(body)) is not None
    assert in_text(body) is not None


@given(st.binary(max_size=60), st.integers(0, 9))
def test_a_text_that_is_no_json(rest: bytes, position: int) -> None:
    """Whatever bytes follow a key, they give a key or none."""
    in_text(b'{"messages":' + rest)
    key_in_text(rest, {b"messages": position, b"system": 0})


def blocks(body: Any) -> list[bytes]:
    """Return the blocks of a prompt."""
    text = orjson.dumps(body)
    scanner = JsonScanner(KEYS)
    scanner.feed(text)
    found = blocks_in_text(text, dict(scanner.places))
    return [found[start : start + 8] for start in range(0, len(found), 8)]


def test_a_prompt_begins_with_the_blocks_of_what_it_repeats() -> None:
    """The blocks of a turn are those of the next one, too, up to the end of the last message."""
    first = [SYSTEM | {"content": "a" * 5000}, HELLO]
    one, other = blocks({"messages": first, "tools": ["x" * 9000]}), blocks({"messages": [*first, SYSTEM] * 2})
    assert len(one) == 4
    assert other[:4] == one
    assert blocks({"messages": [SYSTEM | {"content": "b" + "a" * 5000}]})[0] != one[0]


def test_what_comes_before_the_messages_counts() -> None:
    """Instructions, Anthropic's system prompt and the prompt of completions are the beginning of a prompt."""
    long = "a" * 3000
    assert blocks({"input": "b", "instructions": long}) == blocks({"input": "c", "instructions": long})
    assert len(blocks({"messages": [HELLO], "system": [{"text": long}]})) == 2
    assert len(blocks({"prompt": long})) == 2
    assert blocks({"prompt": 5, "messages": None, "input": [HELLO]}) == []


def test_a_prompt_has_a_bound() -> None:
    """Of a long prompt only the first blocks count."""
    assert len(blocks({"prompt": "a\\" * (MOST_BLOCKS * BLOCK_TEXT_BYTES)})) == MOST_BLOCKS
