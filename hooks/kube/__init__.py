"""The Kubernetes object model: objects and their keys, unstructured access, quantities, selectors, stored form."""
