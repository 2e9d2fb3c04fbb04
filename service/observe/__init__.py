"""Structured logs of the service."""
