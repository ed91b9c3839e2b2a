"""Imports of costly packages that wait for their first use.

Each process of `make test` collects all tests, and clients of model APIs take seconds of CPU to import: only the
processes that run a test of theirs pay for them.
"""

from importlib import import_module
from typing import Any


class LateImport:
    """A package that is imported when a public name of it is read first.

    pytest looks at the attributes of everything that a test module has, among them `__class__` and `__test__`. These
    import nothing, unlike those of a module by `importlib.util.LazyLoader`.
    """

    def __init__(self, package: str) -> None:
        """Remember the name of the package."""
        self._package = package

    def __getattr__(self, name: str) -> Any:
        """Return what the package has under this name.

        Raises:
            AttributeError: it has none, or the name is private.
            ModuleNotFoundError: the package is not installed.
        """
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(import_module(self._package), name)
