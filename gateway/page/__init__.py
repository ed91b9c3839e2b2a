"""The page of the admin port: what the gateway does now, for a person with a browser."""
