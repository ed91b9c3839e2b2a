"""The part of the stand-in that plays the API server: a store of objects with schemas, defaults and CEL rules."""
