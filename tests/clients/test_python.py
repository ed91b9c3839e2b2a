"""Clients for Python at the gateway: openai, anthropic, httpx and aiohttp."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import aiohttp
import anthropic
import httpx
import openai
import pytest
from yarl import URL

from tests.clients.calls import (
    MESSAGES,
    MODELS,
    SPEECH,
    STREAMS,
    failure_of,
    outcome_of,
    outcome_of_stream,
    request_of,
    text_of,
)  # fmt: skip
from tests.clients.conftest import Place
from tests.clients.model_server import TEXT
from tests.clients.outcomes import calls_of, check
from tests.deadlines import SECONDS
from tools.client_cases import WORKS


async def with_openai(place: Place, call: str, case: str) -> str:
    """Make a call with the `openai` client; return its outcome."""
    model = MODELS.get(call, "demo")
    url = f"{place.url}/v1"
    async with openai.AsyncOpenAI(
        base_url=url, api_key="key", max_retries=0, timeout=SECONDS, default_headers={"x-case": case}
    ) as client:
        try:
            match call:
                case "stream" | "cancel" | "silence" | "late":
                    text = ""
                    stream = await client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
                    async for chunk in stream:
                        text += chunk.choices[0].delta.content or ""
                        if call == "cancel":
                            await stream.close()
                            break
                    assert text == (TEXT[:4] if call == "cancel" else TEXT)
                case "transcription":
                    heard = await client.audio.transcriptions.create(model=model, file=("a.wav", SPEECH, "audio/wav"))
                    assert heard.text == TEXT
                case "embeddings":
                    assert len((await client.embeddings.create(model=model, input=["a", "b"])).data) == 2
                case "list":
                    assert "demo" in [one.id async for one in client.models.list()]
                case "retrieve" | "namespaced":
                    name = "demo" if call == "retrieve" else "default/demo"
                    assert (await client.models.retrieve(name)).id == name
                case _:
                    response = await client.chat.completions.create(model=model, messages=MESSAGES)
                    assert response.choices[0].message.content == TEXT
        except openai.APIStatusError as exc:
            return f"{type(exc).__name__} {exc.code}" if exc.request_id else "no request id"
        except openai.APIError as exc:  # of an event
            return f"{type(exc).__name__} {exc.code}"
    return WORKS


async def with_anthropic(place: Place, call: str, case: str) -> str:
    """Make a call with the `anthropic` client; return its outcome."""
    model = MODELS.get(call, "demo")
    async with anthropic.AsyncAnthropic(
        base_url=place.url, api_key="key", max_retries=0, timeout=SECONDS, default_headers={"x-case": case}
    ) as client:
        try:
            match call:
                case "stream" | "silence" | "late":
                    async with client.messages.stream(model=model, messages=MESSAGES, max_tokens=9) as stream:
                        assert "".join([text async for text in stream.text_stream]) == TEXT
                        assert (await stream.get_final_message()).stop_reason == "end_turn"
                case "cancel":
                    async with client.messages.stream(model=model, messages=MESSAGES, max_tokens=9) as stream:
                        assert (await anext(stream.text_stream)) == TEXT[:4]
                case "list":
                    assert "demo" in [one.id async for one in client.models.list()]
                case "retrieve" | "namespaced":
                    name = "demo" if call == "retrieve" else "default/demo"
                    assert (await client.models.retrieve(name)).id == name
                case _:
                    message = await client.messages.create(model=model, messages=MESSAGES, max_tokens=9)
                    assert [block.text for block in message.content if block.type == "text"] == [TEXT]
        except anthropic.APIStatusError as exc:
            return f"{type(exc).__name__} {exc.type}"
    return WORKS


async def with_httpx(place: Place, call: str, case: str) -> str:
    """Make a call with httpx; return its outcome."""
    method, path, body = request_of(call)
    sent: dict[str, Any] = {"json": body}
    if call == "transcription":
        sent = {"data": {"model": "demo"}, "files": {"file": ("a.wav", SPEECH, "audio/wav")}}
    async with (
        httpx.AsyncClient(base_url=place.url, timeout=SECONDS, trust_env=False, headers={"x-case": case}) as client,
        client.stream(method, path, **sent) as response,
    ):
        if call not in STREAMS:
            return outcome_of(call, response.status_code, (await response.aread()).decode())
        text = failure = ""
        async for line in response.aiter_lines():
            text += text_of(line)
            failure += failure_of(line)
            if call == "cancel" and text:
                break
    return outcome_of_stream(call, text, failure)


async def with_aiohttp(place: Place, call: str, case: str) -> str:
    """Make a call with aiohttp; return its outcome."""
    method, path, body = request_of(call)
    async with aiohttp.ClientSession(headers={"x-case": case}, timeout=aiohttp.ClientTimeout(SECONDS)) as session:
        url = URL(place.url + path, encoded=True)
        sent: dict[str, Any] = {"json": body}
        if call == "transcription":
            form = aiohttp.FormData({"model": "demo"})
            form.add_field("file", SPEECH, filename="a.wav", content_type="audio/wav")
            sent = {"data": form}
        async with session.request(method, url, **sent) as response:
            if call not in STREAMS:
                return outcome_of(call, response.status, await response.text())
            text = failure = ""
            async for line in response.content:
                text += text_of(line.decode())
                failure += failure_of(line.decode())
                if call == "cancel" and text:
                    response.close()
                    break
    return outcome_of_stream(call, text, failure)


RUN: Final[Mapping[str, Callable[[Place, str, str], Awaitable[str]]]] = {
    "openai-python": with_openai,
    "anthropic-python": with_anthropic,
    "httpx": with_httpx,
    "aiohttp": with_aiohttp,
}


@calls_of(*RUN)
async def test_a_call(place: Place, client: str, call: str) -> None:
    """A call of a client for Python has its outcome, and the model server gets exactly what it should."""
    check(place, client, call, await RUN[client](place, call, f"{client}/{call}"))


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/routes"])
def test_the_port_for_administrators_is_not_for_websites(place: Place, path: str) -> None:
    """No response of the port for administrators can be read by a website, whatever its origin."""
    for method in ("GET", "OPTIONS"):
        fields = {"origin": place.site, "access-control-request-method": "GET"}
        response = httpx.request(method, place.admin + path, headers=fields, trust_env=False, timeout=SECONDS)
        assert not [name for name in response.headers if name.startswith("access-control-")]
