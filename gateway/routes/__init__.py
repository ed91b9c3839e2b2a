"""Routes: the sources they are read from, the table that matches requests, and the store of that table."""
