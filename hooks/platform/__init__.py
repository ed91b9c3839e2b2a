"""Objects that the Beamlit platform should have, their owners there, and their registration."""
