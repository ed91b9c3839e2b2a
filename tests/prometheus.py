"""A real Prometheus server, as Debian packages it, that scrapes text of tests."""

import os
import shutil
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from hooks.settings import MetricInformer
from tests.deadlines import SECONDS
from tests.processes import poll, status
from tools.ports import free_port

PROGRAM = shutil.which("prometheus")


def needed() -> str:
    """Return the path of the program. Without it the test is skipped by name, or fails under CI."""
    if PROGRAM is None:
        if os.environ.get("CI") == "true":
            pytest.fail("prometheus is not installed")
        pytest.skip("prometheus is not installed")
    return PROGRAM


class Exporter:
    """A server that serves `text` to be scraped."""

    def __init__(self, text: str) -> None:
        """Serve `text`, which is in Prometheus's text format and may be replaced."""
        self.text = text
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = exporter.text.encode()
                self.send_response(200)
                self.send_header("content-type", "text/plain; version=0.0.4")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Prometheus:
    """A running Prometheus server; scraped series keep their own labels."""

    def __init__(
        self, folder: Path, exporter: Exporter, *, web: dict[str, Any] | None = None, prefix: str = ""
    ) -> None:
        """
        Args:
            folder: for its files.
            exporter: is scraped every two seconds; a scrape that is late would end its series.
            web: its web configuration, with users for instance.
            prefix: path before its API.
        """
        program = needed()
        job = {
            "job_name": "tests",
            "honor_labels": True,
            "static_configs": [{"targets": [f"127.0.0.1:{exporter.port}"], "labels": {"instance": "exporter"}}],
        }
        config = {"global": {"scrape_interval": "2s", "scrape_timeout": "2s"}, "scrape_configs": [job]}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        (folder / "web.yml").write_text(yaml.safe_dump(web or {}))
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}{prefix}"
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address=127.0.0.1:{self.port}", f"--web.config.file={folder / 'web.yml'}",
             f"--web.route-prefix={prefix or '/'}", f"--web.external-url=http://127.0.0.1:{self.port}{prefix}"],
            stdout=self._log, stderr=self._log,
        )  # fmt: skip

    def ask(self, expression: str) -> dict[str, Any]:
        """Return the JSON of the response to an instant query, whatever its status."""
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"http://{self.address}/api/v1/query?{query}", timeout=SECONDS) as answer:
                found: dict[str, Any] = orjson.loads(answer.read())
        except urllib.error.HTTPError as exc:
            found = orjson.loads(exc.read())
        return found

    def wait_for(self, expression: str) -> None:
        """Wait until an expression has a result."""

        def there() -> bool:
            assert self._process.poll() is None, "prometheus has ended"
            try:
                return bool(self.ask(expression)["data"]["result"])
            except (OSError, ValueError, LookupError):  # it starts
                return False

        poll(there, f"{expression} has a result")

    def wait_until_it_listens(self) -> None:
        """Wait until the server accepts connections."""

        def listens() -> bool:
            assert self._process.poll() is None, "prometheus has ended"
            return status(f"http://{self.address}/-/ready") in (200, 401)

        poll(listens, "prometheus listens")

    def stop(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.wait(SECONDS)
        self._log.close()


def informer_of(address: str, **settings: Any) -> MetricInformer:
    """Return the settings that have hooks ask the Prometheus server at `address`.

    Where `settings` name no timeout of a query, it may take as long as a test waits.
    """
    informer = MetricInformer.model_validate({"type": "prometheus", "prometheus": {"address": address} | settings})
    if "timeoutSeconds" in settings:
        return informer
    unhurried = informer.prometheus.model_copy(update={"timeout_seconds": SECONDS})
    return informer.model_copy(update={"prometheus": unhurried})
