"""Generators: they write CRDs, JSON schemas and reference pages from the types and tables in the code."""
