"""Read workbooks (XLSX) in a separate process, so that a hostile file cannot exhaust the service.

The process runs `process`. The service calls nothing in this package.
"""
