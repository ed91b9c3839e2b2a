"""Secrets and OAuth2 tokens that the gateway sends to remote backends."""
