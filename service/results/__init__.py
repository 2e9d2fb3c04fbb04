"""The result cache: it stores results, decides their freshness, and shares one run among many callers.

This package does not know metrics. The caller chooses keys and owners.
"""
