"""What the Beamlit platform should have, who owns it there, and the registration that makes it so."""
