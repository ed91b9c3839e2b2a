"""HTTP clients and files by which hooks read from the world outside."""
