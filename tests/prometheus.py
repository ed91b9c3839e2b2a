"""A real Prometheus server (Debian's) with series that tests write, or with those of programs that it scrapes."""

import os
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
import yaml

from hooks.settings import MetricInformer
from tests.deadlines import SECONDS
from tests.processes import poll, status
from tools.ports import free_port

_PROGRAMS: Final = ("prometheus", "promtool")
_PAST: Final = 60
"""Seconds before the start of a server in which its series have samples."""
_FUTURE: Final = 1800
"""Seconds after the start of a server in which its series have samples: more than a module of tests takes."""


def series(name: str, value: object, **labels: str) -> str:
    """Return a series in the text format of Prometheus, without a time."""
    escaped = {key: text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for key, text in labels.items()}
    inside = ",".join(f'{key}="{text}"' for key, text in escaped.items())
    return f"{name}{{{inside}}} {value}"


class Prometheus:
    """A running server. Each series that a test writes has a sample in every second, with one value in all of them.
    A server with such series scrapes nothing, so that none ends early."""

    def __init__(
        self,
        folder: Path,
        series: Iterable[str],
        *,
        web: dict[str, Any] | None = None,
        prefix: str = "",
        settings: dict[str, Any] | None = None,
    ) -> None:
        """Start a server; skip the test where it is not installed, and fail it under CI.

        Args:
            folder: folder for the files of the server.
            series: series as `series` returns them, each once.
            web: web configuration of the server, with users for instance.
            prefix: path before the API of the server.
            settings: configuration of the server, with what it scrapes for instance.
        """
        for program in _PROGRAMS:
            if shutil.which(program) is None:
                (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{program} is not installed")
        if written := list(series):
            _write_blocks(folder, written)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(settings or {}))
        (folder / "web.yml").write_text(yaml.safe_dump(web or {}))
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}{prefix}"
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address=127.0.0.1:{self.port}", f"--web.config.file={folder / 'web.yml'}",
             f"--web.route-prefix={prefix or '/'}", f"--web.external-url=http://127.0.0.1:{self.port}{prefix}"],
            stdout=self._log, stderr=self._log,
        )  # fmt: skip
        try:
            poll(self._listens, "prometheus listens")
        except BaseException:
            self.stop()
            raise

    def query(self, expression: str) -> dict[str, Any]:
        """Return the server's response to an instant query, whatever its status."""
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"http://{self.address}/api/v1/query?{query}", timeout=SECONDS) as response:
                content: dict[str, Any] = orjson.loads(response.read())
        except urllib.error.HTTPError as exc:
            content = orjson.loads(exc.read())
        return content

    def stop(self) -> None:
        """Stop the server."""
        self._process.terminate()
        self._process.wait(SECONDS)
        self._log.close()

    def _listens(self) -> bool:
        assert self._process.poll() is None, "prometheus has ended"
        return status(f"http://{self.address}/-/ready") in (200, 401)


def _write_blocks(folder: Path, series: Iterable[str]) -> None:
    """Write the samples of series into the data folder of a server."""
    now = int(time.time())
    lines = [f"{one} {second}" for one in series for second in range(now - _PAST, now + _FUTURE)]
    (folder / "samples.txt").write_text("\n".join([*lines, "# EOF\n"]), encoding="utf-8")
    subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", folder / "samples.txt", folder / "data"],
        check=True,
        capture_output=True,
    )


def informer_of(address: str, **settings: Any) -> MetricInformer:
    """Return settings with which hooks query the Prometheus server at `address`.

    Where `settings` have no timeout, a query may take as long as a test waits.
    """
    informer = MetricInformer.model_validate({"type": "prometheus", "prometheus": {"address": address} | settings})
    if "timeoutSeconds" in settings:
        return informer
    unhurried = informer.prometheus.model_copy(update={"timeout_seconds": SECONDS})
    return informer.model_copy(update={"prometheus": unhurried})
