"""A cluster of one real node on this machine.

`python -m tests.node up` starts it and prints its kubeconfig, `load ARCHIVE` gives it an image, `down` ends it. It
needs root. It has no way out, so images come from archives, as `docker save` writes them; `images` writes those of the
product and of its tests.
"""

import argparse
import contextlib
import os
import sys
from pathlib import Path

from tests.e2e.binaries import BuildError
from tests.node import image, images, lifecycle, programs
from tools.repository import ROOT


def main() -> int:
    """Start or end a node."""
    parser = argparse.ArgumentParser(prog="python -m tests.node", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("up", "start a node and print its kubeconfig"), ("down", "end a node and remove its traces")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--name", default="node", help="name of the node, where there are several")
    load = commands.add_parser("load", help="give a node images")
    load.add_argument("archive", type=Path, nargs="+")
    load.add_argument("--name", default="node")
    write = commands.add_parser("images", help="write all images that the tests run, and print their archives")
    write.add_argument("folder", type=Path, nargs="?", default=ROOT / "build/image")
    arguments = parser.parse_args()
    if os.geteuid() != 0 and arguments.command != "images":
        print("a node needs root: it mounts, and makes networks", file=sys.stderr)
        return 1
    try:
        match arguments.command:
            case "up":
                programs.build()
                print(lifecycle.up(arguments.name).kubeconfig)
            case "load":
                node = lifecycle.running(arguments.name)
                for archive in arguments.archive:
                    lifecycle.load(node, archive)
            case "images":
                arguments.folder.mkdir(parents=True, exist_ok=True)
                with contextlib.redirect_stdout(sys.stderr):
                    written = images.write_all(arguments.folder)
                print("\n".join(map(str, written)))
            case _:
                lifecycle.down(arguments.name)
    except (BuildError, lifecycle.NodeError, image.BuildError, image.Unavailable) as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
