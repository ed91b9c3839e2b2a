"""What hooks and gateway do alike as processes: read one configuration, listen, log, serve an app, obey signals.

Both read the same `config.yaml` and must read it the same way; nothing here knows what either of them is for.
"""
