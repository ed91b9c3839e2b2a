"""Chromium without a window, driven over its DevTools protocol."""

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from websockets.sync.client import ClientConnection, connect

from tests.clients.programs import require
from tests.deadlines import SECONDS
from tests.processes import poll

PROGRAMS: Final = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--no-proxy-server", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


@contextmanager
def running_browser(folder: Path) -> Iterator[ClientConnection]:
    """Yield a connection to a browser that has its files in a folder."""
    program = require("chromium-headless-shell", *PROGRAMS)
    log = folder / "log"
    profile = folder / "profile"
    with log.open("wb") as output:
        command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        poll(lambda: _devtools(log) or process.poll() is not None, "the browser listens", seconds=2 * SECONDS)
        assert process.poll() is None, log.read_text()
        with connect(_devtools(log), max_size=None, proxy=None) as connection:
            yield connection
            connection.send(json.dumps({"id": 0, "method": "Browser.close"}))
    finally:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _devtools(log: Path) -> str:
    """Return the address of the DevTools protocol, which the browser prints; empty until then."""
    lines = log.read_text(errors="replace").splitlines()
    return next((line.split()[-1] for line in lines if line.startswith("DevTools listening on ")), "")


class Tab:
    """A tab of the browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        """What the browser has told of the tab, in its order."""
        self._target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=self._target, flatten=True)["sessionId"]

    def send(self, method: str, **parameters: Any) -> Any:
        """Return the result of a command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._connection.send(json.dumps(message | ({} if self._session is None else {"sessionId": self._session})))
        while True:
            response = json.loads(self._connection.recv(timeout=2 * SECONDS))
            if response.get("id") == self._number and response.get("sessionId") == self._session:
                assert "error" not in response, response
                return response["result"]
            if "method" in response and response.get("sessionId") == self._session:
                self.events.append(response)

    def watch(self, *domains: str) -> None:
        """Have the browser tell what happens in the tab."""
        for domain in domains:
            self.send(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Go to an address."""
        self.send("Page.navigate", url=url)

    def run(self, code: str) -> Any:
        """Return the value of an expression in the page; a promise is awaited."""
        result = self.send("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def look_like(self, *, width: int, height: int, dark: bool, phone: bool = False) -> None:
        """Take the size of a screen, and a person's choice of light or dark."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, mobile=phone,
            deviceScaleFactor=2 if phone else 1,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write a picture of the screen, or of the whole page."""
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(picture))

    def close(self) -> None:
        """Close the tab."""
        self._session = None
        self.send("Target.closeTarget", targetId=self._target)
