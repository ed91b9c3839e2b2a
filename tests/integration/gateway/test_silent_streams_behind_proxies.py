"""Silent streams behind HAProxy and nginx, which cut what is silent for too long, and not what has comments."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from gateway.api.v1alpha1 import KeepAlive
from tests.deadlines import SECONDS
from tests.integration.gateway.test_broken_streams import chunk, events
from tests.integration.gateway.test_keep_alive import BODY, COMMENT, END, LOOPBACK, STREAM_HEAD, sent
from tests.integration.gateway.wire import Client, Response, document, gateway, local, message, remote
from tests.integration.servers import ServerSide, serving, until
from tools.ports import free_port

CUT_SECONDS: Final = 4
"""Seconds of silence after which the proxies give a response up; 30 or 60 in production."""
KEPT: Final = KeepAlive(after=0.2)
ROUTES: Final = {
    "kept": KEPT,
    "kept-early": KEPT.model_copy(update={"before_head": True}),
    "cut": KeepAlive(after=0),
    "cut-early": KeepAlive(after=0),
}

HAPROXY: Final = """\
defaults
  mode http
  timeout connect 60s
  timeout client 600s
  timeout server {seconds}s
frontend clients
  bind 127.0.0.1:{port}
  default_backend gateways
backend gateways
  server one 127.0.0.1:{gateway}
"""
NGINX: Final = """\
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{ worker_connections 100; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{gateway};
      proxy_read_timeout {seconds}s;
      {more}
    }}
  }}
}}
"""
PROXIES: Final = {
    "haproxy": ("haproxy", HAPROXY, ""),
    "nginx": ("nginx", NGINX, 'proxy_http_version 1.1; proxy_set_header Connection "";'),
    "nginx with HTTP/1.0": ("nginx", NGINX, "proxy_http_version 1.0;"),
}


@asynccontextmanager
async def proxy(kind: str, folder: Path, to: int) -> AsyncIterator[int]:
    """Run a proxy in front of the gateway, and yield its port."""
    name, template, more = PROXIES[kind]
    program = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        pytest.skip(f"{name} is not installed")
    port = free_port()
    config = folder / f"{name}.conf"
    config.write_text(template.format(folder=folder, port=port, gateway=to, seconds=CUT_SECONDS, more=more))
    words = ("-db", "-f", str(config)) if name == "haproxy" else ("-c", str(config), "-p", str(folder))
    with (folder / "proxy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(program, *words, stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.terminate()
        await process.wait()


async def opened(port: int) -> Client:
    """Return a connection to a port, once it is listened on."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                return Client(*await asyncio.open_connection("127.0.0.1", port))
            except OSError:
                await asyncio.sleep(0.05)


async def ask(port: int, model: str) -> Response:
    """Ask a model for a stream through a proxy; return the response."""
    client = await opened(port)
    fields = (b"Content-Type: application/json", b"Content-Length: %d" % len(BODY), b"Connection: close")
    line = b"POST /default/%b/v1/chat/completions HTTP/1.1" % model.encode()
    try:
        await client.send(message(*fields, line=line, body=BODY))
        return await client.response(b"POST")
    finally:
        client.close()


@pytest.mark.parametrize("kind", PROXIES)
async def test_a_proxy_that_cuts_silence_does_not_cut_comments(kind: str, tmp_path: Path) -> None:
    """A proxy cuts a stream that is silent before its first event or its head, and not one that has comments."""
    go = asyncio.Event()

    async def script(side: ServerSide) -> None:
        early = b"-early" in await side.request()
        if not early:
            await side.send(STREAM_HEAD)
        await go.wait()
        await side.send((STREAM_HEAD if early else b"") + chunk(b"data: 1\n\n") + END)
        await side.gone()

    routes = [
        document(
            local(path_prefix=f"/{name}"), *(() if name.endswith("early") else (remote(),)), name=name, keep_alive=one
        )
        for name, one in ROUTES.items()
    ]
    async with (
        serving(script) as server,
        gateway(*routes, local_port=server.port, settings=LOOPBACK) as running,
        proxy(kind, tmp_path, running.port) as port,
    ):
        tasks = {name: asyncio.create_task(ask(port, name)) for name in ROUTES}
        cut = [await tasks[name] for name in ("cut", "cut-early")]
        assert [one.complete and one.status == 200 for one in cut] == [False, False]
        for name in ("kept", "kept-early"):
            count = sent(running, model=name)
            await until(lambda name=name, count=count: sent(running, model=name) > count)  # type: ignore[misc]
        go.set()
        for name in ("kept", "kept-early"):
            response = await tasks[name]
            assert (response.status, response.complete) == (200, True), name
            assert response.body.count(COMMENT) >= CUT_SECONDS, name
            assert events(response.body) == [("message", "1")], name
