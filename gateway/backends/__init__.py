"""The choice of a backend: weights, circuit breaker, failover, limits of concurrency."""
