"""Drills: each remote backend is tried before requests need it, and its last result is kept."""
