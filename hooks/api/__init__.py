"""The custom resources ModelDeployment and Policy: what users write, and what the controller writes in status.

The CustomResourceDefinitions are generated from these types (`hooks.api.crds`): constraints, defaults, CEL rules and
the attribute docstrings, which are the CRD reference and what `kubectl explain` prints.

Reading is lenient, because the API server has validated the object already: unknown fields are ignored. A value that
cannot be used raises `InvalidObject` with a sentence that names the field. Zero and false are values, never "not set".
"""
