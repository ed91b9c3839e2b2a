"""All facts that a decision may rest on, frozen before anything is decided."""
