"""Routes: where they are read from, the table that matches requests, and the store that holds it."""
