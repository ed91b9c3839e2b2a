"""Completion of `kubectl beamlit`, as kubectl asks its plugins for it.

kubectl runs `kubectl_complete-beamlit` with the words that were typed, of which the last is not finished. Each line of
its output is a word that could stand there, and the last line a directive (https://pkg.go.dev/github.com/spf13/cobra).
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from hooks.kube.unstructured import mapping, objects, text
from hooks.kubectl import models
from hooks.kubectl.cluster import ClusterFailed, Kubectl, get
from hooks.kubectl.command import COMMANDS, parser

_NO_FILES: Final = ":4"
"""Directive to offer no names of files."""
_FILES: Final = ":0"
"""Directive to offer names of files."""
_VALUES: Final = {
    "--output": ("table", "text", "json"),
    "-o": ("table", "text", "json"),
    "--for": ("10m", "1h", "8h"),
}
"""Values of flags that are known without a cluster."""
_SECONDS: Final = 5.0
"""Seconds in which the cluster has to name its models."""


def candidates(words: Sequence[str], names: Sequence[str]) -> tuple[list[str], str]:
    """Return the words that could stand in place of the last one, and the directive.

    Args:
        words: the words that were typed.
        names: names of ModelDeployments.
    """
    *before, last = words or [""]
    known = flags(before[0] if before else "")
    previous = before[-1] if before else ""
    if previous == "--kubeconfig":
        return [], _FILES
    if previous in _VALUES:
        found: Sequence[str] = _VALUES[previous]
    elif known.get(previous, False):
        found = ()
    elif not before:
        found = COMMANDS
    elif last.startswith("-"):
        found = sorted(known)
    elif before[0] in COMMANDS and not _positionals(before[1:], known):
        found = names
    else:
        found = ()
    return [one for one in found if one.startswith(last)], _NO_FILES


def wants_names(words: Sequence[str]) -> bool:
    """Return whether the last word may be the name of a model."""
    return candidates([*words[:-1], ""], ["name"])[0] == ["name"]


def flags(command: str) -> dict[str, bool]:
    """Return the flags of a command, and whether each takes a value."""
    subparsers = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    found = subparsers.choices.get(command)
    if found is None:
        return {}
    return {word: action.nargs != 0 for action in found._actions for word in action.option_strings}


def _positionals(words: Sequence[str], known: dict[str, bool]) -> list[str]:
    """Return the words that are neither flags nor their values."""
    found, is_value = [], False
    for word in words:
        if not is_value and not word.startswith("-"):
            found.append(word)
        is_value = not is_value and known.get(word, False)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what could stand in place of the last word."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    names = asyncio.run(_names(words)) if wants_names(words) else []
    found, directive = candidates(words, names)
    print("\n".join([*found, directive]))  # noqa: T201 - this is for the shell
    return 0


async def _names(words: Sequence[str]) -> list[str]:
    """Return the names of the ModelDeployments of the namespace; none where they cannot be read."""
    given = {
        name: value
        for name in ("kubeconfig", "context", "as", "namespace")
        if (value := _value(words, f"--{name}") or (_value(words, "-n") if name == "namespace" else None))
    }
    namespace = given.pop("namespace", None)
    try:
        async with asyncio.timeout(_SECONDS):
            cluster = Kubectl.found([f"--{name}={value}" for name, value in given.items()])
            page = await get(cluster, models.collection(namespace or await cluster.namespace()))
    except (ClusterFailed, TimeoutError):
        return []
    return [text(mapping(one, "metadata"), "name") for one in objects(page, "items")]


def _value(words: Sequence[str], flag: str) -> str | None:
    """Return the value of a flag that was typed."""
    for word, following in pairwise(words):
        if word == flag:
            return following
    return next((word.partition("=")[2] for word in words if word.startswith(f"{flag}=")), None)


if __name__ == "__main__":
    sys.exit(main())
