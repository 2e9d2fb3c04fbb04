"""Stored SQL under the reader role: connections lent out, limits kept, values exact."""
