"""Generators of CRDs, JSON schemas and reference pages, from the types and tables in the code; and ports for tests."""
