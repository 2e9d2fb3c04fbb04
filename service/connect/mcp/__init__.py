"""The Model Context Protocol: metrics for assistants, over HTTP."""
