"""Counts of customer interactions by channel, customer type and product."""
