"""The command `beamlit-hooks simulate`: reading files and arguments, and printing."""
