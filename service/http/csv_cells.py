"""Write cells of CSV (RFC 4180)."""


def quoted(cell: str) -> str:
    """A cell with quotes where it needs them. The `csv` module would block the process for a long cell."""
    if '"' in cell:
        return '"' + cell.replace('"', '""') + '"'
    return f'"{cell}"' if "," in cell or "\n" in cell or "\r" in cell else cell
