"""Connections to backends: pools, name resolution, and the addresses that may be reached."""
