"""The custom resources, field by field. `crds/` is generated from here."""
