"""The images that tests run in pods: the product's own, and those of clients, servers and Metacontroller."""

import os
import shutil
from pathlib import Path
from typing import Final

import yaml

from tests.chart.helm import METACONTROLLER_CHART
from tests.e2e import binaries
from tests.node import archives, image
from tools.repository import ROOT

CLIENT: Final = "beamlit.test/client:1"
MODEL_SERVER: Final = "example.com/tiny-local:1"
"""Name of the image in the example manifests."""
PORT: Final = 9101
"""Port of the model server in the example manifests."""
_NAMES: Final = ("cat", "httpd", "id", "nslookup", "sh", "sleep")
"""Programs that busybox is in the image of the client."""


def write_all(folder: Path) -> list[Path]:
    """Write the images that pods of the tests run, and return their archives, the product's first.

    Raises:
        image.Unavailable: the product's image cannot be built here.
        image.BuildError: its build failed.
    """
    product = image.build_image()
    brought = metacontroller(folder)
    return [product, client(folder), model_server(folder, product), *([brought] if brought else ())]


def client(folder: Path) -> Path:
    """Write an image with curl and a shell, and return its archive."""
    curl, busybox = (Path(shutil.which(name) or f"/usr/bin/{name}") for name in ("curl", "busybox"))
    files = archives.libraries(curl) | {"/usr/bin/busybox": busybox}
    links = {f"/usr/bin/{name}": "busybox" for name in _NAMES}
    return archives.write(folder / "client.tar", CLIENT, files, ["/usr/bin/busybox", "sleep", "86400"], links)


def model_server(folder: Path, product: Path) -> Path:
    """Write the image of the example model server on top of the product's, which has all that it imports, and return
    its archive."""
    sources = sorted((ROOT / "examples").glob("*.py"))
    command = ("python", "-m", "examples.model_server", "--listen", f"0.0.0.0:{PORT}", "--model", "tiny-local")
    files = {f"/srv/examples/{path.name}": path for path in sources}
    return archives.extend(folder / "model-server.tar", MODEL_SERVER, product, files, command, {"PYTHONPATH": "/srv"})


def has_metacontroller() -> bool:
    """Return whether Metacontroller's program and its chart are here."""
    return binaries.find("metacontroller") is not None and bool(os.environ.get(METACONTROLLER_CHART))


def metacontroller(folder: Path) -> Path | None:
    """Write an image of Metacontroller's static program under the name by which its chart asks for it, and return its
    archive; None where its program or its chart is missing."""
    program, chart = binaries.find("metacontroller"), os.environ.get(METACONTROLLER_CHART)
    if program is None or not chart:
        return None
    values = yaml.safe_load((Path(chart) / "values.yaml").read_text())["image"]
    about = yaml.safe_load((Path(chart) / "Chart.yaml").read_text())
    name = f"{values['repository']}:{values['tag'] or about['appVersion']}"
    path = "/usr/bin/metacontroller"
    return archives.write(folder / "metacontroller.tar", name, {path: program}, [path])
