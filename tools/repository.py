"""Paths in the checkout that tools and tests work in."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
"""Path of the top folder of the checkout."""
