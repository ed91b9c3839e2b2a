"""The shell of the platform: the client of its HTTP API, its credentials, and the tasks that register objects there."""
