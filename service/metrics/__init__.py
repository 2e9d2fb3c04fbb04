"""Metrics: stored SQL, its parameters, its results."""
