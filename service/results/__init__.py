"""Finished answers: how they are held, how long they may be served, and how one run serves many callers.

Nothing here knows what a metric is; keys and owners are the caller's.
"""
