"""Generator of the page about clients, from the list of clients, lock files and the versions of programs."""

import json
import tomllib
from collections.abc import Mapping
from typing import Final

from tools.client_cases import CALLS, CLIENTS, WORKS, Client
from tools.repository import ROOT

PROGRAMS: Final = ROOT / "tests/clients/programs.json"
"""Versions of the programs that were there when the suite last recorded them."""
_INTRODUCTION: Final = """\
`make clients` runs these clients against the gateway, in front of a server that records every byte it gets. A call that
works gives the client what it asked for; where the gateway responds with an error, the table has what the client shows:
the class of its error or the status, and the code. [Clients](clients.md) has base URLs, timeouts and retries."""


def page() -> str:
    """Return the content of docs/compatibility.md."""
    lines = [
        "<!-- Generated from tools/client_cases.py, the lock files and the recorded versions by `make generate`. -->\n",
        "# Clients that are tested",
        "",
        _INTRODUCTION,
        "",
        f"| client | version | {' | '.join(f'`{call}`' for call in CALLS)} |",
        f"| --- | --- |{' --- |' * len(CALLS)}",
    ]
    for client in CLIENTS.values():
        cells = [_cell(client.outcomes.get(call, "")) for call in CALLS]
        lines.append(f"| {client.name} ({client.language}) | {version(client)} | {' | '.join(cells)} |")
    lines += ["", "| call | what it is |", "| --- | --- |"]
    lines += [f"| `{call}` | {meaning} |" for call, meaning in CALLS.items()]
    for client in CLIENTS.values():
        if client.more:
            lines += ["", f"With {client.name} ({client.language}) besides:", ""]
            lines += [f"- {sentence}" for sentence in client.more]
    return "\n".join(lines) + "\n"


def version(client: Client) -> str:
    """Return the version of a client: that of its lock file, or that of its program when it was recorded."""
    if client.program:
        return f"{client.program} {programs()[client.program]}"
    if client.language == "Node":
        lock = json.loads((ROOT / "tests/clients/node/package-lock.json").read_text(encoding="utf-8"))
        return str(lock["packages"][f"node_modules/{client.package}"]["version"])
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    return next(str(one["version"]) for one in lock["package"] if one["name"] == client.package)


def programs() -> Mapping[str, str]:
    """Return the recorded versions by the names of programs."""
    recorded: Mapping[str, str] = json.loads(PROGRAMS.read_text(encoding="utf-8"))
    return recorded


def _cell(outcome: str) -> str:
    if not outcome or outcome == WORKS:
        return outcome or "has none"
    shown, _, code = outcome.partition(" ")
    return f"{shown} `{code}`"
