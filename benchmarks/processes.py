"""Servers under measurement as processes on loopback, and the CPU and memory they used."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from tools.ports import free_port

READY_SECONDS = 60.0
"""Seconds a server may take to listen. They are many, because the machine may be busy."""


class BenchmarkError(RuntimeError):
    """The benchmark cannot run here. The message says what to install or to look at."""


class Missing(BenchmarkError):
    """A program is not installed. The message says which, and what has it."""


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when something accepts on `port`.

    Raises:
        BenchmarkError: the process ended, or did not listen in time; the message ends with its log.
    """
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.05)
    raise BenchmarkError(f"{process.args!r} does not listen on {port}:\n{log.read_text()[-2000:]}")


@contextlib.contextmanager
def running(name: str, command: Sequence[str], port: int, folder: Path) -> Iterator[psutil.Process]:
    """Start `command`, wait for `port`, and end it afterwards."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=Path.cwd())
        try:
            wait_for(port, process, log)
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def cpu_seconds(process: psutil.Process) -> float:
    """Return the user and system CPU time of a process and its children so far, in seconds."""
    total = 0.0
    for member in [process, *process.children(recursive=True)]:
        times = member.cpu_times()
        total += times.user + times.system
    return total


def resident_kib(process: psutil.Process) -> float:
    """Return the resident memory of a process and its children, in KiB."""
    return sum(member.memory_info().rss for member in [process, *process.children(recursive=True)]) / 1024


def nginx(name: str, server: str, port: int, folder: Path) -> contextlib.AbstractContextManager[psutil.Process]:
    """Run nginx with one worker and `server` as content of the `http` block, logging errors only."""
    config = folder / f"{name}.conf"
    scratch = folder / name
    scratch.mkdir()
    paths = "\n".join(
        f"{kind}_temp_path {scratch}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"""
        daemon off; worker_processes 1; pid {scratch}/pid; error_log stderr error;
        {"user root;" if os.getuid() == 0 else ""}
        worker_rlimit_nofile 20000;
        events {{ worker_connections 16000; }}
        http {{ access_log off; keepalive_requests 1000000; {paths} {server} }}
        """
    )
    return running(name, [program("nginx", "nginx-light"), "-c", str(config), "-p", str(scratch)], port, folder)


def program(name: str, package: str) -> str:
    """Return the path of an installed program.

    Raises:
        Missing: it is not there; the message names the package.
    """
    for folder in [*os.environ.get("PATH", "").split(":"), "/usr/sbin"]:
        if folder and (path := Path(folder) / name).exists():
            return str(path)
    raise Missing(f"{name} is missing; on Debian: apt-get install {package}")


def gateway(
    folder: Path,
    upstream: int,
    *,
    everything: bool = False,
    collector: int | None = None,
    usage: bool = False,
    key: str = "",
) -> tuple[contextlib.AbstractContextManager[psutil.Process], int]:
    """Run the gateway with one route to the local port `upstream`, and yield its process and port.

    Matching, header rules, failover with bodies that are held for it, the breaker, metrics and the access log are on:
    this is what users run. `everything` is what they may ask for besides: health checks, a limit of requests at a time
    with a queue, overflow, first-byte timeouts as a cause, and times and limits of the route's own. With the port of a
    `collector` all requests are traced. With `usage` streams are asked for their tokens. With a `key` no request is
    served without it, and its caller has a rule with a priority and a limit.
    """
    from gateway.api import v1alpha1 as api
    from gateway.api import vocabulary

    use: tuple[api.Use, ...] = (api.Use.WEIGHTED, api.Use.FAILOVER)
    asked: dict[str, object] = {}
    health = None
    if everything:
        use = (*use, api.Use.OVERFLOW)
        health = api.HealthCheck(path="/health", interval=1, timeout=1)
        asked = {
            "queue": api.Queue(size=100, wait=5),
            "retry": api.Retry(on=tuple(vocabulary.FailureCause), body_bytes=1 << 20),
            "breaker": api.Breaker(consecutive_failures=3, window=5),
            "timeouts": api.Timeouts(connect=2, first_byte=60, idle=60),
            "limits": api.Limits(body_bytes=1 << 20),
        }
    if usage:
        asked["usage"] = vocabulary.StreamUsage.ALWAYS
    local = api.Backend(
        id="local",
        weight=100,
        service="demo-local",
        port=80,
        headers=api.Headers(set={"x-tier": "local"}),
        health=health,
        in_flight=10_000 if everything else None,
    )
    remote = api.Backend(
        id="remote", host="remote.example", port=80, headers=api.Headers(set={"x-tier": "remote"}), use=use
    )
    document = api.RouteDocument.model_validate({"name": "demo", "backends": (local, remote), **asked})
    folder.mkdir(exist_ok=True)
    routes = folder / "routes"
    routes.mkdir()
    text = document.canonical_json()
    (routes / "demo.yaml").write_text(
        f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: demo-route\n  namespace: default\n"
        f"  labels: {{{api.LABEL}: {api.LABEL_VALUE}}}\ndata:\n  {api.KEY}: '{text}'\n"
    )
    port, admin = free_port(), free_port()
    config = folder / "config.yaml"
    section: dict[str, object] = {}
    if collector is not None:
        section["tracing"] = {"endpoint": f"http://127.0.0.1:{collector}"}
    if key:
        (folder / "keys").mkdir()
        (folder / "keys" / "bench").write_text(key)
        (folder / "callers.yaml").write_text("callers: {bench: {priority: high, maxInFlight: 10000}}")
        section["access"] = {"keysDirectory": str(folder / "keys"), "rulesFile": str(folder / "callers.yaml")}
    config.write_text(json.dumps({"namespaces": "default", "gateway": section}))
    command = [
        sys.executable,
        *("-m", "gateway", "--config", str(config), "--routes", str(routes)),
        *("--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"),
        *("--resolve", f"demo-local.default.svc.cluster.local:80=127.0.0.1:{upstream}"),
    ]
    return running("gateway", command, port, folder), port
