"""A stand-in for Metacontroller and the API server on one machine, for trying and testing."""
