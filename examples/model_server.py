"""A server that speaks OpenAI's and Anthropic's APIs and needs no model.

It is for trying the controller on one machine, and for tests.

    python -m examples.model_server --listen 127.0.0.1:9101 --model tiny-local

It serves one model name, under `/v1` and, as the remote platform does, under `/<workspace>/<model>/v1`. With a
client id and secret it wants a bearer token from its own endpoint, `POST /v0/oauth/token`. How fast it is, whether it
is ready and which requests fail is said by flags, and at runtime under `/_demo`, which needs no token. `/metrics` is
for Prometheus, with the names that vLLM gives its own.
"""

import argparse
import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from itertools import count
from typing import Annotated, Any, Final

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from starlette.exceptions import HTTPException

from examples import anthropic_messages, openai_responses, pretend_model
from examples.tokens import OAuthError, TokenIssuer

_BODY_BYTES: Final = 16 << 20
_LIMITS: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")
"""Names of the field that bounds the tokens of a response, in the APIs that are spoken here."""
CRASH_SECONDS: Final = 0.1
"""Seconds after `POST /_demo/crash` at which the server ends."""
_POLL_SECONDS: Final = 0.1
"""Seconds between two looks of a running request whether its client is still there."""
_PIECES: Final = ("content_block_delta", "response.output_text.delta")
"""Types of the events that have a piece of the text."""


@dataclass(slots=True)
class Speed:
    """The speed of the server, which may change at any time."""

    time_to_first_token: float = 0.05
    """Seconds before the first token."""
    tokens_per_second: float = 50.0
    """Tokens per second; 0 for no pause between them."""
    concurrency: int = 0
    """Number of requests that are served at the same time, while the others wait; 0 for all."""


@dataclass(slots=True)
class Failures:
    """The failures: which requests fail, and how."""

    every: int = 0
    """Each n-th request fails; 0 for none."""
    count: int = 0
    """The next n requests fail."""
    status: int = 500

    def hits(self, number: int) -> bool:
        """Return whether request `number`, counted from 1, fails. This uses up one of the next n."""
        if self.count:
            self.count -= 1
            return True
        return self.every > 0 and number % self.every == 0


@dataclass(slots=True)
class State:
    """The state of the server."""

    model: str
    ready: bool = True
    speed: Speed = field(default_factory=Speed)
    failures: Failures = field(default_factory=Failures)
    requests: int = 0
    """Number of requests to a model since the start, refused ones included."""
    running: int = 0
    waiting: int = 0
    last_request: dict[str, Any] | None = None
    freed: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of the places that `concurrency` allows."""
        self.waiting += 1
        try:
            while 0 < self.speed.concurrency <= self.running:
                self.freed.clear()
                await self.freed.wait()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self.freed.set()

    def shown(self) -> dict[str, Any]:
        """Return the response to `GET /_demo/state`."""
        names = ("model", "ready", "requests", "running", "waiting")
        listed = {name: getattr(self, name) for name in names}
        return listed | {"speed": asdict(self.speed), "failures": asdict(self.failures)}


class ApiError(Exception):
    """An error response in the shape of OpenAI's API, or of Anthropic's on its paths."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    def response(self, path: str) -> Response:
        """Return the error as the HTTP response to a request of this path."""
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else None
        if path.endswith("/v1/messages"):
            return JSONResponse(anthropic_messages.error(self.status, self.message), self.status, headers)
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return JSONResponse({"error": error}, self.status, headers)


def create_app(state: State, issuer: TokenIssuer | None = None) -> FastAPI:
    """Return the application. With `issuer` models require its tokens."""
    app = FastAPI(title=f"Demo model server: {state.model}", docs_url=None, redoc_url=None, openapi_url=None)
    registry = _gauges(state)

    async def authorize(request: Request) -> None:
        body = await request.body()
        state.last_request = {
            "method": request.method,
            "path": request.url.path,
            "query": request.url.query,
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers.raw],
            "body": body.decode("utf-8", "replace"),
        }
        if issuer is not None and not issuer.accepts(request.headers.get("authorization")):
            raise ApiError(
                401, "A bearer token of this server is needed; it sells them at /v0/oauth/token.", "no_token"
            )

    async def is_ours(served: str) -> None:
        if served != state.model:
            raise _unknown_model(served, state.model)

    models = _model_routes(state)
    app.include_router(models, dependencies=[Depends(authorize)])
    app.include_router(models, prefix="/{workspace}/{served}", dependencies=[Depends(authorize), Depends(is_ours)])
    app.include_router(_demo_routes(state, issuer))

    @app.get("/health")
    async def health() -> Response:
        """Respond to a readiness probe."""
        words = ("ok\n", 200) if state.ready else ("not ready\n", 503)
        return Response(*words, media_type="text/plain")

    @app.get("/metrics")
    async def metrics() -> Response:
        """Respond with the number of running and of waiting requests."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/v0/oauth/token")
    @app.post("/oauth/token")
    async def token(request: Request) -> Response:
        """Issue a token for client credentials."""
        if issuer is None:
            raise ApiError(404, "This server wants no tokens: give it --oauth-client-id and --oauth-client-secret.")
        try:
            response = issuer.issue(await request.body(), request.headers.get("authorization"))
        except OAuthError as error:
            headers = {"WWW-Authenticate": "Basic"} if error.status == 401 else {}
            refusal = {"error": error.code, "error_description": str(error)}
            return JSONResponse(refusal, error.status, headers | {"Cache-Control": "no-store"})
        return JSONResponse(response, headers={"Cache-Control": "no-store"})

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        return error.response(request.url.path)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        words = f"{request.method} {request.url.path}: {HTTPStatus(error.status_code).phrase.lower()}."
        return ApiError(error.status_code, words).response(request.url.path)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        problem = error.errors()[0]
        where = str(problem["loc"][-1])
        return ApiError(400, f"{where}: {problem['msg']}.", param=where).response(request.url.path)

    return app


def _gauges(state: State) -> CollectorRegistry:
    registry = CollectorRegistry()

    def gauge(name: str, help_text: str, value: Callable[[], float]) -> None:
        shown = Gauge(f"vllm:num_requests_{name}", help_text, ["model_name"], registry=registry)
        shown.labels(state.model).set_function(value)

    gauge("running", "Requests that are being served.", lambda: state.running)
    gauge("waiting", "Requests that wait for their turn.", lambda: state.waiting)
    return registry


def _model_routes(state: State) -> APIRouter:
    router = APIRouter(prefix="/v1")
    numbers = count(1)

    async def body_of(request: Request) -> dict[str, Any]:
        """Return the content of a request, after it is certain that it is for this model and shall succeed."""
        state.requests += 1
        if state.failures.hits(state.requests):
            raise ApiError(state.failures.status, "Failed as asked under /_demo/failures.", "demo_failure")
        raw = await request.body()
        if len(raw) > _BODY_BYTES:
            raise ApiError(413, "The body is larger than 16 MiB.")
        try:
            content = json.loads(raw)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise ApiError(400, "The body must be a JSON object.")
        model = content.get("model")
        if not isinstance(model, str):
            raise ApiError(400, "model must be a string.", param="model")
        if model != state.model:
            raise _unknown_model(model, state.model)
        if content.get("n") not in (None, 1):
            raise ApiError(400, "n: this server gives one choice.", param="n")
        return content

    Body = Annotated[dict[str, Any], Depends(body_of)]  # noqa: N806 - a type

    @router.get("/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [_described(state.model)]}

    @router.get("/models/{name:path}")
    async def get_model(name: str) -> dict[str, Any]:
        if name != state.model:
            raise _unknown_model(name, state.model)
        return _described(name)

    @router.post("/chat/completions")
    async def chat(request: Request, body: Body) -> Response:
        texts = _texts(body.get("messages"), "messages")
        said = _generation(state.model, texts[-1], "\n".join(texts), body)
        identity = {"id": f"chatcmpl-{next(numbers)}", "created": int(time.time()), "model": state.model}
        if body.get("stream"):
            head = {"object": "chat.completion.chunk", **identity}
            first: dict[str, Any] = {"delta": {"role": "assistant", "content": ""}}
            deltas = [first, *({"delta": {"content": token}} for token in said.tokens)]
            last = {"delta": {}, "finish_reason": said.finish_reason}
            return _stream(state, head, deltas, last, said, body)
        await _spend(state, request, said)
        choice = {"index": 0, "message": {"role": "assistant", "content": said.text}}
        choice |= {"finish_reason": said.finish_reason, "logprobs": None}
        return JSONResponse({"object": "chat.completion", **identity, "choices": [choice], "usage": said.usage})

    @router.post("/completions")
    async def complete(request: Request, body: Body) -> Response:
        prompt = body.get("prompt")
        if not isinstance(prompt, str | list) or (isinstance(prompt, list) and len(prompt) != 1):
            raise ApiError(400, "prompt must be a string or a list with one.", param="prompt")
        text = prompt if isinstance(prompt, str) else str(prompt[0])
        said = _generation(state.model, text, text, body)
        identity = {"id": f"cmpl-{next(numbers)}", "created": int(time.time()), "model": state.model}
        head = {"object": "text_completion", **identity}
        if body.get("stream"):
            pieces: list[dict[str, Any]] = [{"text": token} for token in said.tokens]
            return _stream(state, head, pieces, {"text": "", "finish_reason": said.finish_reason}, said, body)
        await _spend(state, request, said)
        choice = {"index": 0, "text": said.text, "finish_reason": said.finish_reason, "logprobs": None}
        return JSONResponse({**head, "choices": [choice], "usage": said.usage})

    @router.post("/messages")
    async def send_message(request: Request, body: Body) -> Response:
        if body.get("max_tokens") is None:
            raise ApiError(400, "max_tokens: Field required.", param="max_tokens")
        texts = _texts(body.get("messages"), "messages")
        said = _generation(state.model, texts[-1], "\n".join([_text(body.get("system")), *texts]), body)
        identity = f"msg_{next(numbers)}"
        if body.get("stream"):
            return _named_stream(state, anthropic_messages.events(identity, state.model, said))
        await _spend(state, request, said)
        return JSONResponse(anthropic_messages.message(identity, state.model, said))

    @router.post("/responses")
    async def respond(request: Request, body: Body) -> Response:
        if body.get("previous_response_id") is not None:
            raise ApiError(400, "This server keeps no responses.", param="previous_response_id")
        given = body.get("input")
        texts = [given] if isinstance(given, str) else _texts(given, "input")
        said = _generation(state.model, texts[-1], "\n".join([_text(body.get("instructions")), *texts]), body)
        number, created = next(numbers), int(time.time())
        if body.get("stream"):
            return _named_stream(state, openai_responses.events(number, created, body, said))
        await _spend(state, request, said)
        return JSONResponse(openai_responses.response(number, created, body, said))

    @router.post("/embeddings")
    async def embed(body: Body) -> Response:
        given = body.get("input")
        inputs = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
        dimensions = body.get("dimensions", pretend_model.DIMENSIONS)
        if given in (None, "", []) or not isinstance(dimensions, int) or not 1 <= dimensions <= 4096:
            raise ApiError(400, "input must not be empty, and dimensions must be from 1 to 4096.", param="input")
        texts = [one if isinstance(one, str) else json.dumps(one) for one in inputs]
        vectors = [pretend_model.embed(text, dimensions) for text in texts]
        packed = body.get("encoding_format") == "base64"
        listed = [
            {"object": "embedding", "index": index, "embedding": pretend_model.packed(one) if packed else one}
            for index, one in enumerate(vectors)
        ]
        async with state.slot():
            await asyncio.sleep(state.speed.time_to_first_token)
        tokens = sum(len(pretend_model.split(text)) for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "model": state.model, "data": listed, "usage": usage})

    return router


def _demo_routes(state: State, issuer: TokenIssuer | None) -> APIRouter:
    router = APIRouter(prefix="/_demo")
    Seconds = Annotated[float | None, Query(ge=0, le=3600)]  # noqa: N806 - types
    Number = Annotated[int | None, Query(ge=0, le=1_000_000)]  # noqa: N806

    def shown() -> dict[str, Any]:
        return state.shown() | {"tokens_issued": issuer.issued if issuer is not None else None}

    @router.get("/state")
    async def show() -> dict[str, Any]:
        return shown()

    @router.get("/last-request")
    async def last_request() -> dict[str, Any]:
        """Respond with the last request to a model as it arrived, header fields in order."""
        if state.last_request is None:
            raise ApiError(404, "No model has been asked yet.")
        return state.last_request

    @router.post("/ready")
    async def ready() -> dict[str, Any]:
        state.ready = True
        return shown()

    @router.post("/unready")
    async def unready() -> dict[str, Any]:
        """Fail the readiness probe from now on. Requests still get responses, as from a real server."""
        state.ready = False
        return shown()

    @router.post("/crash")
    async def crash() -> dict[str, Any]:
        """End the process without a word to anyone, as a server does that runs out of memory."""
        asyncio.get_running_loop().call_later(CRASH_SECONDS, os.kill, os.getpid(), signal.SIGKILL)
        return shown() | {"crashes_in_seconds": CRASH_SECONDS}

    @router.post("/speed")
    async def speed(
        time_to_first_token: Seconds = None,
        tokens_per_second: Annotated[float | None, Query(ge=0, le=1_000_000)] = None,
        concurrency: Number = None,
    ) -> dict[str, Any]:
        """Change the speed. Parameters that are absent keep their value."""
        given = {
            "time_to_first_token": time_to_first_token,
            "tokens_per_second": tokens_per_second,
            "concurrency": concurrency,
        }
        for name, value in given.items():
            if value is not None:
                setattr(state.speed, name, value)
        state.freed.set()
        return shown()

    @router.post("/failures")
    async def failures(
        every: Number = 0, count: Number = 0, status: Annotated[int, Query(ge=400, le=599)] = 500
    ) -> dict[str, Any]:
        """Make each n-th request or the next n fail with a status, or none without parameters."""
        state.failures = Failures(every or 0, count or 0, status)
        return shown()

    @router.post("/revoke")
    async def revoke() -> dict[str, Any]:
        """Revoke all tokens."""
        if issuer is not None:
            issuer.revoke()
        return shown()

    return router


def _described(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": 0, "owned_by": "examples"}


def _unknown_model(asked: str, own: str) -> ApiError:
    return ApiError(
        404, f"The model {asked!r} does not exist here; this server has {own!r}.", "model_not_found", "model"
    )


def _text(content: object) -> str:
    """Return the text of a message's content: a string, or parts of which those with text count."""
    if isinstance(content, list):
        return " ".join(str(part["text"]) for part in content if isinstance(part, dict) and "text" in part)
    return content if isinstance(content, str) else ""


def _texts(messages: object, name: str) -> list[str]:
    """Return the texts of the messages in a field of this name; there is at least one.

    Raises:
        ApiError: The field is no list of messages.
    """
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise ApiError(400, f"{name} must be a list with at least one message.", param=name)
    return [_text(one.get("content")) for one in messages]


def _generation(model: str, prompt: str, whole: str, body: dict[str, Any]) -> pretend_model.Generation:
    name = next((one for one in _LIMITS if body.get(one)), "max_tokens")
    limit = body.get(name)
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise ApiError(400, f"{name} must be a positive integer.", param=name)
    return pretend_model.generate(model, prompt, whole_prompt=whole, max_tokens=limit)


def _pause(speed: Speed) -> float:
    """Return the seconds between two tokens."""
    return 1 / speed.tokens_per_second if speed.tokens_per_second else 0.0


async def _spend(state: State, request: Request, said: pretend_model.Generation) -> None:
    """Wait for the duration of a response, unless the client goes."""
    async with state.slot():
        loop = asyncio.get_running_loop()
        end = loop.time() + state.speed.time_to_first_token + _pause(state.speed) * (len(said.tokens) - 1)
        while (left := end - loop.time()) > 0 and not await request.is_disconnected():
            await asyncio.sleep(min(left, _POLL_SECONDS))


def _stream(
    state: State,
    head: dict[str, Any],
    pieces: Sequence[dict[str, Any]],
    last: dict[str, Any],
    said: pretend_model.Generation,
    body: dict[str, Any],
) -> Response:
    """Yield one server-sent event per piece, then the usage where it was requested, then [DONE]."""
    options = body.get("stream_options")
    with_usage = isinstance(options, dict) and bool(options.get("include_usage"))

    def event(choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
        content: dict[str, Any] = {**head, "choices": choices}
        if with_usage:
            content["usage"] = usage
        return b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"

    async def events() -> AsyncIterator[bytes]:
        async with state.slot():
            await asyncio.sleep(state.speed.time_to_first_token)
            for piece in pieces:
                yield event([{"index": 0, "finish_reason": None, **piece}])
                await asyncio.sleep(_pause(state.speed))
            yield event([{"index": 0, **last}])
        if with_usage:
            yield event([], said.usage)
        yield b"data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


def _named_stream(state: State, events: Iterable[dict[str, Any]]) -> Response:
    """Send server-sent events that have their type as their name, with a pause after each piece of the text."""

    async def sent() -> AsyncIterator[bytes]:
        async with state.slot():
            await asyncio.sleep(state.speed.time_to_first_token)
            for event in events:
                data = json.dumps(event, separators=(",", ":"))
                yield f"event: {event['type']}\ndata: {data}\n\n".encode()
                if event["type"] in _PIECES:
                    await asyncio.sleep(_pause(state.speed))

    return StreamingResponse(sent(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.model_server", description="A demo model server.")
    add = parser.add_argument
    add("--listen", default="127.0.0.1:9101", metavar="HOST:PORT", help="where to listen (%(default)s)")
    add("--model", required=True, help="the one model that it serves")
    add("--oauth-client-id", metavar="ID", help="models are asked with a token only, and this client may buy one")
    add("--oauth-client-secret", metavar="SECRET")
    add("--token-seconds", type=float, default=3600.0, metavar="S", help="how long a token is valid (%(default)s)")
    add("--time-to-first-token", type=float, default=0.05, metavar="S", help="(%(default)s)")
    add("--tokens-per-second", type=float, default=50.0, metavar="N", help="0: without a pause (%(default)s)")
    add(
        "--concurrency", type=int, default=0, metavar="N", help="requests at the same time, 0: any number (%(default)s)"
    )
    add("--fail-every", type=int, default=0, metavar="N", help="each n-th request fails, 0: none (%(default)s)")
    add("--fail-status", type=int, default=500, metavar="STATUS", help="(%(default)s)")
    add("--unready", action="store_true", help="start without being ready")
    given = parser.parse_args(arguments)
    host, _, port = given.listen.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        parser.error(f"--listen must be host:port, not {given.listen}")
    if bool(given.oauth_client_id) != bool(given.oauth_client_secret):
        parser.error("--oauth-client-id and --oauth-client-secret are given together or not at all")
    if min(given.time_to_first_token, given.tokens_per_second, given.concurrency, given.fail_every) < 0:
        parser.error("times, speeds and counts must not be negative")
    if not 400 <= given.fail_status <= 599 or given.token_seconds <= 0:
        parser.error("--fail-status must be from 400 to 599, and --token-seconds positive")
    given.host, given.port = host.removeprefix("[").removesuffix("]"), int(port)
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal."""
    given = _arguments(arguments)
    speed = Speed(given.time_to_first_token, given.tokens_per_second, given.concurrency)
    state = State(given.model, not given.unready, speed, Failures(given.fail_every, 0, given.fail_status))
    issuer = None
    if given.oauth_client_id:
        issuer = TokenIssuer(given.oauth_client_id, given.oauth_client_secret, life_seconds=given.token_seconds)
    uvicorn.run(create_app(state, issuer), host=given.host, port=given.port, timeout_graceful_shutdown=1)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
