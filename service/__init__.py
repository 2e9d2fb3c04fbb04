"""Tally: stored SQL as live, cached, safe JSON metrics over Postgres."""
