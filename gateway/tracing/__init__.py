"""Traces: the spans of a request, and how they reach a collector."""
