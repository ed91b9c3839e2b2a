"""The plugin `kubectl beamlit`: the state of models in a cluster, for a person with a kubeconfig.

All calls are made by kubectl itself, so context, credentials and rights are those of the user who types the command.
"""
