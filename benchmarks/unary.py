"""CPU of the gateway per small POST, as a ratio to other proxies in the same run."""

import re
import statistics
import subprocess
from pathlib import Path

import psutil

from benchmarks import processes, proxies
from tools.ports import free_port

PATH = "/default/demo/v1/chat/completions"
BY_MODEL = "/v1/chat/completions"
"""Path of requests whose body says which model they are for."""
BODY = '{"model":"demo","messages":[{"role":"user","content":"' + "x" * 140 + '"}]}'
KEY = "a-key-that-is-long-enough-for-a-key"
"""API key of the caller, where the gateway asks for one."""
RESPONSE = '{"id":"1","object":"chat.completion","choices":[{"index":0,"message":{"content":"' + "y" * 120 + '"}}]}'


def wrk(port: int, seconds: float, folder: Path, path: str = PATH, body: str = BODY, key: str = "") -> int:
    """Load one server with keep-alive POSTs on 32 connections, with an API key if there is one. Return the number of
    responses.

    Raises:
        BenchmarkError: some responses were errors, so the figure would mean nothing.
    """
    payload = folder / "body.json"
    payload.write_text(body)
    script = folder / "post.lua"
    script.write_text(
        'wrk.method = "POST"\n'
        'wrk.headers["Content-Type"] = "application/json"\n'
        + (f'wrk.headers["X-Api-Key"] = "{key}"\n' if key else "")
        + f'local file = io.open("{payload}", "rb")\nwrk.body = file:read("*a")\nfile:close()\n'
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
    process: psutil.Process, port: int, seconds: float, folder: Path, path: str = PATH, key: str = ""
) -> float:
    """Return the CPU time in microseconds that `process` spends on one request."""
    before = processes.cpu_seconds(process)
    count = wrk(port, seconds, folder, path, key=key)
    return (processes.cpu_seconds(process) - before) / count * 1e6


def measure(folder: Path, *, rounds: int, seconds: float) -> dict[str, float]:
    """Measure other proxies, the gateway, and the gateway with everything on, with traces and with access by key, in
    front of one server.

    Rounds are interleaved, and their medians are returned.
    """
    folder.mkdir(parents=True)
    origin_port, collector_port = free_port(), free_port()
    gateway, gateway_port = processes.gateway(folder, origin_port)
    full, full_port = processes.gateway(folder / "full", origin_port, everything=True)
    traced, traced_port = processes.gateway(folder / "traced", origin_port, collector=collector_port)
    keyed, keyed_port = processes.gateway(folder / "keyed", origin_port, key=KEY)
    collector = f"server {{ listen 127.0.0.1:{collector_port}; client_max_body_size 0; return 200; }}"
    with (
        processes.nginx("origin", origin(origin_port), origin_port, folder),
        processes.nginx("collector", collector, collector_port, folder),
        proxies.beside(origin_port, folder) as others,
        gateway as subject,
        full as with_everything,
        traced as with_traces,
        keyed as with_access,
    ):
        ways = {
            **{name: (process, port, PATH, "") for name, (process, port) in others.items()},
            "path": (subject, gateway_port, PATH, ""),
            "model": (subject, gateway_port, BY_MODEL, ""),
            "everything": (with_everything, full_port, PATH, ""),
            "traced": (with_traces, traced_port, PATH, ""),
            "access": (with_access, keyed_port, PATH, KEY),
        }
        for _, port, _, key in ways.values():
            wrk(port, 1, folder, key=key)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, (process, port, path, key) in ways.items():
                times[name].append(microseconds_per_request(process, port, seconds, folder, path, key))

    def ratio(one: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))

    return {
        **{f"unary_vs_{name}": ratio("path", name) for name in others},
        **{f"unary_by_model_vs_{name}": ratio("model", name) for name in others if name != "nginx"},
        "unary_us": statistics.median(times["path"]),
        **{f"unary_{name}_us": statistics.median(times[name]) for name in others},
        "unary_by_model_ratio": ratio("model", "path"),
        "unary_everything": ratio("everything", "path"),
        "unary_traced": ratio("traced", "path"),
        "unary_access": ratio("access", "path"),
    }
