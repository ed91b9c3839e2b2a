"""Prometheus itself, scraping servers of this machine every second."""

import json
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Final

import yaml

from tests.e2e.controlplane import ControlPlane
from tests.e2e.process import program
from tests.processes import poll, status
from tools.ports import free_port

PROMETHEUS: Final = "prometheus"
SCRAPE_SECONDS: Final = 1


class Prometheus:
    """A server that scrapes `/metrics` of model servers."""

    def __init__(self, plane: ControlPlane, *ports: int) -> None:
        """Start Prometheus with ports of loopback to scrape, and wait until it responds to queries."""
        self.address = f"127.0.0.1:{free_port()}"
        folder = plane.folder / PROMETHEUS
        folder.mkdir()
        targets = [f"127.0.0.1:{port}" for port in ports]
        jobs = [{"job_name": "models", "static_configs": [{"targets": targets}]}]
        settings = {"global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "scrape_timeout": f"{SCRAPE_SECONDS}s"}}
        path = Path(folder, "prometheus.yaml")
        path.write_text(yaml.safe_dump(settings | {"scrape_configs": jobs}))
        self.process = plane.run(
            PROMETHEUS,
            *(program(PROMETHEUS), f"--config.file={path}", f"--storage.tsdb.path={folder}/data"),
            *(f"--web.listen-address={self.address}", "--storage.tsdb.retention.time=1h"),
        )
        poll(lambda: status(f"http://{self.address}/-/ready") == 200, "Prometheus is ready")

    def value(self, query: str) -> float | None:
        """Return the value of a query that has one series; None while it has none."""
        url = f"http://{self.address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(url, timeout=5) as response:
            series = json.load(response)["data"]["result"]
        return float(series[0]["value"][1]) if series else None
