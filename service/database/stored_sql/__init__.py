"""Run stored SQL under the reader role: limited connections, enforced limits, exact values."""
