"""Spellings of quantities that a real API server was asked to store, and the file with its responses."""

from typing import Final

from tools.repository import ROOT

FILE: Final = ROOT / "tests/contract/quantities.json"
"""Stored texts by spelling, of a field and of a resource in a map; null where the API server refuses the spelling."""
WRITTEN: Final = (
    "1000m", "0.5", ".5", "3.", "1.", "1024Mi", "1000Mi", "1.5Gi", "0.1Mi", "0.5Ki", "512Ki", "1025Ki", "62.5Ki",
    "62.5Mi", "2048", "1000000", "100k", "1500k", "1e3", "1E3", "1500e0", "1000e0", "1e4", "1.0001e0", "2.820E3",
    "1e30", "1e-9", "1e-10", "1234567890123456789e0", "5n", "0.5n", "0", "0Mi", "-0", "+5", "+1500m", "+0",
    "99999999999Gi", "2000E", "1E", "1Ei", "16Ei", "123456789012345678901234567890", "0.0000000001", "100u", "1000u",
    "", " ", "5 ", "k", "Mi", "m", "n", "+", "-", ".", "+k", ".k", "e-3", "+e3", "2e21", "3000000000000000000000",
    "1e21", "4000E", "1500E", "x", "1x", "1ki", "1K", "--5", "1e", "e3", "1e3Mi", "1,5", "0x10", "1_000", "infinity",
    "NaN",
)  # fmt: skip
