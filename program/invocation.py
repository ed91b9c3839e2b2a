"""How the process was started, for the help and the messages that the person reads who started it."""

import shutil
import sys
import textwrap
from pathlib import Path


def command(module: str) -> str:
    """Return the name of the command that runs a program: its console script, or `python -m` and its module."""
    script = f"beamlit-{module}"
    return script if Path(sys.argv[0]).name == script else f"python -m {module}"


def typed(module: str) -> str:
    """Return the command so that an example with it works in the same shell: `.venv/bin/beamlit-hooks`."""
    if Path(sys.argv[0]).name == command(module):
        return sys.argv[0]
    python = Path(sys.executable)
    if shutil.which("python") == str(python):
        return f"python -m {module}"
    here = Path.cwd()
    return f"{python.relative_to(here) if python.is_relative_to(here) else python} -m {module}"


def paragraphs(*texts: str) -> str:
    """Return texts as paragraphs of a help page. One that begins with a space is kept as it is: a command to copy."""
    return "\n\n".join(text if text.startswith(" ") else textwrap.fill(text, 79) for text in texts)
