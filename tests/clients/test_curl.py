"""The program curl at the gateway: plain, with an offer of HTTP/2, compressed, and with an upload that asks first."""

import json
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.clients.calls import SPEECH, STREAMS, failure_of, outcome_of, outcome_of_stream, request_of, text_of
from tests.clients.conftest import Place
from tests.clients.model_server import TEXT
from tests.clients.outcomes import calls_of, check, check_bytes
from tests.clients.programs import require
from tests.deadlines import SECONDS
from tools.client_cases import CLIENTS, WORKS

UPLOAD: Final = {"model": "demo", "messages": [{"role": "user", "content": "hello " * 200_000}]}
"""Body of an upload that is so large that curl asks before it sends it."""


def curl(place: Place, case: str, *words: str) -> list[str]:
    """Return the command for a request."""
    program = require("curl", "curl")
    return [
        *(program, "--silent", "--show-error", "--no-buffer", "--noproxy", "*", "--max-time", f"{SECONDS:g}"),
        *("--write-out", "\n%{http_code}", "--header", f"x-case: {case}", *words),
    ]


def ask(place: Place, case: str, *words: str) -> tuple[int, str]:
    """Send a request with curl; return status and body."""
    result = subprocess.run(curl(place, case, *words), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    body, _, status = result.stdout.rpartition("\n")
    return int(status), body


def words_of(place: Place, call: str) -> list[str]:
    """Return the arguments for a call."""
    _, path, body = request_of(call)
    if call == "transcription":
        (place.folder / "a.wav").write_bytes(SPEECH)
        return ["--form", "model=demo", "--form", f"file=@{place.folder / 'a.wav'};type=audio/wav", place.url + path]
    if body is None:
        return [place.url + path]
    return ["--header", "content-type: application/json", "--data", json.dumps(body), place.url + path]


@calls_of("curl")
def test_a_call(place: Place, client: str, call: str) -> None:
    """A call with curl has its outcome, and the model server gets exactly what it should."""
    words = words_of(place, call)
    if call == "cancel":
        command = curl(place, f"{client}/{call}", *words)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert any(text_of(line) == TEXT[:4] for line in process.stdout)
            process.kill()
        outcome = WORKS
    elif call in STREAMS:
        status, body = ask(place, f"{client}/{call}", *words)
        assert status == 200
        assert body.startswith(": keep-alive, backend local, reason Local\n\n") is (call != "stream")
        lines = body.splitlines()
        outcome = outcome_of_stream(call, "".join(map(text_of, lines)), "".join(map(failure_of, lines)))
    else:
        outcome = outcome_of(call, *ask(place, f"{client}/{call}", *words))
    check(place, client, call, outcome)


@pytest.mark.parametrize("call", [call for call in CLIENTS["curl"].outcomes if call not in STREAMS[1:]])
def test_with_an_offer_of_http2(place: Place, call: str) -> None:
    """With `--http2` curl offers an upgrade, with and without a body; each call has the same outcome as without."""
    words = ["--http2", *words_of(place, call)]
    status, body = ask(place, f"curl-http2/{call}", *words)
    if call == "stream":
        assert (status, "".join(map(text_of, body.splitlines()))) == (200, TEXT)
    else:
        assert outcome_of(call, status, body) == CLIENTS["curl"].outcomes[call]
    for recorded in place.server.of(f"curl-http2/{call}"):
        check_bytes(recorded)
        if (sent := request_of(call)[2]) is not None:
            assert json.loads(recorded.body) == (sent | {"model": "demo"} if call == "qualified" else sent)


def test_two_requests_with_an_offer_of_http2(place: Place) -> None:
    """A connection goes on after an offer that was ignored: curl sends its second request on the same one."""
    words = words_of(place, "chat")
    command = [
        *curl(place, "curl-twice/chat", "--http2", *words),
        "--next",
        *curl(place, "curl-twice/chat", *words)[1:],
    ]
    result = subprocess.run([*command, "--verbose"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(TEXT) == 2
    assert "Re-using existing connection" in result.stderr
    assert len(place.server.of("curl-twice/chat")) == 2


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/demo", "/health"])
def test_heads(place: Place, path: str) -> None:
    """With `--head` curl gets the head that a GET has, with the same length."""
    _, body = ask(place, "curl-get", place.url + path)
    status, head = ask(place, "curl-head", "--head", place.url + path)
    assert status == 200
    assert f"content-length: {len(body)}" in head.lower()


def test_compressed(place: Place) -> None:
    """With `--compressed` curl gets the response as the model server compressed it, and reads it."""
    status, body = ask(place, "curl-compressed/chat", "--compressed", *words_of(place, "chat"))
    assert outcome_of("chat", status, body) == WORKS
    recorded = place.server.wait_for("curl-compressed/chat")
    assert "gzip" in dict(recorded.fields)["accept-encoding"]


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_an_upload_that_asks_first(place: Place, tmp_path: Path, framing: str) -> None:
    """An upload with `Expect: 100-continue` is told to go on at once, and arrives whole."""
    (tmp_path / "body").write_text(json.dumps(UPLOAD))
    case = f"curl-upload-{framing}/chat"
    fields = ["--header", "content-type: application/json", "--header", "expect: 100-continue"]
    if framing == "chunks":
        fields += ["--header", "transfer-encoding: chunked"]
    # An upload that nobody tells to go on would wait for all this time, and fail.
    patience = ["--expect100-timeout", f"{2 * SECONDS:g}"]
    path = f"{place.url}/v1/chat/completions"
    status, body = ask(place, case, *fields, *patience, "--data-binary", f"@{tmp_path / 'body'}", path)
    assert outcome_of("chat", status, body) == WORKS
    recorded = place.server.wait_for(case)
    check_bytes(recorded)
    assert json.loads(recorded.body) == UPLOAD
    assert "expect" not in dict(recorded.fields)
