"""A gateway that runs out of file descriptors or local ports."""

import asyncio
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deadlines import SECONDS
from tests.integration.gateway.test_process import started
from tests.integration.gateway.wire import echo
from tests.integration.servers import serving
from tools.repository import ROOT

_NAMESPACE = ("unshare", "--user", "--map-root-user", "--net")
ISOLATED = shutil.which("unshare") is not None and subprocess.run([*_NAMESPACE, "true"], check=False).returncode == 0


async def test_rd_10_without_file_descriptors(tmp_path: Path) -> None:
    """RD-10: without file descriptors the gateway goes on with a short log, and serves again when there are some."""
    async with serving(echo) as server, started(tmp_path, server.port, "gateway: {accessLog: false}") as running:
        pid = running.process.pid
        used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 8, hard))
        clients = [await running.client() for _ in range(60)]
        await asyncio.sleep(1)
        assert running.process.returncode is None
        lines = running.errors.read_text().splitlines()
        assert len(lines) < 100
        for client in clients:
            client.reset()
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    if (await running.ask()).status == 200:
                        break
                except OSError:
                    pass
                await asyncio.sleep(0.05)


@pytest.mark.skipif(not ISOLATED, reason="no network namespace of one's own")
def test_rd_11_without_local_ports() -> None:
    """RD-11: with eight local ports a request that needs a ninth connection gets an error, and kept ones work on."""
    command = [*_NAMESPACE, sys.executable, "-m", "tests.integration.gateway.few_ports"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
