"""CPU of a proxy per small POST, as a ratio to nginx in the same run."""

import re
import statistics
import subprocess
from pathlib import Path

import psutil

from benchmarks import processes
from tools.ports import free_port

PATH = "/default/demo/v1/chat/completions"
BY_MODEL = "/v1/chat/completions"
"""Path of requests whose body says which model they are for."""
BODY = '{"model":"demo","messages":[{"role":"user","content":"' + "x" * 140 + '"}]}'
RESPONSE = '{"id":"1","object":"chat.completion","choices":[{"index":0,"message":{"content":"' + "y" * 120 + '"}}]}'


def wrk(port: int, seconds: float, folder: Path, path: str = PATH, body: str = BODY) -> int:
    """Load one server with keep-alive POSTs on 32 connections. Return the number of responses.

    Raises:
        BenchmarkError: some responses were errors, so the figure would mean nothing.
    """
    payload = folder / "body.json"
    payload.write_text(body)
    script = folder / "post.lua"
    script.write_text(
        'wrk.method = "POST"\n'
        'wrk.headers["Content-Type"] = "application/json"\n'
        f'local file = io.open("{payload}", "rb")\nwrk.body = file:read("*a")\nfile:close()\n'
    )
    output = subprocess.run(
        [
            processes.program("wrk", "wrk"),
            "-t1",
            "-c32",
            f"-d{seconds:g}s",
            "-s",
            script,
            f"http://127.0.0.1:{port}{path}",
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=seconds + 30,
    ).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise processes.BenchmarkError(f"the load met errors:\n{output}")
    match = re.search(r"(\d+) requests in", output)
    if match is None:
        raise processes.BenchmarkError(f"wrk printed no count:\n{output}")
    return int(match[1])


def origin(port: int) -> str:
    """Return the configuration of an nginx server with the same response to every request."""
    location = f"location / {{ return 200 '{RESPONSE}'; }}"
    return f"server {{ listen 127.0.0.1:{port}; default_type application/json; {location} }}"


def microseconds_per_request(
    process: psutil.Process, port: int, seconds: float, folder: Path, path: str = PATH
) -> float:
    """Return the CPU time in microseconds that `process` spends on one request."""
    before = processes.cpu_seconds(process)
    count = wrk(port, seconds, folder, path)
    return (processes.cpu_seconds(process) - before) / count * 1e6


def measure(folder: Path, *, rounds: int, seconds: float) -> dict[str, float]:
    """Measure nginx, gateway and gateway with everything on in front of one server, in interleaved rounds. Return the
    medians of `rounds`."""
    folder.mkdir(parents=True)
    origin_port, nginx_port = free_port(), free_port()
    proxy = (
        f"upstream origin {{ server 127.0.0.1:{origin_port}; keepalive 64; keepalive_requests 1000000; }}"
        f"server {{ listen 127.0.0.1:{nginx_port}; location / {{ proxy_pass http://origin/;"
        " proxy_http_version 1.1; proxy_set_header Connection ''; } }"
    )
    gateway, gateway_port = processes.gateway(folder, origin_port)
    full, full_port = processes.gateway(folder / "full", origin_port, everything=True)
    with (
        processes.nginx("origin", origin(origin_port), origin_port, folder),
        processes.nginx("proxy", proxy, nginx_port, folder) as reference,
        gateway as subject,
        full as with_everything,
    ):
        for port in (nginx_port, gateway_port, full_port):
            wrk(port, 1, folder)
        ours, theirs, most, by_model = [], [], [], []
        for _ in range(rounds):
            theirs.append(microseconds_per_request(reference, nginx_port, seconds, folder))
            ours.append(microseconds_per_request(subject, gateway_port, seconds, folder))
            by_model.append(microseconds_per_request(subject, gateway_port, seconds, folder, BY_MODEL))
            most.append(microseconds_per_request(with_everything, full_port, seconds, folder))
    return {
        "unary_vs_nginx": statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
        "unary_us": statistics.median(ours),
        "unary_nginx_us": statistics.median(theirs),
        "unary_by_model_ratio": statistics.median(a / b for a, b in zip(by_model, ours, strict=True)),
        "unary_everything": statistics.median(a / b for a, b in zip(most, ours, strict=True)),
    }
