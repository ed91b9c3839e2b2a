"""The part of the stand-in that plays Metacontroller: it asks the hooks and applies their responses."""
