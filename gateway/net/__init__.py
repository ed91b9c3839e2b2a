"""Writes and deadlines as all connections of the gateway share them."""
