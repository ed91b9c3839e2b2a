"""The client of the Beamlit platform's HTTP API."""
