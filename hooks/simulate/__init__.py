"""Simulation: the same decisions as in a sync, on a virtual clock, against a model of everything that they act on."""
