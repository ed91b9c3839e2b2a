"""CPU of one hooks sync over HTTP, as a ratio to parsing the same body with orjson in the same run."""

import statistics
import sys
import time
from pathlib import Path

import orjson

from benchmarks import processes, unary
from tools.ports import free_port

REQUEST = Path("examples/requests/sync.json")
BODY_BYTES = 30_000
"""Bytes of the body that Metacontroller sends for a model with its children, managed fields and last-applied
annotations."""


def realistic_body() -> str:
    """Return the example request with managed fields, as an API server adds them, up to `BODY_BYTES`."""
    request = orjson.loads(REQUEST.read_bytes())
    entries = request["parent"]["metadata"].setdefault("managedFields", [])
    while len(body := orjson.dumps(request)) < BODY_BYTES:
        entries.append(
            {
                "apiVersion": "deployment.beamlit.com/v1alpha1",
                "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": {f"f:field{n}": {".": {}, f"f:inner{n}": {}} for n in range(8)}},
                "manager": f"kubectl-{len(entries)}",
                "operation": "Apply",
            }
        )
    return body.decode()


def parse_microseconds(body: str, repeat: int = 300) -> float:
    """Return the CPU time of one `orjson.loads`, in microseconds."""
    data = body.encode()
    before = time.process_time()
    for _ in range(repeat):
        orjson.loads(data)
    return (time.process_time() - before) / repeat * 1e6


def measure(folder: Path, *, rounds: int, seconds: float) -> dict[str, float]:
    """Measure parsing here and syncs there, in interleaved rounds. Return the medians of `rounds`."""
    folder.mkdir(parents=True)
    body = realistic_body()
    port, operations = free_port(), free_port()
    config = folder / "config.yaml"
    config.write_text("namespaces: ''\n")
    command = [
        sys.executable,
        *("-m", "hooks", "--config", str(config), "--listen", f"127.0.0.1:{port}"),
        *("--operations", f"127.0.0.1:{operations}"),
    ]
    ratios, syncs, parses = [], [], []
    with processes.running("hooks", command, port, folder) as subject:
        unary.wrk(port, 1, folder, "/modeldeployments/sync", body)
        for _ in range(rounds):
            parse = parse_microseconds(body)
            before = processes.cpu_seconds(subject)
            count = unary.wrk(port, seconds, folder, "/modeldeployments/sync", body)
            sync = (processes.cpu_seconds(subject) - before) / count * 1e6
            ratios.append(sync / parse)
            syncs.append(sync)
            parses.append(parse)
    return {
        "sync_vs_json_parse": statistics.median(ratios),
        "sync_us": statistics.median(syncs),
        "json_parse_us": statistics.median(parses),
    }
