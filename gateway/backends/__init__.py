"""Choice of a backend: weights, circuit breaker, failover and limits of requests in flight."""
