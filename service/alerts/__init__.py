"""Alerts: rules on the results of metrics, what they find, and who is told."""
