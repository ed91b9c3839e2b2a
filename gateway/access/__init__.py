"""Access: who is calling, by the credential of a request."""
