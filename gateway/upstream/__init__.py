"""Connections to backends: pool, name resolution, and the addresses that may be reached."""
