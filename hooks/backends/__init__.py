"""What may serve a request: the local backend and its readiness, the remote backend and the policies that limit it."""
