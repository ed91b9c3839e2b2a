"""What is wrong with a file, in words for the person who wrote it."""

import yaml

Unreadable = (OSError, UnicodeDecodeError, yaml.YAMLError)
"""What reading a file of YAML may raise."""


def problem(exc: Exception) -> str:
    """Why a file could not be read, to follow its name: `cannot be read: …` or `is not YAML in line 3: …`."""
    if isinstance(exc, yaml.YAMLError):
        mark = getattr(exc, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        return f"is not YAML{where}: {getattr(exc, 'problem', None) or 'syntax'}"
    if isinstance(exc, UnicodeDecodeError):
        return "cannot be read: it is not UTF-8"
    return f"cannot be read: {getattr(exc, 'strerror', None) or exc}"
