"""The server's processes: a supervisor and its workers."""
