"""A cluster of one real node on this machine.

`python -m tests.node up` starts it and prints its kubeconfig, `load ARCHIVE` gives it an image, `down` ends it. It
needs root. It has no way out, so images come from archives, as `docker save` writes them.
"""

import argparse
import os
import sys
from pathlib import Path

from tests.e2e.binaries import BuildError
from tests.node import lifecycle, programs


def main() -> int:
    """Start or end a node."""
    parser = argparse.ArgumentParser(prog="python -m tests.node", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("up", "start a node and print its kubeconfig"), ("down", "end a node and remove its traces")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--name", default="node", help="name of the node, where there are several")
    load = commands.add_parser("load", help="give a node an image")
    load.add_argument("archive", type=Path)
    load.add_argument("--name", default="node")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("a node needs root: it mounts, and makes networks", file=sys.stderr)
        return 1
    try:
        match arguments.command:
            case "up":
                programs.build()
                print(lifecycle.up(arguments.name).kubeconfig)
            case "load":
                lifecycle.load(lifecycle.running(arguments.name), arguments.archive)
            case _:
                lifecycle.down(arguments.name)
    except (BuildError, lifecycle.NodeError) as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
