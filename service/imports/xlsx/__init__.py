"""Reading workbooks (XLSX), in a process of its own that a hostile file may exhaust without harm.

`process` is what that process runs; nothing here is called by the service itself.
"""
