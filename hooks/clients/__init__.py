"""Clients for the servers that hooks read from: the API server and Prometheus."""
