"""The decision to offload: rules in order, hysteresis, and the measures of metrics."""
