"""The manifests that register hooks with Metacontroller, and a stand-in for it on one machine."""
