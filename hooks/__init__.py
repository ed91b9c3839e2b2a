"""The controller: given what is observed, it tells which objects should exist and what the status is.

It is stateless; all it remembers is in `parent.status`. Loops, watches and queues belong to Metacontroller.
"""
