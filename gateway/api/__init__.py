"""The contract between hooks and gateway, and nothing else. Imports nothing of either."""
