"""The demo model server as a process: OpenAI's API, its own OAuth2 endpoint, and its settings while it runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.processes import running
from examples import pretend_model
from examples.tokens import TokenIssuer
from tests.deadlines import SECONDS
from tests.late_import import LateImport
from tests.processes import poll
from tools.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import anthropic
    import openai
else:
    anthropic = LateImport("anthropic")
    openai = LateImport("openai")

SAID: Final = "This is tiny. You said: "
"""Start of each text that the server responds with."""


@dataclass(frozen=True, slots=True)
class Server:
    """Running demo model server, and a client of it."""

    url: str
    http: httpx.Client

    def demo(self, path: str) -> None:
        """Send a POST to this path under /_demo."""
        self.http.post(f"/_demo/{path}").raise_for_status()

    def chat(self, text: str = "hello", **more: object) -> httpx.Response:
        """Ask for a chat completion."""
        body = {"model": "tiny", "messages": [{"role": "user", "content": text}], **more}
        return self.http.post("/v1/chat/completions", json=body)


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[Server]:
    """Run the server with these flags on a free port, and yield it."""
    port = free_port()
    command = [sys.executable, "-m", "examples.model_server", "--listen", f"127.0.0.1:{port}", "--model", "tiny"]
    url = f"http://127.0.0.1:{port}"
    with (
        running("model-server", [*command, *flags], port, folder),
        httpx.Client(base_url=url, trust_env=False, timeout=SECONDS) as client,
    ):
        yield Server(url, client)


pytestmark = pytest.mark.xdist_group("model server")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a server without authentication."""
    with serving(tmp_path_factory.mktemp("open"), "--time-to-first-token", "0", "--tokens-per-second", "0") as server:
        yield server


@pytest.fixture
def server(shared: Server) -> Server:
    """Return the shared server, as it was at the start."""
    shared.demo("ready")
    shared.demo("failures")
    shared.demo("speed?time_to_first_token=0&tokens_per_second=0&concurrency=0")
    return shared


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a server that requires tokens."""
    flags = ("--oauth-client-id", "a client", "--oauth-client-secret", "s%cret", "--time-to-first-token", "0")
    with serving(tmp_path_factory.mktemp("remote"), *flags) as server:
        yield server


def events(response: httpx.Response) -> list[str]:
    """Return the data of each server-sent event."""
    return [line.removeprefix("data: ") for line in response.iter_lines() if line]


class TestApi:
    """Tests of OpenAI's API on the demo model server."""

    def test_chat(self, server: Server) -> None:
        """A chat completion names the model, repeats the message and counts the tokens."""
        completion = server.chat("hello there").json()
        assert completion["object"] == "chat.completion"
        assert completion["choices"][0]["message"] == {
            "role": "assistant",
            "content": "This is tiny. You said: hello there",
        }
        assert completion["usage"] == {"prompt_tokens": 2, "completion_tokens": 7, "total_tokens": 9}

    def test_chat_in_parts(self, server: Server) -> None:
        """In a message that is a list of parts only the texts count."""
        parts = [{"type": "text", "text": "one"}, {"type": "image_url", "image_url": {}}, {"type": "text", "text": "2"}]
        body = {"model": "tiny", "messages": [{"role": "user", "content": parts}]}
        completion = server.http.post("/v1/chat/completions", json=body).json()
        assert completion["choices"][0]["message"]["content"].endswith("You said: one 2")

    def test_max_tokens(self, server: Server) -> None:
        """`max_tokens` cuts the completion, and `finish_reason` says so."""
        choice = server.chat(max_tokens=2).json()["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("This is", "length")

    def test_stream(self, server: Server) -> None:
        """A stream has one event for each token, one with the finish reason, and ends with [DONE]."""
        data = events(server.chat("hello", stream=True))
        assert data[-1] == "[DONE]"
        chunks = [json.loads(one)["choices"][0] for one in data[:-1]]
        assert "".join(one["delta"].get("content", "") for one in chunks) == "This is tiny. You said: hello"
        assert [one["finish_reason"] for one in chunks] == [None] * 7 + ["stop"]

    def test_stream_usage(self, server: Server) -> None:
        """With `include_usage` the last chunk of a stream has the usage and no choice."""
        data = events(server.chat(stream=True, stream_options={"include_usage": True}))
        last = json.loads(data[-2])
        assert last["choices"] == []
        assert last["usage"]["completion_tokens"] == 6

    def test_completions(self, server: Server) -> None:
        """A completion has the same text whether or not it is streamed."""
        body = {"model": "tiny", "prompt": "hello"}
        text = server.http.post("/v1/completions", json=body).json()["choices"][0]["text"]
        data = events(server.http.post("/v1/completions", json=body | {"stream": True}))
        assert "".join(json.loads(one)["choices"][0]["text"] for one in data[:-1]) == text

    def test_client(self, server: Server) -> None:
        """The openai client lists models, chats, streams and embeds; its packed vectors are the plain ones."""
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            assert [model.id for model in client.models.list()] == ["tiny"]
            stream = client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "hello"}], stream=True
            )
            assert "hello" in "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            vectors = client.embeddings.create(model="tiny", input=["a", "b"])
            assert vectors.data[0].embedding == pytest.approx(pretend_model.embed("a"))
            assert vectors.data[0].embedding != vectors.data[1].embedding

    def test_client_of_messages(self, server: Server) -> None:
        """The anthropic client gets messages whole and in a stream, with the reason of their end and the usage."""
        asked: Any = {"model": "tiny", "max_tokens": 50, "messages": [{"role": "user", "content": "hello there"}]}
        with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
            message = client.messages.create(**asked, system="be brief")
            assert [one.text for one in message.content if one.type == "text"] == [f"{SAID}hello there"]
            assert (message.role, message.model, message.stop_reason) == ("assistant", "tiny", "end_turn")
            assert (message.usage.input_tokens, message.usage.output_tokens) == (4, 7)
            with client.messages.stream(**asked) as stream:
                pieces = list(stream.text_stream)
                final = stream.get_final_message()
            assert len(pieces) == 7
            assert "".join(pieces) == f"{SAID}hello there"
            assert (final.content[0].type, final.stop_reason) == ("text", "end_turn")
            assert (final.usage.input_tokens, final.usage.output_tokens) == (2, 7)
            parts: Any = [{"role": "user", "content": [{"type": "text", "text": "in parts"}]}]
            cut = client.messages.create(model="tiny", max_tokens=3, messages=parts, system=[])
            assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 3)
            with client.messages.stream(model="tiny", max_tokens=3, messages=parts) as stream:
                assert stream.get_final_message().stop_reason == "max_tokens"

    def test_errors_of_messages(self, server: Server) -> None:
        """Errors on Anthropic's path have its shape, from which its client makes its exceptions."""
        asked: Any = {"max_tokens": 5, "messages": [{"role": "user", "content": "a"}]}
        with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
            with pytest.raises(anthropic.NotFoundError) as caught:
                client.messages.create(model="other", **asked)
            assert caught.value.type == "not_found_error"
            server.demo("failures?count=1&status=529")
            with pytest.raises(anthropic.APIStatusError) as overloaded:
                client.messages.create(model="tiny", **asked)
            assert (overloaded.value.status_code, overloaded.value.type) == (529, "overloaded_error")
        bad: Any = ({"messages": []}, {"max_tokens": 5}, {"max_tokens": 5, "messages": ["a"]}, {"max_tokens": -1})
        for body in bad:
            response = server.http.post("/v1/messages", json={"model": "tiny", **body})
            assert response.status_code == 400
            assert response.json()["error"]["type"] == "invalid_request_error"

    def test_client_of_responses(self, server: Server) -> None:
        """The openai client gets responses whole and in a stream, complete and cut by its limit."""
        messages: Any = [
            {"role": "user", "content": "first"},
            {"role": "user", "content": [{"type": "input_text", "text": "hello there"}]},
        ]
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            whole = client.responses.create(model="tiny", input="hello there", instructions="be brief")
            assert (whole.output_text, whole.status) == (f"{SAID}hello there", "completed")
            assert whole.instructions == "be brief"
            assert whole.usage is not None
            assert (whole.usage.input_tokens, whole.usage.output_tokens, whole.usage.total_tokens) == (4, 7, 11)
            with client.responses.stream(model="tiny", input=messages) as stream:
                events = list(stream)
                final = stream.get_final_response()
            assert "".join(one.delta for one in events if one.type == "response.output_text.delta") == whole.output_text
            assert (final.output_text, final.status) == (whole.output_text, "completed")
            kinds = [one.type for one in events]
            assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
            assert [one.sequence_number for one in events] == list(range(len(events)))
            cut = client.responses.create(model="tiny", input=messages, max_output_tokens=2)
            assert (cut.output_text, cut.status) == ("This is", "incomplete")
            assert cut.incomplete_details is not None
            assert cut.incomplete_details.reason == "max_output_tokens"
            last = list(client.responses.create(model="tiny", input="a", max_output_tokens=2, stream=True))[-1]
            assert last.type == "response.incomplete"

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({}, "input"),
            ({"input": []}, "input"),
            ({"input": [1]}, "input"),
            ({"input": "a", "previous_response_id": "resp_1"}, "previous_response_id"),
            ({"input": "a", "max_output_tokens": -1}, "max_output_tokens"),
        ],
    )
    def test_invalid_requests_for_responses(self, server: Server, body: dict[str, Any], param: str) -> None:
        """A request for a response that cannot be given is a 400 that names the field."""
        response = server.http.post("/v1/responses", json={"model": "tiny", **body})
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)

    def test_other_model(self, server: Server) -> None:
        """A request with any other model name gets a 404 in OpenAI's format."""
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            with pytest.raises(openai.NotFoundError) as caught:
                client.completions.create(model="other", prompt="hello")
            assert caught.value.code == "model_not_found"
            with pytest.raises(openai.NotFoundError):
                client.models.retrieve("other")

    def test_prefix(self, server: Server) -> None:
        """The same API is served under /<workspace>/<model>, for the server's own model only."""
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
        assert server.http.post("/space/tiny/v1/chat/completions", json=body).status_code == 200
        refused = server.http.post("/space/other/v1/chat/completions", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/v1/chat/completions", b"["),
            ("/v1/chat/completions", b"[]"),
            ("/v1/chat/completions", b"{}"),
            ("/v1/chat/completions", b'{"model": "tiny"}'),
            ("/v1/chat/completions", b'{"model": "tiny", "messages": [], "n": 1}'),
            ("/v1/chat/completions", b'{"model": "tiny", "messages": [{"content": "a"}], "n": 2}'),
            ("/v1/chat/completions", b'{"model": "tiny", "messages": [{"content": "a"}], "max_tokens": "x"}'),
            ("/v1/completions", b'{"model": "tiny", "prompt": 1}'),
            ("/v1/embeddings", b'{"model": "tiny", "input": ""}'),
            ("/_demo/speed?concurrency=-1", b""),
            ("/_demo/failures?status=200", b""),
        ],
    )
    def test_invalid(self, server: Server, path: str, body: bytes) -> None:
        """An invalid request gets a 400 in OpenAI's format."""
        response = server.http.post(path, content=body)
        assert response.status_code == 400
        assert response.json()["error"]["message"]

    def test_unknown_path(self, server: Server) -> None:
        """A request for an unknown path gets a 404 in OpenAI's format."""
        response = server.http.get("/nothing")
        assert (response.status_code, response.json()["error"]["message"]) == (404, "GET /nothing: not found.")


class TestSettings:
    """Tests of what can be set while the server runs."""

    def test_readiness(self, server: Server) -> None:
        """An unready server fails its probe and nothing else, until it is set to ready again."""
        assert server.http.get("/health").status_code == 200
        server.demo("unready")
        assert server.http.get("/health").status_code == 503
        assert server.chat().status_code == 200
        server.demo("ready")
        assert server.http.get("/health").status_code == 200

    def test_next_requests_fail(self, server: Server) -> None:
        """As many of the next requests as asked for fail with the status asked for, and those after them succeed."""
        server.demo("failures?count=2&status=503")
        assert [server.chat().status_code for _ in range(3)] == [503, 503, 200]

    def test_each_nth_request_fails(self, server: Server) -> None:
        """With `every=3` each third request fails."""
        server.demo("failures?every=3")
        assert sorted(server.chat().status_code for _ in range(6)) == [200] * 4 + [500] * 2

    def test_speed(self, server: Server) -> None:
        """A response takes the time to the first token and a pause for each further token."""
        server.demo("speed?time_to_first_token=0.2&tokens_per_second=50")
        started = time.monotonic()
        server.chat()  # six tokens
        assert time.monotonic() - started >= 0.3

    def test_concurrency(self, server: Server) -> None:
        """With a concurrency of 1 the second request waits for the first."""
        server.demo("speed?time_to_first_token=2&concurrency=1")
        started = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            responses = [pool.submit(server.chat) for _ in range(2)]
            poll(lambda: server.http.get("/_demo/state").json()["waiting"] == 1)
            assert [response.result().status_code for response in responses] == [200, 200]
        assert time.monotonic() - started >= 4

    def test_gauges(self, server: Server) -> None:
        """The metrics tell Prometheus how many requests run and how many wait."""
        server.demo("speed?time_to_first_token=2&concurrency=1")

        def gauges() -> list[float]:
            content = server.http.get("/metrics").text
            families = {family.name: family.samples for family in text_string_to_metric_families(content)}
            samples = [sample for name in ("running", "waiting") for sample in families[f"vllm:num_requests_{name}"]]
            assert [sample.labels for sample in samples] == [{"model_name": "tiny"}] * 2
            return [sample.value for sample in samples]

        assert gauges() == [0, 0]
        with ThreadPoolExecutor(2) as pool:
            responses = [pool.submit(server.chat) for _ in range(2)]
            poll(lambda: gauges() == [1, 1])
            assert [response.result().status_code for response in responses] == [200, 200]
        assert gauges() == [0, 0]

    def test_client_that_goes(self, server: Server) -> None:
        """A stream whose client closes the connection is not generated to its end."""
        server.demo("speed?tokens_per_second=1")
        body = {"model": "tiny", "messages": [{"content": "word " * 600}], "stream": True}
        with (
            httpx.Client(base_url=server.url, trust_env=False) as client,
            client.stream("POST", "/v1/chat/completions", json=body) as response,
        ):
            lines = response.iter_lines()
            next(lines)
            assert server.http.get("/_demo/state").json()["running"] == 1
        poll(lambda: server.http.get("/_demo/state").json()["running"] == 0)

    def test_last_request(self, server: Server) -> None:
        """`/_demo/last-request` returns the last request as it arrived."""
        server.http.get("/space/tiny/v1/models", headers={"X-Team": "search"})
        last = server.http.get("/_demo/last-request").json()
        assert (last["method"], last["path"]) == ("GET", "/space/tiny/v1/models")
        assert ["x-team", "search"] in [[name.lower(), value] for name, value in last["headers"]]


class TestTokens:
    """Tests of the server as a remote platform that requires tokens."""

    def test_without_token(self, remote: Server) -> None:
        """A request to the model without a token, or with a wrong one, gets a 401; /health and /_demo need none."""
        assert remote.chat().status_code == 401
        assert remote.chat().headers["www-authenticate"] == "Bearer"
        assert remote.http.get("/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert remote.http.get("/health").status_code == 200
        assert remote.http.get("/_demo/state").json()["model"] == "tiny"

    @pytest.mark.parametrize("credentials", [("a client", "s%cret"), ("a+client", "s%25cret")])
    def test_basic(self, remote: Server, credentials: tuple[str, str]) -> None:
        """Basic authentication gets a token, whether or not the client encodes its parts (RFC 6749 section 2.3.1)."""
        response = remote.http.post("/v0/oauth/token", data={"grant_type": "client_credentials"}, auth=credentials)
        assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")
        assert (response.json()["token_type"], response.json()["expires_in"]) == ("Bearer", 3600)
        bearer = {"Authorization": f"Bearer {response.json()['access_token']}"}
        assert remote.http.get("/v1/models", headers=bearer).status_code == 200

    def test_form_and_revocation(self, remote: Server) -> None:
        """Credentials in the form get a token too, and a token that is revoked is no longer accepted."""
        form = {"grant_type": "client_credentials", "client_id": "a client", "client_secret": "s%cret"}
        token = remote.http.post("/oauth/token", data=form).json()["access_token"]
        bearer = {"Authorization": f"Bearer {token}"}
        assert remote.http.get("/v1/models", headers=bearer).status_code == 200
        remote.demo("revoke")
        assert remote.http.get("/v1/models", headers=bearer).status_code == 401

    @pytest.mark.parametrize(
        ("form", "auth", "status", "code"),
        [
            ({"grant_type": "client_credentials"}, ("a client", "wrong"), 401, "invalid_client"),
            ({"grant_type": "client_credentials"}, None, 401, "invalid_client"),
            ({"grant_type": "password"}, ("a client", "s%cret"), 400, "unsupported_grant_type"),
            ({"client_secret": "s%cret"}, ("a client", "s%cret"), 400, "invalid_request"),
        ],
    )
    def test_refused(
        self, remote: Server, form: dict[str, str], auth: tuple[str, str] | None, status: int, code: str
    ) -> None:
        """A token request that is refused gets the error code of RFC 6749 section 5.2."""
        response = remote.http.post("/v0/oauth/token", data=form, auth=auth or httpx.USE_CLIENT_DEFAULT)
        assert (response.status_code, response.json()["error"]) == (status, code)

    def test_expiry(self) -> None:
        """A token is accepted for its lifetime and not longer."""
        now = 100.0
        issuer = TokenIssuer("id", "secret", life_seconds=10, now=lambda: now)
        form = b"grant_type=client_credentials&client_id=id&client_secret=secret"
        token = f"Bearer {issuer.issue(form, None)['access_token']}"
        now = 109.9
        assert issuer.accepts(token)
        now = 110.0
        assert not issuer.accepts(token)

    def test_no_endpoint(self, server: Server) -> None:
        """A server that requires no tokens has no token endpoint."""
        assert server.http.post("/v0/oauth/token").status_code == 404


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--listen", "9101"], "--listen must be host:port"),
        (["--oauth-client-id", "id"], "given together"),
        (["--concurrency", "-1"], "must not be negative"),
        (["--fail-status", "200"], "--fail-status"),
    ],
)
def test_wrong_flags(flags: list[str], problem: str) -> None:
    """An invalid flag ends the program with exit status 2 and a message that names the flag."""
    command = [sys.executable, "-m", "examples.model_server", "--model", "tiny", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert ended.returncode == 2
    assert problem in ended.stderr
