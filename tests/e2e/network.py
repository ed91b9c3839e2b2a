"""DNS and kube-proxy of a cluster: names of Services, and the ready pods behind them."""

import contextlib
import http.client
import http.server
import itertools
import json
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tests.e2e.controlplane import ControlPlane

if TYPE_CHECKING:
    from tests.e2e.pods import Pod

DOMAIN: Final = "cluster.local"


class NoEndpoint(Exception):
    """No pod is behind a name; the message says why."""


class Network:
    """The Services of a control plane, with pods of this machine behind them."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._turns = itertools.count()
        self.pods: list[Pod] = []

    def endpoint(self, host: str, port: int, namespace: str = "default") -> tuple[str, int]:
        """Return address and port behind a name that a client in `namespace` uses: `name[.namespace[.svc[.domain]]]`.

        Raises:
            NoEndpoint: there is no such Service or port, or no ready pod behind it.
        """
        name, _, rest = host.removesuffix(f".svc.{DOMAIN}").removesuffix(".svc").partition(".")
        service = self._plane.get("service", name, rest or namespace)
        if not service:
            raise NoEndpoint(f"there is no Service {name} in {rest or namespace}")
        spec = service["spec"]
        if spec.get("type") == "ExternalName":  # an alias: the port is that of the client's request
            return self.endpoint(spec["externalName"], port, namespace)
        target = next((one["targetPort"] for one in spec["ports"] if one["port"] == port), None)
        if target is None:
            raise NoEndpoint(f"the Service {host} has no port {port}")
        selector = spec["selector"].items()
        pods = [
            pod
            for pod in self.pods
            if pod.namespace == service["metadata"]["namespace"] and selector <= pod.labels.items() and pod.ready
        ]
        if not pods:
            raise NoEndpoint(f"no pod behind {host} is ready")
        return "127.0.0.1", pods[next(self._turns) % len(pods)].port(target)

    def curl(self, url: str, *words: str, namespace: str = "default") -> "Response":
        """Return the response that curl in a pod of `namespace` gets."""
        parts = urlsplit(url)
        address, port = self.endpoint(parts.hostname or "", parts.port or 80, namespace)
        flags = ("--silent", "--show-error", "--include", "--max-time", "30", "--noproxy", "*")
        command = ["curl", *flags, "--connect-to", f"::{address}:{port}", *words, url]
        result = subprocess.run(command, capture_output=True, text=True, timeout=40)
        assert result.returncode == 0, result.stderr
        return Response.of(result.stdout)


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response."""

    status: int
    headers: dict[str, str] = field(repr=False)
    body: str

    @classmethod
    def of(cls, text: str) -> "Response":
        """Return the response that `curl --include` prints."""
        head, _, body = text.replace("\r\n", "\n").partition("\n\n")
        first, *lines = head.split("\n")
        fields = (line.partition(":") for line in lines)
        return cls(int(first.split()[1]), {name.lower(): value.strip() for name, _, value in fields}, body)

    @property
    def backend(self) -> str:
        """Return the backend that served the response, as the gateway says."""
        return self.headers.get("x-beamlit-backend", "")

    @property
    def json(self) -> Any:
        """Return the decoded body."""
        return json.loads(self.body)


class Fault(Enum):
    """What the network does to connections through the proxy."""

    NONE = "none"
    REFUSED = "refused"
    SILENT = "silent"
    """Connections are accepted, and nothing comes back."""
    ERROR = "error"
    """Every request gets 500 from a server that has the upstream server's certificate."""


class Proxy:
    """An HTTP proxy that finds Services, for programs outside of a cluster's network.

    The connections that it tunnels (CONNECT, RFC 9110 section 9.3.6) are TLS from end to end, with the Service's own
    name.
    """

    def __init__(self, network: Network, namespace: str = "default") -> None:
        """Make a proxy whose clients are taken to be in `namespace`."""
        self._network, self._namespace = network, namespace
        self.fault = Fault.NONE
        self.certificate: tuple[str, str] | None = None
        """Files with a server's certificate and key, for Fault.ERROR."""
        self.stopping = threading.Event()
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """Handler of the requests of one connection."""

            def do_CONNECT(self) -> None:
                """Tunnel to the pod behind a Service's name."""
                proxy.tunnel(self)

            def do_GET(self) -> None:
                """Return the response of the pod behind a Service's name."""
                proxy.forward(self)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def forward(self, client: http.server.BaseHTTPRequestHandler) -> None:
        """Forward a GET request for an absolute URL and return the response."""
        parts = urlsplit(client.path)
        try:
            where = self._network.endpoint(parts.hostname or "", parts.port or 80, self._namespace)
        except NoEndpoint as exc:
            client.send_error(502, str(exc))
            return
        connection = http.client.HTTPConnection(*where, timeout=10)
        try:
            connection.request("GET", parts.path or "/", headers={"Host": parts.netloc})
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        client.send_response(response.status)
        client.send_header("content-length", str(len(body)))
        client.end_headers()
        client.wfile.write(body)

    def tunnel(self, client: http.server.BaseHTTPRequestHandler) -> None:
        """Respond to one CONNECT request, and carry bytes until a side ends."""
        client.close_connection = True
        host, _, port = client.path.rpartition(":")
        if self.fault is Fault.REFUSED:
            client.send_error(502)
            return
        try:
            upstream = socket.create_connection(self._network.endpoint(host, int(port), self._namespace), timeout=5)
        except (NoEndpoint, OSError) as exc:
            client.send_error(502, str(exc))
            return
        with upstream:
            client.send_response(200)
            client.end_headers()
            if self.fault is Fault.ERROR:
                self._fail(client.connection)
            else:
                self._carry(client.connection, upstream)

    def _fail(self, client: socket.socket) -> None:
        """Respond to one request with 500, as a server that always fails."""
        assert self.certificate is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.certificate)
        client.settimeout(5)
        with contextlib.suppress(OSError), context.wrap_socket(client, server_side=True) as secure:
            head = b""
            while b"\r\n\r\n" not in head and (data := secure.recv(65536)):
                head += data
            secure.sendall(b"HTTP/1.1 500 Broken\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    def _carry(self, client: socket.socket, upstream: socket.socket) -> None:
        ends = {client: upstream, upstream: client}
        while not self.stopping.is_set():
            for sock in select.select(list(ends), (), (), 0.2)[0]:
                try:
                    data = sock.recv(65536)
                    # With Fault.SILENT requests arrive, and no response goes back.
                    if data and not (sock is upstream and self.fault is Fault.SILENT):
                        ends[sock].sendall(data)
                except OSError:
                    return
                if not data:
                    return
            if self.fault in (Fault.REFUSED, Fault.ERROR):
                return

    @contextlib.contextmanager
    def running(self) -> Iterator["Proxy"]:
        """Serve for as long as the context lasts."""
        self._thread.start()
        try:
            yield self
        finally:
            self.stopping.set()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
