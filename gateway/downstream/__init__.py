"""Connections of clients: the HTTP/1.1 server, its exchanges, and WebSocket tunnels."""
