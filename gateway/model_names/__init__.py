"""Finding the name of the model in a request, and putting another one in its place."""
