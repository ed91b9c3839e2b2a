"""Sockets and time as all connections of the gateway use them: bounded writes and deadlines."""
