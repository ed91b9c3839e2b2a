"""The contract between hooks and the gateway; it imports neither of them."""
