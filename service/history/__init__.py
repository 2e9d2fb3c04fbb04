"""The last distinct results of each metric, what differs between them, and why."""
